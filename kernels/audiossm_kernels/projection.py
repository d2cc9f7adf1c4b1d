"""From the slices of a mixer's projection to what the recurrence takes."""

import torch
from torch import Tensor
from torch.nn import functional as F

from audiossm_kernels import operators
from audiossm_kernels.choice import INPUT_DTYPES, transformed, triton_wanted
from audiossm_kernels.errors import KernelError
from audiossm_kernels.state import RawParams, SsmInputs

__all__ = ["check_raw", "heavy_tail", "make_steps", "norm_vectors", "prepare"]


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
    """Return dt and A * dt of a projection, both (..., H); the rest is as in ``RawParams``.

    On a CUDA device this is one Triton launch, which takes slices of a projection as they are and
    returns float32.
    """
    if fused(raw_dt, raw_a, dt_bias):
        from audiossm_kernels.triton_prepare import Steps

        slowest = 0.0 if max_memory is None else -1 / max_memory
        heavy = a_activation == "heavy_tail"
        dt, adt = Steps.apply(raw_dt, raw_a, dt_bias, heavy, a_floor, slowest)  # type: ignore[no-untyped-call]  # torch's own
        return dt, adt
    wide = torch.promote_types(raw_dt.dtype, torch.float32)
    raw_dt, raw_a = raw_dt.to(wide), raw_a.to(wide)
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


def fused(*given: Tensor) -> bool:
    """Return whether a Triton launch takes these.

    Not under a compiler, which fuses by itself, nor under torch.func's transforms.
    """
    return (
        given[0].is_cuda
        and all(x.dtype in INPUT_DTYPES for x in given)
        and triton_wanted()
        and not operators.exporting()
        and not torch.compiler.is_compiling()
        and not transformed()
    )


def norm_vectors(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """Return the RMS norm of vectors (..., N), in the dtype of ``x``; sums are float32 or wider.

    On a CUDA device this is one Triton launch, which takes slices of a projection as they are, and
    one more for the gradients.
    """
    if fused(x, weight):
        from audiossm_kernels.triton_prepare import Norm

        y: Tensor = Norm.apply(x, weight, eps)  # type: ignore[no-untyped-call]  # torch's own
        return y
    dtype = torch.promote_types(x.dtype, torch.float32)
    return F.rms_norm(x.to(dtype), weight.shape, weight.to(dtype), eps).to(x.dtype)


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
