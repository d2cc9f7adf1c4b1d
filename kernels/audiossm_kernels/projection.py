"""From the slices of a mixer's projection to what the recurrence takes."""

import torch
from torch import Tensor
from torch.nn import functional as F

from audiossm_kernels.errors import KernelError
from audiossm_kernels.state import RawParams, SsmInputs

__all__ = ["check_raw", "prepare"]


def prepare(x: SsmInputs, raw: RawParams) -> SsmInputs:
    """Norm B and C, and make dt and A * dt; in float32, or float64 for float64 values."""
    dtype = torch.promote_types(x.v.dtype, torch.float32)
    q, k, raw_dt, raw_a = (part.to(dtype) for part in (x.q, x.k, x.dt, x.adt))
    dt = F.softplus(raw_dt + raw.dt_bias.to(dtype))
    if raw.a_activation == "heavy_tail":
        decay = torch.where(raw_a >= 0, 1 + raw_a, 1 / (1 - raw_a.clamp(max=0.0)))
    else:
        decay = F.softplus(raw_a)
    adt = -decay.clamp(min=raw.a_floor) * dt
    if raw.max_memory is not None:
        adt = adt.clamp(max=-1 / raw.max_memory)
    return x._replace(q=norm(q, raw.q_norm), k=norm(k, raw.k_norm), dt=dt, adt=adt)


def norm(x: Tensor, weight: Tensor) -> Tensor:
    """Return the RMS norm of the last axis."""
    return F.rms_norm(x, x.shape[-1:], weight.to(x.dtype), eps=1e-5)


def check_raw(name: str, raw: RawParams, x: SsmInputs) -> None:
    """Refuse parameters that don't fit the inputs.

    Raises:
        KernelError: the first that doesn't fit, with its value and the expected one.
    """
    if raw.a_activation not in ("heavy_tail", "softplus"):
        raise KernelError(
            f"{name}: a_activation must be 'heavy_tail' or 'softplus', not {raw.a_activation!r}"
        )
    for label, size in (("dt_bias", x.dt.shape[-1]), ("q_norm", x.q.shape[-1])):
        tensor = getattr(raw, label)
        if tensor.shape != (size,):
            raise KernelError(f"{name}: raw.{label} has shape {tuple(tensor.shape)}, not ({size},)")
    if raw.k_norm.shape != raw.q_norm.shape:
        raise KernelError(
            f"{name}: raw.k_norm has shape {tuple(raw.k_norm.shape)}, not {tuple(raw.q_norm.shape)}"
        )
