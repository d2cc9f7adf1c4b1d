"""Which form "auto" stands for, and what no Triton form takes."""

import os
from collections.abc import Iterable

import torch
from torch import Tensor

from audiossm_kernels.errors import KernelError
from audiossm_kernels.state import SsmInputs

__all__ = ["refuse_tensors", "triton_wanted"]

INPUT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

VARIABLE = "AUDIOSSM_KERNELS"


def triton_wanted() -> bool:
    """Return whether "auto" may choose Triton: not with ``AUDIOSSM_KERNELS=torch`` set.

    Raises:
        KernelError: the variable is neither "auto" nor "torch".
    """
    value = os.environ.get(VARIABLE, "auto")
    if value not in ("auto", "torch"):
        raise KernelError(f"{VARIABLE} is {value!r}, must be 'auto' or 'torch'")
    return value == "auto"


def refuse_tensors(x: SsmInputs, given: Iterable[Tensor]) -> str | None:
    """Return what Triton doesn't take of the inputs ``x`` or of where all tensors are, or None."""
    for label, part in zip(x._fields, x, strict=True):
        if part.dtype not in INPUT_DTYPES:
            return f"{label} is {part.dtype}, not float32, bfloat16 or float16"
    devices = {str(part.device) for part in given}
    if len(devices) > 1:
        return f"tensors are on several devices: {', '.join(sorted(devices))}"
    if x.v.device.type != "cuda" and not interpreted():
        return f"tensors are on {x.v.device}, not on a CUDA device"
    return None


def interpreted() -> bool:
    """Return whether Triton interprets its kernels, on the tensors of any device."""
    import triton

    return bool(triton.knobs.runtime.interpret)
