"""What the walks of a scan need of each frame and head, made once before them.

Angles and decays run over the frames and differ by head, but not by rank or row of the state, and
the walks have no registers to spare. So a first kernel sums the turns of every chunk, a second
adds them up along the rows, and a third writes each frame's sine and cosine and what its decay
makes of the products. Of operands of 16 bits, sines and cosines are float16: off by 2.4e-4.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from audiossm_kernels.ssm_scan.layout import ScanLayout
from audiossm_kernels.ssm_scan.triton_parts import place_chunk
from audiossm_kernels.state import SsmInputs
from audiossm_kernels.triton_math import (
    LOG2_E,
    TURN,
    bound,
    exp2,
    fast_cos_sin,
    nearest,
    sigmoid,
    whole_turns,
)

__all__ = ["BELOW_TURN", "LEAST_DECAY", "Marks", "make_marks"]

BELOW_TURN = tl.constexpr(6.2831850)  # the float32 below a full turn
# Beyond 2^-40 a frame has forgotten all; larger sums would blur the weak decays after them.
LEAST_DECAY = tl.constexpr(-40.0)
CHUNKS_AT_ONCE = 32
MOST_CHUNKS_AT_ONCE = 256
HEADS_AT_ONCE = 8
FEW = 2048  # programs


class Marks(NamedTuple):
    """Of every slot of the chunks' ``ScanLayout``, and every head."""

    turns: Tensor  # (slots, H, C, 2 S'): pairs of cosine and sine, or all cosines and all sines
    # (slots, H, 4, C) float32: log2 of the decay since the chunk's start; log2 of a frame's weight
    # there; gamma; the weight at the chunk's end
    scales: Tensor
    total: Tensor  # (slots, H) float32: log2 of the chunk's decay
    angle: Tensor  # (slots, H, S) float32: turns before the chunk's first frame, in [0, 1)


