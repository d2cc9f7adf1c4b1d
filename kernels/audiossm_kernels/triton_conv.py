"""The launch behind ``conv_step_``: every element of a slot's past is read once and written once.

Letters: C channels, K taps, T new frames. A tile is (channels, taps before the newest).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from audiossm_kernels.triton_math import sigmoid

__all__ = ["launch_conv"]

# channels of a program where no norm needs them all
BLOCK_C = 128


@triton.jit
def load_frame(x_ptr, c, inside, C: tl.constexpr, GATED: tl.constexpr):
    """Load one new frame's channels."""
    x = tl.load(x_ptr + c, mask=inside, other=0.0).to(tl.float32)
    if GATED:
        x *= sigmoid(tl.load(x_ptr + C + c, mask=inside, other=0.0).to(tl.float32))
    return x


@triton.jit
def conv_kernel(
    x_ptr,
    tail_ptr,
    weight_ptr,
    bias_ptr,
    slots_ptr,
    norm_ptr,
    options_ptr,
    y_ptr,
    eps,
    C: tl.constexpr,
    K: tl.constexpr,
    T: tl.constexpr,
    GATED: tl.constexpr,
    BIAS: tl.constexpr,
    NORM: tl.constexpr,
    OPTIONS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = c < C
    y_ptr += row * T * C
    slot = tl.load(slots_ptr + row)
    if slot < 0:
        for t in tl.static_range(T):
            tl.store(y_ptr + t * C + c, tl.zeros([BLOCK], y_ptr.dtype.element_ty), mask=inside)
        return
    x_ptr += row * T * C * (2 if GATED else 1)
    tail_ptr += slot * C * (K - 1)
    if OPTIONS:
        weight_ptr += tl.load(options_ptr + slot) * C * K
    j = tl.arange(0, BLOCK_K)
    place = c[:, None] * (K - 1) + j[None, :]
    kept = inside[:, None] & (j < K - 1)[None, :]
    tail = tl.load(tail_ptr + place, mask=kept, other=0.0).to(tl.float32)
    moved = kept & (j + T < K - 1)[None, :]
    new_tail = tl.load(tail_ptr + place + T, mask=moved, other=0.0).to(tl.float32)
    for t in tl.static_range(T):
        taps = tl.load(
            weight_ptr + c[:, None] * K + (j - t)[None, :],
            mask=kept & (j >= t)[None, :],
            other=0.0,
        ).to(tl.float32)
        y = tl.sum(tail * taps, axis=1)
        for u in tl.static_range(t + 1):
            if t - u < K:
                x = load_frame(x_ptr + u * C * (2 if GATED else 1), c, inside, C, GATED)
                tap = tl.load(weight_ptr + c * K + (K - 1 - t + u), mask=inside, other=0.0)
                y += x * tap.to(tl.float32)
        if BIAS:
            y += tl.load(bias_ptr + c, mask=inside, other=0.0).to(tl.float32)
        if NORM:  # then a program has all channels
            y = tl.where(inside, y, 0.0)
            scale = tl.rsqrt(tl.sum(y * y, axis=0) / C + eps)
            y *= scale * tl.load(norm_ptr + c, mask=inside, other=0.0).to(tl.float32)
            y *= sigmoid(y)
        tl.store(y_ptr + t * C + c, y.to(y_ptr.dtype.element_ty), mask=inside)
        # frame t is the newest but T - 1 - t
        x = load_frame(x_ptr + t * C * (2 if GATED else 1), c, inside, C, GATED)
        new_tail = tl.where((j == K - 1 - T + t)[None, :], x[:, None], new_tail)
    # several threads read an element, so all must have read before one writes
    tl.debug_barrier()
    tl.store(tail_ptr + place, new_tail.to(tail_ptr.dtype.element_ty), mask=kept)


def launch_conv(
    x: Tensor,
    tail: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    slots: Tensor,
    gated: bool,
    norm: Tensor | None,
    options: Tensor | None,
    eps: float,
) -> Tensor:
    """Do what ``conv_step_`` says."""
    batch, frames = x.shape[:2]
    channels, kept = tail.shape[1:]
    y = torch.empty(batch, frames, channels, dtype=x.dtype, device=x.device)
    if batch == 0:
        return y
    whole = triton.next_power_of_2(channels)
    block = whole if norm is not None else min(BLOCK_C, whole)
    block_k = triton.next_power_of_2(max(kept, 1))
    with torch.cuda.device_of(y):
        conv_kernel[(batch, triton.cdiv(channels, block))](
            x,
            tail,
            weight,
            weight if bias is None else bias,
            slots,
            weight if norm is None else norm,
            slots if options is None else options,
            y,
            eps,
            C=channels,
            K=kept + 1,
            T=frames,
            GATED=gated,
            BIAS=bias is not None,
            NORM=norm is not None,
            OPTIONS=options is not None,
            BLOCK=block,
            BLOCK_K=block_k,
            num_warps=max(1, min(8, block * block_k // 512)),
        )
    return y
