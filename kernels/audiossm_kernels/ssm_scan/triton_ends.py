"""What the scan's backward makes of steps and angles: first for its kernels, last from their sums.

``steps_kernel`` writes each frame's sine and cosine, decay and weights for the kernels between;
``ends_kernel`` takes what they found and finishes the gradients of dt, A dt, trap and angles.
``heads_kernel`` sums the gradients of the shared q and k over their heads.
"""

import math

import triton
import triton.language as tl

from audiossm_kernels.ssm_scan.triton_marks import LEAST_DECAY
from audiossm_kernels.ssm_scan.triton_pieces import find_chunk
from audiossm_kernels.triton_math import LOG2_E, TURN, exp2, fast_cos_sin, nearest, sigmoid, tanh

__all__ = ["ends_kernel", "heads_kernel", "steps_kernel"]

PI = tl.constexpr(math.pi)


@triton.jit
def load_rates(
    angles_ptr,
    angles_frame,
    on,
    S: tl.constexpr,
    C: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Return the half turns (C, S) per unit of dt."""
    c, s = tl.arange(0, C), tl.arange(0, BLOCK_S)
    at = (c.to(tl.int64) * angles_frame)[:, None] + s[None, :]
    return tanh(
        tl.load(angles_ptr + at, mask=on[:, None] & (s < S)[None, :], other=0.0).to(tl.float32)
    )


@triton.jit
def steps_kernel(
    dt_ptr,
    a_ptr,
    trap_ptr,
    angles_ptr,
    phi_ptr,
    borders_ptr,
    turns_ptr,
    steps_ptr,
    total_ptr,
    dt_frame: tl.constexpr,
    a_frame: tl.constexpr,
    trap_frame: tl.constexpr,
    angles_frame: tl.constexpr,
    rows,
    frames,
    heads: tl.constexpr,
    S: tl.constexpr,
    C: tl.constexpr,
    RATE_HEADS: tl.constexpr,
    ADJACENT: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Write a chunk's turns, as ``triton_marks`` does, and its log2 decays, gamma and weights."""
    place = tl.program_id(0).to(tl.int64)
    head, slot = place % heads, place // heads
    _, start, _, left = find_chunk(borders_ptr, slot, rows, frames, C, PACKED)
    if left <= 0:  # a slot that packing left free
        return
    c, s = tl.arange(0, C), tl.arange(0, BLOCK_S)
    on, follows = c < left, c + 1 < left
    dt_here = dt_ptr + start * dt_frame + head + c * dt_frame
    trap_here = trap_ptr + start * trap_frame + head + c * trap_frame
    dt = tl.load(dt_here, mask=on, other=0.0).to(tl.float32)
    trap = tl.load(trap_here, mask=on, other=0.0).to(tl.float32)
    next_dt = tl.load(dt_here + dt_frame, mask=follows, other=0.0).to(tl.float32)
    next_trap = tl.load(trap_here + trap_frame, mask=follows, other=0.0).to(tl.float32)
    a_here = a_ptr + start * a_frame + head + c * a_frame
    a = tl.load(a_here, mask=on, other=0.0).to(tl.float32)
    a = tl.minimum(tl.maximum(a * LOG2_E, LEAST_DECAY), 0.0)
    gamma = sigmoid(trap) * dt
    weight = gamma + sigmoid(-next_trap) * next_dt
    total = tl.sum(a, axis=0)
    decay = tl.cumsum(a, axis=0)
    steps = steps_ptr + place * (4 * C) + c
    tl.store(steps, decay)
    tl.store(steps + C, gamma)
    tl.store(steps + 2 * C, weight)
    tl.store(steps + 3 * C, exp2(tl.minimum(total - decay, 0.0)))
    tl.store(total_ptr + place, total)

    angles_ptr += start * angles_frame + (head % RATE_HEADS) * S
    step = load_rates(angles_ptr, angles_frame, on, S, C, BLOCK_S) * (0.5 * dt)[:, None]
    step -= tl.floor(step + 0.5)
    phi = tl.load(phi_ptr + place * S + s, mask=s < S, other=0.0)
    cos, sin = fast_cos_sin(phi[None, :] + tl.cumsum(step, axis=0))
    if turns_ptr.dtype.element_ty == tl.bfloat16:
        cos, sin = nearest(cos), nearest(sin)
    turns = turns_ptr + place * (C * 2 * BLOCK_S) + (c * (2 * BLOCK_S))[:, None]
    if ADJACENT:
        pairs = tl.reshape(tl.join(cos, sin), (C, 2 * BLOCK_S))
        tl.store(turns + tl.arange(0, 2 * BLOCK_S)[None, :], pairs)
    else:
        tl.store(turns + s[None, :], cos)
        tl.store(turns + BLOCK_S + s[None, :], sin)


@triton.jit
def heads_kernel(
    x_ptr,
    sum_ptr,
    bias_ptr,
    frames,
    heads: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    R: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum gradients (frames, H, R, N) over the heads of a group, and over BLOCK_T frames."""
    WIDTH: tl.constexpr = R * N
    SHARE: tl.constexpr = heads // G  # heads of a group
    block = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1)
    t = tl.arange(0, BLOCK_T)
    j = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    start = block * BLOCK_T
    inside = (start + t < frames)[:, None] & (j < WIDTH)[None, :]
    total = tl.zeros([BLOCK_T, BLOCK], tl.float32)
    x_ptr += start * (heads * WIDTH)
    at = (t * (heads * WIDTH))[:, None] + j[None, :]
    for index in tl.range(0, SHARE, loop_unroll_factor=2 if SHARE % 2 == 0 else 1):
        head = group * SHARE + index
        x = tl.load(x_ptr + head * WIDTH + at, mask=inside, other=0.0).to(tl.float32)
        total += x
        bias = bias_ptr + (block * heads + head) * WIDTH + j
        tl.store(bias, tl.sum(x, axis=0), mask=j < WIDTH)
    place = (t * (G * WIDTH))[:, None] + (j // N * (G * N) + group * N + j % N)[None, :]
    sum_ptr += start * (G * WIDTH)
    tl.store(sum_ptr + place, total.to(sum_ptr.dtype.element_ty), mask=inside)


@triton.jit
def ends_kernel(
    dt_ptr,
    a_ptr,
    trap_ptr,
    angles_ptr,
    borders_ptr,
    # what the chunks found: of every frame, of every chunk's frame, and of every chunk
    dgamma_ptr,
    dweight_ptr,
    decays_ptr,
    turned_ptr,
    late_ptr,
    dtotal_ptr,
    # of the share that the initial key and value have in a row's first frame
    first_ptr,
    # gradients
    ddt_ptr,
    da_ptr,
    dtrap_ptr,
    dangles_ptr,
    dphi_ptr,
    dt_frame: tl.constexpr,
    a_frame: tl.constexpr,
    trap_frame: tl.constexpr,
    angles_frame: tl.constexpr,
    rows,
    frames,
    all_frames,
    heads: tl.constexpr,
    S: tl.constexpr,
    C: tl.constexpr,
    RATE_HEADS: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_H: tl.constexpr,
    REST: tl.constexpr,
):
    """Add up a chunk's gradients along its frames, for BLOCK_H heads.

    Angles that the heads share get a sum per block of heads.
    """
    slot = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    row, start, chunk, left = find_chunk(borders_ptr, slot, rows, frames, C, PACKED)
    if left <= 0:
        return
    c, s = tl.arange(0, C), tl.arange(0, BLOCK_S)
    on = c < left
    turns = on[:, None] & (s < S)[None, :]
    opens = (chunk == 0) & (c == 0)
    before = (c > 0) | (chunk > 0)  # frames that follow another one of their row
    angles_ptr += start * angles_frame
    rate = load_rates(angles_ptr, angles_frame, on, S, C, BLOCK_S)
    drates = tl.zeros([C, BLOCK_S], tl.float32)
    for index in tl.range(0, BLOCK_H):
        head = block * BLOCK_H + index
        place = slot * heads + head
        here = (start + c) * heads + head
        dt = tl.load(dt_ptr + (start + c) * dt_frame + head, mask=on, other=0.0).to(tl.float32)
        a = tl.load(a_ptr + (start + c) * a_frame + head, mask=on, other=0.0).to(tl.float32)
        trap_here = trap_ptr + (start + c) * trap_frame + head
        trap = tl.load(trap_here, mask=on, other=0.0).to(tl.float32)
        if RATE_HEADS > 1:
            rate = load_rates(angles_ptr + head * S, angles_frame, on, S, C, BLOCK_S)

        at = place * (C * S) + (c * S)[:, None] + s[None, :]
        turned = tl.load(turned_ptr + at, mask=turns, other=0.0)
        late = tl.load(late_ptr + place * S + s, mask=s < S, other=0.0)
        turned = tl.cumsum(turned, axis=0, reverse=True) + late[None, :]
        by_rate = turned * dt[:, None]
        if RATE_HEADS > 1:
            at = ((start + c) * (heads * S) + head * S)[:, None] + s[None, :]
            by_rate *= PI * (1 - rate * rate)
            tl.store(dangles_ptr + at, by_rate.to(dangles_ptr.dtype.element_ty), mask=turns)
        else:
            drates += by_rate
        first = (row * heads + head) * S + s[None, :] + (c * 0)[:, None]
        tl.store(dphi_ptr + first, turned, mask=turns & opens[:, None])

        decays = tl.load(decays_ptr + place * (2 * C) + c)
        if REST:
            decays += tl.load(decays_ptr + place * (2 * C) + C + c)
        decays = tl.cumsum(decays, axis=0, reverse=True) + tl.load(dtotal_ptr + place)
        da = tl.where(a > 0, 0.0, decays).to(da_ptr.dtype.element_ty)
        tl.store(da_ptr + here, da, mask=on)

        dgamma = tl.load(dgamma_ptr + here, mask=on, other=0.0)
        dshare = tl.load(dweight_ptr + here - heads, mask=on & before, other=0.0)
        dshare += tl.load(first_ptr + row * heads + head + c * 0, mask=opens, other=0.0)
        lam = sigmoid(trap)
        by_dt = tl.sum(turned * rate, axis=1) * (0.5 * TURN)
        ddt = lam * dgamma + (1 - lam) * dshare + by_dt
        tl.store(ddt_ptr + here, ddt.to(ddt_ptr.dtype.element_ty), mask=on)
        dtrap = lam * (1 - lam) * dt * (dgamma - dshare)
        tl.store(dtrap_ptr + here, dtrap.to(dtrap_ptr.dtype.element_ty), mask=on)
    if RATE_HEADS == 1:
        lead = block.to(tl.int64) * all_frames
        at = ((lead + start + c) * S)[:, None] + s[None, :]
        tl.store(dangles_ptr + at, drates * PI * (1 - rate * rate), mask=turns)