@triton.jit
def load_rates(
    rates_ptr, begin, length, frames, S: tl.constexpr, BLOCK_S: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    """Return half turns per unit of dt, (S, C), time along the last axis."""
    t, s = tl.arange(0, CHUNK), tl.arange(0, BLOCK_S)
    rates = rates_ptr + (s.to(tl.int64) * frames)[:, None] + t[None, :]
    return tl.load(rates, mask=(s < S)[:, None] & (begin + t < length)[None, :], other=0.0)


@triton.jit
def turn_steps(rates, dt):
    """Return the turns of each frame, (S, C), from -1/2 to 1/2."""
    step = rates * (0.5 * dt)[None, :]
    return step - whole_turns(step)


@triton.jit
def sum_turns_kernel(
    rates_ptr, dt_ptr, borders_ptr, sums_ptr, dt_row, rows, frames, H: tl.constexpr,
    S: tl.constexpr, RATE_HEADS: tl.constexpr, PACKED: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK_S: tl.constexpr, DT_FRAME: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    slot, first_head = tl.program_id(0).to(tl.int64), tl.program_id(1) * HEADS
    row, start, length, chunk = place_chunk(borders_ptr, slot, rows, frames, CHUNK, PACKED)
    begin = chunk * CHUNK
    if begin >= length:  # a slot that packing left free
        return
    if not PACKED:
        dt_ptr += row * dt_row
        rates_ptr += row * RATE_HEADS * S * frames
    t, s = tl.arange(0, CHUNK), tl.arange(0, BLOCK_S)
    on = begin + t < length
    dt_ptr += (start + begin) * DT_FRAME + t * DT_FRAME
    rates_ptr += start + begin
    rates = load_rates(rates_ptr, begin, length, frames, S, BLOCK_S, CHUNK)
    for head in tl.range(bound(first_head), bound(tl.minimum(first_head + HEADS, H))):
        if RATE_HEADS > 1:
            own = rates_ptr + (slot * 0 + head) * (S * frames)
            rates = load_rates(own, begin, length, frames, S, BLOCK_S, CHUNK)
        dt = tl.load(dt_ptr + head, mask=on, other=0.0).to(tl.float32)
        sums = tl.sum(turn_steps(rates, dt), axis=1)
        tl.store(sums_ptr + (slot * H + head) * S + s, sums, mask=s < S)


@triton.jit
def join_turns_kernel(
    sums_ptr, angle_ptr, borders_ptr, starts_ptr, new_angle_ptr, frames, H: tl.constexpr,
    S: tl.constexpr, PACKED: tl.constexpr, CHUNK: tl.constexpr, BLOCK_S: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    head, row = program % H, program // H
    if PACKED:
        start = tl.load(borders_ptr + row).to(tl.int64)
        length = (tl.load(borders_ptr + row + 1) - start).to(tl.int32)
        first = start // CHUNK + row
    else:
        length = frames
        first = row * tl.cdiv(frames, CHUNK)
    s = tl.arange(0, BLOCK_S)
    old = tl.load(angle_ptr + program * S + s, mask=s < S, other=0.0)
    phi = old / TURN
    phi -= tl.floor(phi)
    chunks = tl.cdiv(length, CHUNK)
    for block in tl.range(0, bound(tl.cdiv(chunks, BLOCK))):
        chunk = block * BLOCK + tl.arange(0, BLOCK)
        places = (((first + chunk) * H + head) * S)[None, :] + s[:, None]
        mask = (s < S)[:, None] & (chunk < chunks)[None, :]
        x = tl.load(sums_ptr + places, mask=mask, other=0.0)
        at = phi[:, None] + (tl.cumsum(x, axis=1) - x)
        at -= tl.floor(at)
        tl.store(starts_ptr + places, tl.where(at >= 1, 0.0, at), mask=mask)
        phi += tl.sum(x, axis=1)
        phi -= tl.floor(phi)
    angle = tl.minimum(tl.where(phi >= 1, 0.0, phi) * TURN, BELOW_TURN)
    if PACKED:  # an empty sequence leaves its state as it is
        angle = tl.where(length > 0, angle, old)
    tl.store(new_angle_ptr + program * S + s, angle, mask=s < S)


@triton.jit
def marks_kernel(
    rates_ptr, dt_ptr, a_ptr, trap_ptr, borders_ptr, starts_ptr, turns_ptr, scales_ptr, total_ptr,
    dt_row, a_row, trap_row, rows, frames, H: tl.constexpr, S: tl.constexpr,
    RATE_HEADS: tl.constexpr, ADJACENT: tl.constexpr, PACKED: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK_S: tl.constexpr, DT_FRAME: tl.constexpr, A_FRAME: tl.constexpr,
    TRAP_FRAME: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    head, slot = program % H, program // H
    row, start, length, chunk = place_chunk(borders_ptr, slot, rows, frames, CHUNK, PACKED)
    begin = chunk * CHUNK
    if begin >= length:
        return
    if not PACKED:
        dt_ptr += row * dt_row
        a_ptr += row * a_row
        trap_ptr += row * trap_row
        rates_ptr += row * RATE_HEADS * S * frames
    dt_ptr += (start + begin) * DT_FRAME + head
    a_ptr += (start + begin) * A_FRAME + head
    trap_ptr += (start + begin) * TRAP_FRAME + head
    rates_ptr += start + begin + (head % RATE_HEADS) * S * frames

    t, s = tl.arange(0, CHUNK), tl.arange(0, BLOCK_S)
    on, follows = begin + t < length, begin + t + 1 < length
    dt = tl.load(dt_ptr + t * DT_FRAME, mask=on, other=0.0).to(tl.float32)
    trap = tl.load(trap_ptr + t * TRAP_FRAME, mask=on, other=0.0).to(tl.float32)
    next_dt = tl.load(dt_ptr + (t + 1) * DT_FRAME, mask=follows, other=0.0).to(tl.float32)
    next_trap = tl.load(trap_ptr + (t + 1) * TRAP_FRAME, mask=follows, other=0.0).to(tl.float32)
    a = tl.load(a_ptr + t * A_FRAME, mask=on, other=0.0).to(tl.float32)
    gamma = sigmoid(trap) * dt
    weight = gamma + sigmoid(-next_trap) * next_dt
    a = tl.minimum(tl.maximum(a * LOG2_E, LEAST_DECAY), 0.0)
    total = tl.sum(a, axis=0)
    decay = tl.cumsum(a, axis=0)
    scales = scales_ptr + program * (4 * CHUNK) + t
    tl.store(scales, decay)
    tl.store(scales + CHUNK, tl.log2(tl.maximum(weight, 1e-37)) - decay)
    tl.store(scales + 2 * CHUNK, gamma)
    tl.store(scales + 3 * CHUNK, exp2(tl.minimum(total - decay, 0.0)) * weight)
    tl.store(total_ptr + program, total)

    phi = tl.load(starts_ptr + program * S + s, mask=s < S, other=0.0)
    rates = load_rates(rates_ptr, begin, length, frames, S, BLOCK_S, CHUNK)
    cos, sin = fast_cos_sin(phi[:, None] + tl.cumsum(turn_steps(rates, dt), axis=1))
    dtype = turns_ptr.dtype.element_ty
    if dtype == tl.bfloat16:
        cos, sin = nearest(cos), nearest(sin)
    cos, sin = tl.trans(cos.to(dtype)), tl.trans(sin.to(dtype))
    turns = turns_ptr + program * (CHUNK * 2 * BLOCK_S) + (t * (2 * BLOCK_S))[:, None]
    if ADJACENT:
        pairs = tl.reshape(tl.join(cos, sin), (CHUNK, 2 * BLOCK_S))
        tl.store(turns + tl.arange(0, 2 * BLOCK_S)[None, :], pairs)
    else:
        tl.store(turns + s[None, :], cos)
        tl.store(turns + BLOCK_S + s[None, :], sin)


def make_marks(
    x: SsmInputs,
    rates: Tensor,
    angle: Tensor,
    new_angle: Tensor,
    layout: ScanLayout,
    borders: Tensor,
    block_s: int,
    *,
    adjacent: bool,
    dtype: torch.dtype,
) -> Marks:
    """Write the angles after the last frames to ``new_angle``, and return the marks.

    Args:
        x: frames.
        rates: (B, H or 1, S, L) float32: half turns per unit of dt.
        angle: (rows, H, S) float32: before the first frames.
        new_angle: the same, filled here.
        layout: of the chunks.
        borders: (n + 1,) int64, of sequences packed in one row; else anything.
        block_s: S', S rounded up.
        adjacent: whether adjacent dimensions turn together.
        dtype: of sines and cosines.
    """
    heads, num_angles, device = x.v.shape[2], angle.shape[-1], x.v.device
    slots, chunk = layout.slots, layout.chunk

    def empty(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(slots, heads, *size, dtype=dtype, device=device)

    turns = empty(chunk, 2 * block_s, dtype=dtype)
    marks = Marks(turns, empty(4, chunk), empty(), empty(num_angles))
    sums = empty(num_angles)
    sizes = {"H": heads, "S": num_angles, "PACKED": layout.packed, "CHUNK": chunk}
    sizes |= {"BLOCK_S": block_s}
    steps = sizes | {"RATE_HEADS": rates.shape[1], "DT_FRAME": x.dt.stride(1)}
    warps = 2 if chunk * block_s >= 2048 else 1
    together = min(HEADS_AT_ONCE, heads)  # they share what is loaded
    if slots * heads < FEW * together:
        together = 1
    block = CHUNKS_AT_ONCE
    if not layout.packed:  # there bits must not depend on how long all rows are
        chunks = triton.next_power_of_2(layout.chunks_per_row)
        block = max(block, min(chunks, MOST_CHUNKS_AT_ONCE))
    sum_turns_kernel[(slots, triton.cdiv(heads, together))](
        rates, x.dt, borders, sums, x.dt.stride(0), layout.rows, layout.frames, **steps,
        HEADS=together, num_warps=warps,
    )  # fmt: skip
    join_turns_kernel[(layout.rows * heads,)](
        sums, angle, borders, marks.angle, new_angle, layout.frames, **sizes,
        BLOCK=block, num_warps=2 if block < 128 else 8,
    )  # fmt: skip
    marks_kernel[(slots * heads,)](
        rates, x.dt, x.adt, x.trap, borders, marks.angle, *marks[:3], x.dt.stride(0),
        x.adt.stride(0), x.trap.stride(0), layout.rows, layout.frames, **steps, ADJACENT=adjacent,
        A_FRAME=x.adt.stride(1), TRAP_FRAME=x.trap.stride(1),
        num_warps=warps,
    )  # fmt: skip
    return marks
