"""Random inputs of a step, for tests and benchmarks."""

import torch

from audiossm_kernels.ssm_scan.cases import ScanInputs, ScanShape
from audiossm_kernels.ssm_scan.cases import make_inputs as make_scan_inputs
from audiossm_kernels.state import SsmState

__all__ = ["make_inputs"]


def make_inputs(
    shape: ScanShape,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    *,
    state_dtype: torch.dtype | None = None,
    seed: int = 0,
) -> ScanInputs:
    """Draw the first frame of a scan's hard case.

    Args:
        shape: sizes, ``frames`` aside.
        dtype: of q, k, v and z; the rest is float32, or float64 where this is.
        device: where the tensors go.
        state_dtype: of ssm, k and v of the state; that of the scan's case by default.
        seed: equal seeds give equal tensors.
    """
    inputs = make_scan_inputs(shape, dtype, device, seed=seed)
    frame = [part[:, 0] for part in inputs[:8]]
    state = inputs.state
    if state_dtype is not None:
        angle, *rest = state
        state = SsmState(angle, *(part.to(state_dtype) for part in rest))
    return ScanInputs._make([*frame, inputs.params, state])
