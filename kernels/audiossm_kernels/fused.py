"""What stands between the products of a layer's step: in place and, on a card, one launch each."""

import torch
from torch import Tensor
from torch.nn import functional as F

from audiossm_kernels.errors import KernelError

__all__ = ["add_norm_", "gate_values"]

MAX_CHANNELS = 2**14


def add_norm_(residual: Tensor, added: Tensor | None, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """Add to a residual stream in place and return its RMS norm.

    Sums are float32. On a CUDA device this is one Triton launch. Without gradients.

    Args:
        residual: (B, D) float32, contiguous, overwritten by ``residual + added``.
        added: (B, D) of any float dtype, or None for nothing.
        weight: (D,) of the norm.
        eps: added to the mean square.
    Returns:
        (B, D), the dtype of ``weight``.
    Raises:
        KernelError: shapes that don't fit, or a residual that isn't contiguous float32.
    """
    shape = residual.shape
    if len(shape) != 2 or residual.dtype != torch.float32 or not residual.is_contiguous():
        raise KernelError(
            f"add_norm_: residual must be contiguous (B, D) float32, not {residual.dtype} of shape "
            f"{tuple(shape)} and strides {residual.stride()}"
        )
    if weight.shape != shape[1:] or (added is not None and added.shape != shape):
        other = None if added is None else tuple(added.shape)
        raise KernelError(
            f"add_norm_: residual {tuple(shape)} takes a weight {tuple(shape[1:])} and as much to "
            f"add, not {tuple(weight.shape)} and {other}"
        )
    with torch.no_grad():
        if residual.device.type == "cuda" and shape[1] <= MAX_CHANNELS:
            from audiossm_kernels.triton_fused import launch_add_norm

            return launch_add_norm(residual, added, weight, eps)
        if added is not None:
            residual += added
        return F.rms_norm(residual, shape[1:], weight.float(), eps).to(weight.dtype)


def gate_values(x: Tensor) -> Tensor:
    """Return ``value * silu(gate)`` of (B, 2 F): values before gates, as ``SwiGLU`` has them.

    On a CUDA device this is one Triton launch. Without gradients.

    Returns:
        (B, F), the dtype of ``x``.
    Raises:
        KernelError: ``x`` isn't contiguous (B, 2 F).
    """
    if x.dim() != 2 or x.shape[1] % 2 or not x.is_contiguous():
        raise KernelError(f"gate_values: x must be contiguous (B, 2 F), not {tuple(x.shape)}")
    with torch.no_grad():
        if x.device.type == "cuda":
            from audiossm_kernels.triton_fused import launch_gate

            return launch_gate(x)
        value, gate = x.chunk(2, dim=1)
        return (value.float() * F.silu(gate.float())).to(x.dtype)
