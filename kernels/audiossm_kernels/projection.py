"""From the slices of a mixer's projection to what the recurrence takes."""

import torch
from torch import Tensor
from torch.nn import functional as F

from audiossm_kernels import operators
from audiossm_kernels.errors import KernelError
from audiossm_kernels.state import RawParams, SsmInputs

__all__ = ["check_raw", "heavy_tail", "make_steps", "prepare"]


def heavy_tail(s: Tensor) -> Tensor:
    """Return ``1 + s`` for s >= 0 and ``1 / (1 - s)`` below: positive, 1 at 0, slope 1 there."""
    # each branch is the larger one on its side; the clamp keeps the other one finite
    return torch.maximum(1 + s, 1 / (1 - s.clamp(max=0.0)))


def make_steps(
    raw_dt: Tensor,
    raw_a: Tensor,
    dt_bias: Tensor,
    a_activation: str,
    a_floor: float,
    max_memory: float | None,
) -> tuple[Tensor, Tensor]:
    """Return dt and A * dt of a projection, both (..., H); the rest is as in ``RawParams``."""
    softplus = operators.softplus if operators.exporting() else F.softplus
    dt = softplus(raw_dt + dt_bias)
    if a_activation == "heavy_tail" and operators.exporting():
        adt = operators.decay_rate(raw_a, a_floor) * dt
    else:
        positive = heavy_tail if a_activation == "heavy_tail" else softplus
        adt = -positive(raw_a).clamp(min=a_floor) * dt
    if max_memory is not None:
        adt = adt.clamp(max=-1 / max_memory)
    return dt, adt


def prepare(x: SsmInputs, raw: RawParams) -> SsmInputs:
    """Norm B and C, and make dt and A * dt; in float32, or float64 for float64 values."""
    dtype = torch.promote_types(x.v.dtype, torch.float32)
    q, k, raw_dt, raw_a = (part.to(dtype) for part in (x.q, x.k, x.dt, x.adt))
    dt, adt = make_steps(
        raw_dt, raw_a, raw.dt_bias.to(dtype), raw.a_activation, raw.a_floor, raw.max_memory
    )
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
