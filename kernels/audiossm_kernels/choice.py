"""Which form "auto" stands for, and what no Triton form takes."""

import os
from collections.abc import Iterable

import torch
from torch import Tensor

from audiossm_kernels.errors import KernelError
from audiossm_kernels.state import SsmInputs

__all__ = ["exact_too", "refuse_tensors", "transformed", "triton_wanted"]

INPUT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

VARIABLE = "AUDIOSSM_KERNELS"


def triton_wanted() -> bool:
    """Return whether "auto" may choose Triton: not with ``AUDIOSSM_KERNELS=torch`` set.

    Raises:
        KernelError: the variable is neither "auto" nor "torch" nor "triton".
    """
    return chosen() != "torch"


def exact_too() -> bool:
    """Return whether "auto" is Triton also where torch is usual: ``AUDIOSSM_KERNELS=triton``."""
    return chosen() == "triton"


def chosen() -> str:
    """Return what the environment says, "auto" if nothing."""
    value = os.environ.get(VARIABLE, "auto")
    if value not in ("auto", "torch", "triton"):
        raise KernelError(f"{VARIABLE} is {value!r}, must be 'auto', 'torch' or 'triton'")
    return value


def transformed() -> bool:
    """Return whether one of torch.func's transforms, such as vmap, is under way.

    Its tensors are no memory that a launch could read.
    """
    return torch._C._functorch.peek_interpreter_stack() is not None


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
