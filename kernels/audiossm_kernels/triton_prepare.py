"""Between a projection and the scan, a launch each and one back: norms of vectors, and steps."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from audiossm_kernels.triton_math import sigmoid, softplus

__all__ = ["Norm", "Steps"]

NORM_BLOCK = 4096  # elements of a program, where a vector has fewer
STEP_BLOCK = 2048


@triton.jit
def norm_kernel(
    x_ptr, weight_ptr, y_ptr, x_row, count, eps, VECTORS: tl.constexpr, N: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Norm ``count`` vectors, of which VECTORS stand side by side in a row."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    n = tl.arange(0, BLOCK_N)
    inside = (i < count)[:, None] & (n < N)[None, :]
    places = (i // VECTORS * x_row + i % VECTORS * N)[:, None] + n[None, :]
    x = tl.load(x_ptr + places, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + n, mask=n < N, other=0.0).to(tl.float32)
    y = x * tl.rsqrt(tl.sum(x * x, axis=1) / N + eps)[:, None] * weight[None, :]
    tl.store(y_ptr + i[:, None] * N + n[None, :], y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def norm_back_kernel(
    x_ptr, weight_ptr, dy_ptr, dx_ptr, dweight_ptr, x_row, count, eps, VECTORS: tl.constexpr,
    N: tl.constexpr, BLOCK: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Store the gradients of vectors, and a program's part of the weight's."""
    program = tl.program_id(0).to(tl.int64)
    i = program * BLOCK + tl.arange(0, BLOCK)
    n = tl.arange(0, BLOCK_N)
    inside = (i < count)[:, None] & (n < N)[None, :]
    places = (i // VECTORS * x_row + i % VECTORS * N)[:, None] + n[None, :]
    x = tl.load(x_ptr + places, mask=inside, other=0.0).to(tl.float32)
    here = i[:, None] * N + n[None, :]
    dy = tl.load(dy_ptr + here, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + n, mask=n < N, other=0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(x * x, axis=1) / N + eps)[:, None]
    x *= inverse
    tl.store(dweight_ptr + program * N + n, tl.sum(dy * x, axis=0), mask=n < N)
    dy *= weight[None, :]
    dx = (dy - x * (tl.sum(dy * x, axis=1) / N)[:, None]) * inverse
    tl.store(dx_ptr + here, dx.to(dx_ptr.dtype.element_ty), mask=inside)


@triton.jit
def rate_of(a, HEAVY_TAIL: tl.constexpr):
    """Return the decay rate of ``a`` before its floor, and its slope there."""
    if HEAVY_TAIL:
        rate = tl.where(a >= 0, 1 + a, 1 / (1 - tl.minimum(a, 0.0)))
        return rate, tl.where(a >= 0, 1.0, rate * rate)
    else:
        return softplus(a), sigmoid(a)


@triton.jit
def steps_kernel(
    dt_ptr, a_ptr, bias_ptr, new_dt_ptr, adt_ptr, dt_row, a_row, rows, floor, slowest,
    H: tl.constexpr, HEAVY_TAIL: tl.constexpr, BLOCK: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """Make dt and A dt of a projection."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    h = tl.arange(0, BLOCK_H)
    inside = (i < rows)[:, None] & (h < H)[None, :]
    raw = tl.load(dt_ptr + (i * dt_row)[:, None] + h[None, :], mask=inside, other=0.0)
    a = tl.load(a_ptr + (i * a_row)[:, None] + h[None, :], mask=inside, other=0.0)
    bias = tl.load(bias_ptr + h, mask=h < H, other=0.0).to(tl.float32)
    dt = softplus(raw.to(tl.float32) + bias[None, :])
    rate = rate_of(a.to(tl.float32), HEAVY_TAIL)[0]
    here = i[:, None] * H + h[None, :]
    tl.store(new_dt_ptr + here, dt, mask=inside)
    tl.store(adt_ptr + here, tl.minimum(-tl.maximum(rate, floor) * dt, slowest), mask=inside)


@triton.jit
def steps_back_kernel(
    dt_ptr, a_ptr, bias_ptr, ddt_ptr, dadt_ptr, draw_ptr, da_ptr, dbias_ptr, dt_row, a_row, rows,
    floor, slowest, H: tl.constexpr, HEAVY_TAIL: tl.constexpr, BLOCK: tl.constexpr,
    BLOCK_H: tl.constexpr,
):  # fmt: skip
    """Store the gradients of what ``steps_kernel`` takes, and a program's part of the bias's."""
    program = tl.program_id(0).to(tl.int64)
    i = program * BLOCK + tl.arange(0, BLOCK)
    h = tl.arange(0, BLOCK_H)
    inside = (i < rows)[:, None] & (h < H)[None, :]
    raw = tl.load(dt_ptr + (i * dt_row)[:, None] + h[None, :], mask=inside, other=0.0)
    a = tl.load(a_ptr + (i * a_row)[:, None] + h[None, :], mask=inside, other=0.0)
    bias = tl.load(bias_ptr + h, mask=h < H, other=0.0).to(tl.float32)
    raw = raw.to(tl.float32) + bias[None, :]
    dt = softplus(raw)
    rate, slope = rate_of(a.to(tl.float32), HEAVY_TAIL)
    here = i[:, None] * H + h[None, :]
    ddt = tl.load(ddt_ptr + here, mask=inside, other=0.0)
    dadt = tl.load(dadt_ptr + here, mask=inside, other=0.0)
    held = tl.maximum(rate, floor)
    dadt = tl.where(-held * dt <= slowest, dadt, 0.0)
    da = tl.where(rate >= floor, -dadt * dt * slope, 0.0)
    draw = (ddt - dadt * held) * sigmoid(raw)
    draw = tl.where(inside, draw, 0.0)
    tl.store(dbias_ptr + program * H + h, tl.sum(draw, axis=0), mask=h < H)
    tl.store(draw_ptr + here, draw.to(draw_ptr.dtype.element_ty), mask=inside)
    tl.store(da_ptr + here, da.to(da_ptr.dtype.element_ty), mask=inside)


def as_rows(x: Tensor, axes: int) -> Tensor:
    """Return ``x`` with all but the last ``axes`` axes in one and those flat: a slice stays one."""
    rows = x.flatten(-axes).flatten(0, -2) if x.dim() > axes else x.flatten().unsqueeze(0)
    return rows if rows.stride(-1) == 1 or rows.shape[-1] == 1 else rows.contiguous()


class Norm(torch.autograd.Function):
    """The RMS norm of vectors (..., N); sums are float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Return like ``x``, contiguous."""
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        if y.numel():
            run_norm(norm_kernel, x, weight, [y], eps)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the vectors and of the weight."""
        x, weight = ctx.saved_tensors
        dx = torch.empty_like(x, memory_format=torch.contiguous_format)
        if not dx.numel():
            return dx, torch.zeros_like(weight), None
        dweight = run_norm(norm_back_kernel, x, weight, [dy.contiguous(), dx], ctx.eps)
        return dx, dweight.sum(0).to(weight.dtype), None


def run_norm(kernel: Any, x: Tensor, weight: Tensor, out: list[Tensor], eps: float) -> Tensor:
    """Launch a kernel of norms; with two tensors, the second is followed by the weight's parts."""
    width = x.shape[-1]
    rows = as_rows(x, 3 if x.dim() > 3 else 1)
    block_n = triton.next_power_of_2(width)
    block, count = max(1, NORM_BLOCK // block_n), x.numel() // width
    programs = triton.cdiv(count, block)
    parts = x.new_empty(programs, width, dtype=torch.float32)
    with torch.cuda.device_of(x):
        kernel[(programs,)](
            rows, weight, *out, *([parts] if len(out) == 2 else []), rows.stride(0), count, eps,
            VECTORS=rows.shape[-1] // width, N=width, BLOCK=block, BLOCK_N=block_n, num_warps=4,
        )  # fmt: skip
    return parts


class Steps(torch.autograd.Function):
    """dt and A dt, float32, of the slices of a projection."""

    @staticmethod
    def forward(
        ctx: Any, raw_dt: Tensor, raw_a: Tensor, bias: Tensor, heavy: bool, floor: float,
        slowest: float,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return both (..., H)."""
        dt, adt = (torch.empty(raw_dt.shape, device=raw_dt.device) for _ in range(2))
        ctx.save_for_backward(raw_dt, raw_a, bias)
        ctx.rest = heavy, floor, slowest
        if dt.numel():
            run_steps(steps_kernel, raw_dt, raw_a, bias, [dt, adt], *ctx.rest)
        return dt, adt

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, ddt: Tensor, dadt: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of both slices and of the bias."""
        raw_dt, raw_a, bias = ctx.saved_tensors
        draw, da = (
            torch.empty_like(x, memory_format=torch.contiguous_format) for x in (raw_dt, raw_a)
        )
        if not draw.numel():
            return draw, da, torch.zeros_like(bias), None, None, None
        given = [ddt.contiguous(), dadt.contiguous(), draw, da]
        dbias = run_steps(steps_back_kernel, raw_dt, raw_a, bias, given, *ctx.rest)
        return draw, da, dbias.sum(0).to(bias.dtype), None, None, None


def run_steps(
    kernel: Any, raw_dt: Tensor, raw_a: Tensor, bias: Tensor, rest: list[Tensor], heavy: bool,
    floor: float, slowest: float,
) -> Tensor:  # fmt: skip
    """Launch a kernel of steps; with four tensors, the bias's parts follow."""
    heads = raw_dt.shape[-1]
    dt, a = as_rows(raw_dt, 1), as_rows(raw_a, 1)
    block_h = triton.next_power_of_2(heads)
    block = max(1, STEP_BLOCK // block_h)
    programs = triton.cdiv(len(dt), block)
    parts = bias.new_empty(programs, heads, dtype=torch.float32)
    with torch.cuda.device_of(dt):
        kernel[(programs,)](
            dt, a, bias, *rest, *([parts] if len(rest) == 4 else []), dt.stride(0), a.stride(0),
            len(dt), floor, slowest, H=heads, HEAVY_TAIL=heavy, BLOCK=block, BLOCK_H=block_h,
            num_warps=4,
        )  # fmt: skip
    return parts
