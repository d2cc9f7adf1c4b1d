"""The recurrence as a loop over frames: slow and obvious on purpose."""

import torch
from torch import Tensor

from audiossm_kernels.ssm_step.reference import step_reference
from audiossm_kernels.state import Pairing, SsmInputs, SsmParams, SsmState

__all__ = ["scan_reference"]


def scan_reference(
    x: SsmInputs,
    params: SsmParams,
    state: SsmState,
    pairing: Pairing,
) -> tuple[Tensor, SsmState]:
    """Run ``step_reference`` over the frames; all tensors have one dtype."""
    outputs = []
    for frame in zip(*(part.unbind(1) for part in x), strict=True):
        y, state = step_reference(SsmInputs._make(frame), params, state, pairing)
        outputs.append(y)
    return torch.stack(outputs, dim=1), state
