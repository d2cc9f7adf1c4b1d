"""The launches behind ``fused``."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from audiossm_kernels.triton_math import sigmoid

__all__ = ["launch_add_norm", "launch_gate"]

GATE_BLOCK = 1024


@triton.jit
def add_norm_kernel(
    residual_ptr,
    added_ptr,
    weight_ptr,
    y_ptr,
    eps,
    D: tl.constexpr,
    ADD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    x = tl.load(residual_ptr + row * D + d, mask=d < D, other=0.0)
    if ADD:
        x += tl.load(added_ptr + row * D + d, mask=d < D, other=0.0).to(tl.float32)
        tl.store(residual_ptr + row * D + d, x, mask=d < D)
    weight = tl.load(weight_ptr + d, mask=d < D, other=0.0).to(tl.float32)
    y = x * tl.rsqrt(tl.sum(x * x, axis=0) / D + eps) * weight
    tl.store(y_ptr + row * D + d, y.to(y_ptr.dtype.element_ty), mask=d < D)


@triton.jit
def gate_kernel(x_ptr, y_ptr, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x_ptr += row * 2 * width
    value = tl.load(x_ptr + f, mask=f < width, other=0.0).to(tl.float32)
    gate = tl.load(x_ptr + width + f, mask=f < width, other=0.0).to(tl.float32)
    y = value * gate * sigmoid(gate)
    tl.store(y_ptr + row * width + f, y.to(y_ptr.dtype.element_ty), mask=f < width)


def launch_add_norm(residual: Tensor, added: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    """Do what ``add_norm_`` says."""
    rows, channels = residual.shape
    y = torch.empty(rows, channels, dtype=weight.dtype, device=residual.device)
    with torch.cuda.device_of(y):
        add_norm_kernel[(rows,)](
            residual,
            residual if added is None else added.contiguous(),
            weight,
            y,
            eps,
            D=channels,
            ADD=added is not None,
            BLOCK=triton.next_power_of_2(channels),
            num_warps=4,
        )
    return y


def launch_gate(x: Tensor) -> Tensor:
    """Do what ``gate_values`` says."""
    rows, width = x.shape[0], x.shape[1] // 2
    y = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    with torch.cuda.device_of(y):
        gate_kernel[(rows, triton.cdiv(width, GATE_BLOCK))](
            x, y, width, BLOCK=GATE_BLOCK, num_warps=4
        )
    return y
