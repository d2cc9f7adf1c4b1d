"""The scan's gradients in Triton: one walk over the chunks, then every chunk by itself.

``carry_kernel`` walks each head's chunks from the last to the first and leaves at every chunk the
gradient of the state it hands on. With that and the state kept by the forward, chunks are
independent: ``chunk_kernel`` takes a chunk and a block of heads of one group, builds each head's
queries, keys and scores again, and sums the gradients of the shared q and k over its heads in
registers. Gradients per chunk of the small parameters, and per block of q, k and angles, are summed
by torch. Nothing is added atomically: equal calls have equal bits.

The other way round, a program per head that walks all chunks and keeps the state's gradient in
registers, would not store it (at batch 8, 2048 frames, 64 heads of 64 x 128: 0.5 GB written and
read once in SISO, 2.1 GB in MIMO of rank 4), but would store dq and dk of every head (1.1 and 4.3
GB), and at batch 1 it would leave half of a large card idle.

Two sums over all later frames are not walked. Turning, or weakening, everything after a border is
the same as turning or weakening the state S handed over it, so those sums are products of S and its
gradient dS: <dS, S> for the decay and -<dS, J S> for the angle, J a quarter turn of every pair. The
rounding of S and dS then doesn't add up over chunks, and within a chunk the terms of two frames
cancel exactly, since both frames get them from the same rounded scores.

Letters as in ``audiossm_kernels``; w, the folded weights, as in ``chunked``; tiles as in
``triton_tiles``. T and A are the scores' gradient and the scores, masked and weighted.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from audiossm_kernels.rotary import rotate
from audiossm_kernels.ssm_scan.layout import ScanLayout
from audiossm_kernels.ssm_scan.triton_tiles import (
    chunk_factors,
    chunk_place,
    chunk_turns,
    load_pairs,
    load_turned,
    operand,
    over_frames,
    over_ranks,
    product,
    spread,
    store_pairs,
)
from audiossm_kernels.state import Pairing, SsmInputs, SsmParams, SsmState
from audiossm_kernels.triton_math import TURN

__all__ = ["BackwardConfig", "Kept", "choose_config", "launch_backward"]

EPS = tl.constexpr(1e-5)


class Kept(NamedTuple):
    """What the forward leaves of every chunk; slots as in ``layout``."""

    ssm: Tensor  # (slots, H, P, N): the state before the chunk, look-ahead share included
    angle: Tensor  # (slots, H, S) float32: turns in [0, 1) before the chunk's first frame


class BackwardConfig(NamedTuple):
    """How the two kernels are laid out on the card."""

    heads: int  # of a block, at most; they share a program's sums
    num_warps: int  # of the chunks
    carry_block_p: int  # rows of the state in one program of the walk
    carry_warps: int
    split: bool = True  # queries and keys in two launches, whose tiles fit the registers
    registers: int | None = None  # of a thread of the chunks at most; the compiler's choice


# By bytes of an element and by rank; the first entry whose rank is not smaller counts.
CONFIGS = {
    2: {1: BackwardConfig(8, 8, 32, 4), 8: BackwardConfig(8, 8, 32, 4)},
    4: {8: BackwardConfig(4, 8, 32, 4)},
}


@triton.jit
def load_weights(ptr, head, rank, column, R: tl.constexpr, P: tl.constexpr):
    """Load a MIMO weight (H, R, P) for the ranks of rows and some columns."""
    mask = (rank < R)[:, None] & (column < P)[None, :]
    at = ptr + ((head * R + rank) * P)[:, None] + column[None, :]
    return tl.load(at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def sum_frames(x, BLOCK_C: tl.constexpr, BLOCK_R: tl.constexpr):
    """(C * R,) -> (C,): sum over the ranks."""
    if BLOCK_R == 1:
        return x
    return tl.sum(tl.reshape(x, (BLOCK_C, BLOCK_R)), axis=1)


@triton.jit
def answer_gradient(
    answers_ptr,
    dy_ptr,
    z_ptr,
    mimo_z_ptr,
    mimo_o_ptr,
    frame,
    inside,
    rank,
    p,
    head,
    z_frame,
    heads,
    R: tl.constexpr,
    P: tl.constexpr,
    MIMO: tl.constexpr,
    NORMED: tl.constexpr,
):
    """Return the gradient (C * R, P) of what the state answers: through the gate, or as stored."""
    mask = inside[:, None] & (p < P)[None, :]
    if NORMED:
        at = answers_ptr + (((frame * heads + head) * R + rank) * P)[:, None] + p[None, :]
        return tl.load(at, mask=mask, other=0.0).to(tl.float32)
    at = dy_ptr + ((frame * heads + head) * P)[:, None] + p[None, :]
    out = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    z = tl.load(z_ptr + (frame * z_frame + head * P)[:, None] + p[None, :], mask=mask, other=0.0)
    z = z.to(tl.float32)
    if MIMO:
        z *= load_weights(mimo_z_ptr, head, rank, p, R, P)
        out *= load_weights(mimo_o_ptr, head, rank, p, R, P)
    return out * z * tl.sigmoid(z)


@triton.jit
def carry_kernel(
    q_ptr,
    z_ptr,
    dt_ptr,
    adt_ptr,
    trap_ptr,
    rate_ptr,
    q_bias_ptr,
    mimo_z_ptr,
    mimo_o_ptr,
    angle_ptr,
    dy_ptr,
    answers_ptr,
    last_ptr,
    carry_ptr,
    first_ptr,
    borders_ptr,
    q_frame,
    z_frame,
    dt_frame,
    adt_frame,
    trap_frame,
    L,
    heads,
    G: tl.constexpr,
    P: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    RATE_HEADS: tl.constexpr,
    ADJACENT: tl.constexpr,
    MIMO: tl.constexpr,
    NORMED: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK_P: tl.constexpr,
    J: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_R: tl.constexpr,
    ROUND: tl.constexpr,
    OPERAND: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Walk a head's chunks backwards; a program has BLOCK_P rows of its state."""
    program = tl.program_id(0).to(tl.int64)
    blocks = tl.cdiv(P, BLOCK_P)
    block, program = program % blocks, program // blocks
    row, head = program // heads, program % heads
    group = head // (heads // G)
    if PACKED:
        begin = tl.load(borders_ptr + row).to(tl.int64)
        end = tl.load(borders_ptr + row + 1).to(tl.int64)
        slot = begin // C + row
    else:
        begin, end = row * L, row * L + L
        slot = row * tl.cdiv(L, C)

    i = tl.arange(0, BLOCK_C * BLOCK_R)
    step, rank = i // BLOCK_R, i % BLOCK_R
    c = tl.arange(0, BLOCK_C)
    j = tl.arange(0, J)
    if BLOCK_R == 1:
        bias_rank = tl.arange(0, 1)
    else:
        bias_rank = rank
    p = (block * BLOCK_P + tl.arange(0, BLOCK_P)).to(tl.int32)
    p_inside = p < P
    tile = (row * heads + head) * P * N
    first, second = load_pairs(last_ptr + tile, p * N, p_inside, N, J, ADJACENT)
    first, second = first.to(tl.float32), second.to(tl.float32)
    chunk = tl.cdiv(end - begin, C) - 1
    while chunk >= 0:
        start = begin + chunk * C
        at = carry_ptr + ((slot + chunk) * heads + head) * (P * N)
        store_pairs(at, p * N, p_inside, first, second, N, J, ADJACENT)

        frame = start + step
        inside = (step < C) & (rank < R) & (frame < end)
        decay, total, _, _ = chunk_factors(
            adt_ptr, dt_ptr, trap_ptr, frame, inside, end, head, rank, adt_frame, dt_frame,
            trap_frame,
        )  # fmt: skip
        c_frame = start + c
        c_inside = (c < C) & (c_frame < end)
        dt = tl.load(dt_ptr + c_frame * dt_frame + head, mask=c_inside, other=0.0).to(tl.float32)
        rate = tl.load(
            rate_ptr + ((c_frame * RATE_HEADS + head % RATE_HEADS) * S)[:, None] + j[None, :],
            mask=c_inside[:, None] & (j < S)[None, :],
            other=0.0,
        )
        cos, sin = chunk_turns(angle_ptr + ((slot + chunk) * heads + head) * S, rate, dt, S, J)
        cos, sin = spread(cos, BLOCK_C, BLOCK_R, J), spread(sin, BLOCK_C, BLOCK_R, J)
        q_first, q_second = load_turned(
            q_ptr, frame * q_frame + (rank * G + group) * N, inside,
            q_bias_ptr, (head * R + bias_rank) * N, bias_rank < R,
            cos, sin, N, J, ADJACENT, ROUND, OPERAND,
        )  # fmt: skip
        answer = answer_gradient(
            answers_ptr, dy_ptr, z_ptr, mimo_z_ptr, mimo_o_ptr, frame, inside, rank, p, head,
            z_frame, heads, R, P, MIMO, NORMED,
        )  # fmt: skip
        answer = operand(tl.trans(answer * tl.exp(decay)[:, None]), ROUND, OPERAND)
        kept = tl.exp(total)
        first = product(answer, q_first, first * kept, EXACT)
        second = product(answer, q_second, second * kept, EXACT)
        chunk -= 1
    store_pairs(first_ptr + tile, p * N, p_inside, first, second, N, J, ADJACENT)


@triton.jit
def chunk_kernel(
    # inputs
    q_ptr,
    k_ptr,
    v_ptr,
    z_ptr,
    dt_ptr,
    adt_ptr,
    trap_ptr,
    rate_ptr,
    q_bias_ptr,
    k_bias_ptr,
    d_skip_ptr,
    mimo_x_ptr,
    mimo_z_ptr,
    mimo_o_ptr,
    out_norm_ptr,
    # per chunk: state and angle before it, gradient of the state after it
    ssm_ptr,
    angle_ptr,
    carry_ptr,
    dy_ptr,
    answers_ptr,
    late_ptr,
    row_ptr,
    borders_ptr,
    # gradients
    dq_ptr,
    dk_ptr,
    dv_ptr,
    dz_ptr,
    dadt_ptr,
    dgamma_ptr,
    dweight_ptr,
    dturn_ptr,
    drate_ptr,
    dangle_ptr,
    dq_bias_ptr,
    dk_bias_ptr,
    dd_skip_ptr,
    dmimo_x_ptr,
    dmimo_z_ptr,
    dmimo_o_ptr,
    dout_norm_ptr,
    # distances between frames
    q_frame,
    k_frame,
    v_frame,
    z_frame,
    dt_frame,
    adt_frame,
    trap_frame,
    L,
    heads,
    G: tl.constexpr,
    P: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    BLOCK_H: tl.constexpr,
    RATE_HEADS: tl.constexpr,
    ADJACENT: tl.constexpr,
    MIMO: tl.constexpr,
    PACKED: tl.constexpr,
    NORMED: tl.constexpr,
    GATE: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    J: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_R: tl.constexpr,
    ROUND: tl.constexpr,
    OPERAND: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Compute a chunk's gradients for BLOCK_H heads of one group.

    GATE: those behind the state's answers, and with NORMED the gradient of the answers to
    ``answers_ptr``, which the other parts then read. QUERIES: those of q, and KEYS: those of k, v
    and the weights; decays and angles get their sum.
    """
    program = tl.program_id(0).to(tl.int64)
    blocks = heads // BLOCK_H
    slot, block = program // blocks, program % blocks
    row, chunk, start, end = chunk_place(slot, row_ptr, borders_ptr, L, C, PACKED)
    if start >= end:
        return
    group = block * BLOCK_H // (heads // G)

    M: tl.constexpr = BLOCK_C * BLOCK_R
    i = tl.arange(0, M)
    step, rank = i // BLOCK_R, i % BLOCK_R
    frame = start + step
    inside = (step < C) & (rank < R) & (frame < end)
    c = tl.arange(0, BLOCK_C)
    c_frame = start + c
    c_inside = (c < C) & (c_frame < end)
    r = tl.arange(0, BLOCK_R)
    if BLOCK_R == 1:
        bias_rank = tl.arange(0, 1)
    else:
        bias_rank = rank
    j = tl.arange(0, J)
    p = tl.arange(0, BLOCK_P)
    p_inside = p < P
    rows = inside[:, None] & p_inside[None, :]
    frames = c_inside[:, None] & p_inside[None, :]
    ranks = (r < R)[:, None] & p_inside[None, :]
    earlier = step[:, None] > step[None, :]
    same = step[:, None] == step[None, :]

    if QUERIES:
        dq_first = tl.zeros([M, J], tl.float32)
        dq_second = tl.zeros([M, J], tl.float32)
    if KEYS:
        dk_first = tl.zeros([M, J], tl.float32)
        dk_second = tl.zeros([M, J], tl.float32)
    drate = tl.zeros([BLOCK_C, J], tl.float32)
    for index in range(BLOCK_H):
        head = block * BLOCK_H + index
        decay, total, gamma, weight = chunk_factors(
            adt_ptr, dt_ptr, trap_ptr, frame, inside, end, head, rank, adt_frame, dt_frame,
            trap_frame,
        )  # fmt: skip
        dt = tl.load(dt_ptr + c_frame * dt_frame + head, mask=c_inside, other=0.0).to(tl.float32)
        rate = tl.load(
            rate_ptr + ((c_frame * RATE_HEADS + head % RATE_HEADS) * S)[:, None] + j[None, :],
            mask=c_inside[:, None] & (j < S)[None, :],
            other=0.0,
        )
        cos, sin = chunk_turns(angle_ptr + (slot * heads + head) * S, rate, dt, S, J)
        cos, sin = spread(cos, BLOCK_C, BLOCK_R, J), spread(sin, BLOCK_C, BLOCK_R, J)
        q_first, q_second = load_turned(
            q_ptr, frame * q_frame + (rank * G + group) * N, inside,
            q_bias_ptr, (head * R + bias_rank) * N, bias_rank < R,
            cos, sin, N, J, ADJACENT, ROUND, OPERAND,
        )  # fmt: skip
        k_first, k_second = load_turned(
            k_ptr, frame * k_frame + (rank * G + group) * N, inside,
            k_bias_ptr, (head * R + bias_rank) * N, bias_rank < R,
            cos, sin, N, J, ADJACENT, ROUND, OPERAND,
        )  # fmt: skip
        zeros = tl.zeros([M, M], tl.float32)
        scores = product(q_first, tl.trans(k_first), zeros, EXACT)
        scores = product(q_second, tl.trans(k_second), scores, EXACT)
        # the mask comes before exp, else the future overflows
        fade = tl.exp(tl.minimum(decay[:, None] - decay[None, :], 0.0))
        fade = tl.where(earlier, fade, 0.0)
        mask = fade * weight[None, :] + tl.where(same, gamma[None, :], 0.0)

        x = tl.load(
            v_ptr + (frame * v_frame + head * P)[:, None] + p[None, :], mask=rows, other=0.0
        ).to(tl.float32)
        if MIMO:
            value = x * load_weights(mimo_x_ptr, head, rank, p, R, P)
        else:
            value = x
        values = operand(value, ROUND, OPERAND)
        answer = answer_gradient(
            answers_ptr, dy_ptr, z_ptr, mimo_z_ptr, mimo_o_ptr, frame, inside, rank, p, head,
            z_frame, heads, R, P, MIMO, NORMED and not GATE,
        )  # fmt: skip
        d_skip = tl.load(d_skip_ptr + head).to(tl.float32)
        state = (slot * heads + head) * (P * N)
        s_first, s_second = load_pairs(ssm_ptr + state, p * N, p_inside, N, J, ADJACENT)
        from_start = tl.exp(decay)
        at = c_frame * heads + head
        place = (slot * heads + head) * R
        at_ranks = ((place + r) * P)[:, None] + p[None, :]
        if GATE or QUERIES:
            s_a, s_b = operand(s_first, ROUND, OPERAND), operand(s_second, ROUND, OPERAND)
            old = product(q_first, tl.trans(s_a), tl.zeros([M, BLOCK_P], tl.float32), EXACT)
            old = product(q_second, tl.trans(s_b), old, EXACT) * from_start[:, None]
        if GATE or KEYS:
            a = operand(scores * mask, ROUND, OPERAND)
        if GATE:
            o = product(a, values, old, EXACT) + d_skip * value
            raw = tl.load(
                z_ptr + (frame * z_frame + head * P)[:, None] + p[None, :], mask=rows, other=0.0
            ).to(tl.float32)
            dy = tl.load(
                dy_ptr + ((frame * heads + head) * P)[:, None] + p[None, :], mask=rows, other=0.0
            ).to(tl.float32)
            z, out = raw, dy
            if MIMO:
                mimo_z = load_weights(mimo_z_ptr, head, rank, p, R, P)
                z *= mimo_z
                out *= load_weights(mimo_o_ptr, head, rank, p, R, P)
            sigmoid = tl.sigmoid(z)
            if NORMED:
                scale = tl.load(out_norm_ptr + head * P + p, mask=p_inside, other=0.0)
                scale = scale.to(tl.float32)[None, :]
                inverse = tl.rsqrt(tl.sum(o * o, axis=1) / P + EPS)[:, None]
                normed = o * inverse
                o = normed * scale
                dscale = tl.sum(answer * normed, axis=0)
                tl.store(dout_norm_ptr + (slot * heads + head) * P + p, dscale, mask=p_inside)
                answer *= scale
                mean = tl.sum(answer * normed, axis=1)[:, None] / P
                answer = (answer - normed * mean) * inverse
                at_rows = (((frame * heads + head) * R + rank) * P)[:, None] + p[None, :]
                tl.store(answers_ptr + at_rows, answer, mask=rows)
            dz = out * o * sigmoid * (1 + z * (1 - sigmoid))
            if MIMO:
                dmimo_o = over_frames(dy * o * z * sigmoid, BLOCK_C, BLOCK_R, BLOCK_P)
                tl.store(dmimo_o_ptr + at_ranks, dmimo_o, mask=ranks)
                dmimo_z = over_frames(dz * raw, BLOCK_C, BLOCK_R, BLOCK_P)
                tl.store(dmimo_z_ptr + at_ranks, dmimo_z, mask=ranks)
                dz = over_ranks(dz * mimo_z, BLOCK_C, BLOCK_R, BLOCK_P)
            at_values = (at * P)[:, None] + p[None, :]
            tl.store(dz_ptr + at_values, dz.to(dz_ptr.dtype.element_ty), mask=frames)

        if QUERIES or KEYS:
            answers = operand(answer, ROUND, OPERAND)
            zeros = tl.zeros([M, M], tl.float32)
            dscores = product(answers, tl.trans(values), zeros, EXACT)
            t = operand(dscores * mask, ROUND, OPERAND)
            ddecay = tl.zeros([M], tl.float32)
            dtotal = total * 0.0
            turned = tl.zeros([M, J], tl.float32)
            late = tl.zeros([J], tl.float32)

        if QUERIES:
            ddecay += tl.sum(answer * old, axis=1)
            nothing = tl.zeros([M, J], tl.float32)
            own_first = product(answers, s_a, nothing, EXACT) * from_start[:, None]
            own_second = product(answers, s_b, nothing, EXACT) * from_start[:, None]
            own_first = product(t, k_first, own_first, EXACT)
            own_second = product(t, k_second, own_second, EXACT)
            turned += own_second * q_first.to(tl.float32) - own_first * q_second.to(tl.float32)
            first = own_first * cos + own_second * sin
            second = own_second * cos - own_first * sin
            dq_first += first
            dq_second += second
            store_pairs(
                dq_bias_ptr, (place + r) * N, r < R,
                over_frames(first, BLOCK_C, BLOCK_R, J), over_frames(second, BLOCK_C, BLOCK_R, J),
                N, J, ADJACENT,
            )  # fmt: skip

        if KEYS:
            # the chunk's own scores
            to_end = tl.exp(total - decay)
            pairs = dscores * scores
            dgamma = tl.sum(tl.where(same, pairs, 0.0), axis=0)
            pairs *= fade
            dweight = tl.sum(pairs, axis=0)
            pairs *= weight[None, :]
            ddecay += tl.sum(pairs, axis=1) - tl.sum(pairs, axis=0)

            # the state handed on
            c_first, c_second = load_pairs(carry_ptr + state, p * N, p_inside, N, J, ADJACENT)
            s_first, s_second = s_first.to(tl.float32), s_second.to(tl.float32)
            d_first, d_second = c_first.to(tl.float32), c_second.to(tl.float32)
            dtotal += tl.sum(tl.sum(d_first * s_first + d_second * s_second, axis=1), axis=0)
            border = tl.sum(d_second * s_first - d_first * s_second, axis=0) * tl.exp(total)
            c_first, c_second = operand(c_first, ROUND, OPERAND), operand(c_second, ROUND, OPERAND)
            nothing = tl.zeros([M, BLOCK_P], tl.float32)
            dvalue = product(k_first, tl.trans(c_first), nothing, EXACT)
            dvalue = product(k_second, tl.trans(c_second), dvalue, EXACT)
            dshare = tl.sum(dvalue * value, axis=1) * to_end
            dweight += dshare
            dshare *= weight
            ddecay -= dshare
            dtotal = dtotal * tl.exp(total) + tl.sum(dshare, axis=0)
            faded = (to_end * weight)[:, None]
            dvalue = dvalue * faded + answer * d_skip
            dvalue = product(tl.trans(a), answers, dvalue, EXACT)
            dskip = tl.sum(tl.sum(answer * value, axis=1), axis=0)
            tl.store(dd_skip_ptr + slot * heads + head, dskip)
            if MIMO:
                dmimo_x = over_frames(dvalue * x, BLOCK_C, BLOCK_R, BLOCK_P)
                tl.store(dmimo_x_ptr + at_ranks, dmimo_x, mask=ranks)
                dvalue *= load_weights(mimo_x_ptr, head, rank, p, R, P)
            dvalue = over_ranks(dvalue, BLOCK_C, BLOCK_R, BLOCK_P)
            at_values = (at * P)[:, None] + p[None, :]
            tl.store(dv_ptr + at_values, dvalue.to(dv_ptr.dtype.element_ty), mask=frames)
            dweight = sum_frames(dweight, BLOCK_C, BLOCK_R)
            tl.store(dweight_ptr + at, dweight, mask=c_inside)
            dgamma = sum_frames(dgamma, BLOCK_C, BLOCK_R) + dweight
            tl.store(dgamma_ptr + at, dgamma, mask=c_inside)

            nothing = tl.zeros([M, J], tl.float32)
            own_first = product(values, c_first, nothing, EXACT) * faded
            own_second = product(values, c_second, nothing, EXACT) * faded
            late = tl.load(late_ptr + (row * heads + head) * S + j, mask=j < S, other=0.0)
            k_a, k_b = k_first.to(tl.float32), k_second.to(tl.float32)
            late -= border + tl.sum(own_second * k_a - own_first * k_b, axis=0)
            own_first = product(tl.trans(t), q_first, own_first, EXACT)
            own_second = product(tl.trans(t), q_second, own_second, EXACT)
            turned += own_second * k_a - own_first * k_b
            first = own_first * cos + own_second * sin
            second = own_second * cos - own_first * sin
            dk_first += first
            dk_second += second
            store_pairs(
                dk_bias_ptr, (place + r) * N, r < R,
                over_frames(first, BLOCK_C, BLOCK_R, J), over_frames(second, BLOCK_C, BLOCK_R, J),
                N, J, ADJACENT,
            )  # fmt: skip

        if QUERIES or KEYS:
            # decays and angles: sums over this frame and all later ones
            ddecay = tl.cumsum(sum_frames(ddecay, BLOCK_C, BLOCK_R), axis=0, reverse=True) + dtotal
            adt = tl.load(adt_ptr + c_frame * adt_frame + head, mask=c_inside, other=0.0)
            tl.store(dadt_ptr + at, tl.where(adt > 0, 0.0, ddecay), mask=c_inside)
            turned = over_ranks(turned, BLOCK_C, BLOCK_R, J)
            turned = tl.cumsum(turned, axis=0, reverse=True) + late[None, :]
            turned = tl.where((j < S)[None, :], turned, 0.0)
            tl.store(dturn_ptr + at, tl.sum(turned * rate, axis=1) * TURN, mask=c_inside)
            angles = c_inside[:, None] & (j < S)[None, :]
            if RATE_HEADS == 1:
                drate += turned * dt[:, None]
            else:
                tl.store(drate_ptr + (at * S)[:, None] + j[None, :], turned * dt[:, None], angles)
            if chunk == 0:
                at_angle = ((row * heads + head) * S + j)[None, :] + c[:, None] * 0
                tl.store(dangle_ptr + at_angle, turned, mask=angles & (c == 0)[:, None])

    at = ((frame * R + rank) * blocks + block) * N
    if QUERIES:
        store_pairs(dq_ptr, at, inside, dq_first, dq_second, N, J, ADJACENT)
    if KEYS:
        store_pairs(dk_ptr, at, inside, dk_first, dk_second, N, J, ADJACENT)
    if (QUERIES or KEYS) and RATE_HEADS == 1:
        tl.store(
            drate_ptr + ((c_frame * blocks + block) * S)[:, None] + j[None, :],
            drate,
            mask=c_inside[:, None] & (j < S)[None, :],
        )


def choose_config(itemsize: int, rank: int) -> BackwardConfig:
    """Return the layout for inputs of ``itemsize`` bytes per element, from ``CONFIGS``."""
    by_rank = CONFIGS[itemsize]
    return by_rank[min((r for r in by_rank if r >= rank), default=max(by_rank))]


def even_frames(x: Tensor) -> Tensor:
    """Return ``x`` (B, L, ...) with contiguous frames, all the same distance apart."""
    even = x.shape[0] == 1 or x.stride(0) == x.shape[1] * x.stride(1)
    return x if even and x[:1, :1].is_contiguous() else x.contiguous()


def quarter_turn(gradient: Tensor, x: Tensor, num_angles: int, pairing: Pairing) -> Tensor:
    """Return the gradient (..., S) of a turn of each pair of ``x`` (..., N), given that of ``x``."""
    if pairing == "adjacent":
        pairs = slice(0, 2 * num_angles, 2), slice(1, 2 * num_angles, 2)
    else:
        half = x.shape[-1] // 2
        pairs = slice(0, num_angles), slice(half, half + num_angles)
    first, second = pairs
    return gradient[..., second] * x[..., first] - gradient[..., first] * x[..., second]


def launch_backward(
    x: SsmInputs,
    params: SsmParams,
    state: SsmState,
    pairing: Pairing,
    layout: ScanLayout,
    kept: Kept,
    new_state: SsmState,
    dy: Tensor,
    dstate: tuple[Tensor | None, ...],
    *,
    borders: Tensor | None = None,
    config: BackwardConfig | None = None,
) -> tuple[SsmInputs, SsmParams, SsmState]:
    """Return the gradients of inputs, parameters and initial states, each in its tensor's dtype.

    Args:
        x: shapes as in ``ssm_scan``.
        params: small parameters.
        state: four states of ``layout.rows`` rows.
        pairing: pairs that rotate.
        layout: the forward's chunks.
        kept: what the forward kept of them.
        new_state: the state it returned.
        dy: (B, L, H, P), the output's gradient.
        dstate: gradients of the four final states; None is zero.
        borders: (rows + 1,) integers, given when packed.
        config: a layout other than the shipped one.
    """
    batch, frames, rank, groups, d_state = x.q.shape
    heads, head_dim = x.v.shape[2:]
    num_angles, rate_heads = x.angles.shape[-1], x.angles.shape[2]
    device, rows, chunk, packed = x.v.device, layout.rows, layout.chunk, layout.packed
    if config is None:
        config = choose_config(kept.ssm.element_size(), rank)
    block_h = max(n for n in range(1, config.heads + 1) if heads // groups % n == 0)
    blocks = heads // block_h
    interpreted = triton.knobs.runtime.interpret
    narrow = kept.ssm.dtype != torch.float32
    rounded = tl.bfloat16 if narrow else tl.float32
    x = SsmInputs._make(even_frames(part) for part in x)
    dy = dy.contiguous()
    given = [None if part is None else part.contiguous() for part in params]
    nothing = given[2]  # stands for what the variant hasn't
    q_bias, k_bias, d_skip, mimo_x, mimo_z, mimo_o, out_norm = (
        nothing if part is None else part for part in given
    )
    mimo, normed = params.mimo_x is not None, params.out_norm is not None

    def empty(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(size, dtype=dtype, device=device)

    def per_slot(*size: int) -> Tensor:
        # a free slot of packed rows is not written
        return (torch.zeros if packed else torch.empty)((layout.slots, heads, *size), device=device)

    row_of_slot = nothing
    if borders is not None:
        first_slots = borders[:-1] // chunk + torch.arange(rows, device=device)
        slots = torch.arange(layout.slots, device=device)
        row_of_slot = torch.searchsorted(first_slots, slots, right=True) - 1
    turn = torch.tanh(x.angles.float())

    dangle, dssm, dkey, dvalue = dstate
    last = empty(rows, heads, head_dim, d_state)
    last.copy_(dssm) if dssm is not None else last.zero_()
    late = torch.zeros(rows, heads, num_angles, device=device)
    if dangle is not None:
        late += dangle
    if dssm is not None:
        late += quarter_turn(last, new_state.ssm.float(), num_angles, pairing).sum(2)
    if dkey is not None:
        late += quarter_turn(dkey, new_state.k.float(), num_angles, pairing).sum(1)

    carry = empty(layout.slots, heads, head_dim, d_state, dtype=kept.ssm.dtype)
    dfirst = torch.empty_like(last)
    answers = empty(batch, frames, heads, rank, head_dim) if normed else nothing
    partial = torch.bfloat16 if x.q.dtype == torch.bfloat16 else torch.float32
    lead = (batch, frames)
    dq = empty(*lead, rank, groups, blocks // groups, d_state, dtype=partial)
    dk = torch.empty_like(dq)
    dv, dz = empty(*lead, heads, head_dim, dtype=x.v.dtype), torch.empty_like(dy, dtype=x.z.dtype)
    dgamma, dweight = empty(*lead, heads), empty(*lead, heads)
    parts = 2 if config.split else 1
    dadt, dturn = empty(parts, *lead, heads), empty(parts, *lead, heads)
    drate = empty(parts, *lead, blocks if rate_heads == 1 else heads, num_angles)
    dfirst_angle = torch.zeros((parts, *late.shape), device=device)
    dq_bias, dk_bias = per_slot(rank, d_state), per_slot(rank, d_state)
    dd_skip = per_slot()
    dmimo = [per_slot(rank, head_dim) if mimo else nothing for _ in range(3)]
    dout_norm = per_slot(head_dim) if normed else nothing

    strides = [part.stride(1) for part in x[:7]]
    sizes = {
        "G": groups,
        "P": head_dim,
        "N": d_state,
        "S": num_angles,
        "R": rank,
        "C": chunk,
        "RATE_HEADS": rate_heads,
        "ADJACENT": pairing == "adjacent",
        "MIMO": mimo,
        "NORMED": normed,
        "PACKED": packed,
        "J": max(16, triton.next_power_of_2(d_state) // 2),
        "BLOCK_R": triton.next_power_of_2(rank),
        "ROUND": rounded,
        # the interpreter has no products of bfloat16
        "OPERAND": tl.float32 if interpreted else rounded,
        "EXACT": not narrow,
        "num_stages": 1,  # loads are few and tiles large: a second copy would not fit
    }
    sizes["BLOCK_C"] = max(triton.next_power_of_2(chunk), 16 // sizes["BLOCK_R"])
    whole = max(16, triton.next_power_of_2(head_dim))
    block_p = min(config.carry_block_p, whole)
    place = nothing if borders is None else borders

    def run_chunks(index: int, *, gate: bool = False, queries: bool = False, keys: bool = False):
        chunk_kernel[(layout.slots * blocks,)](
            *x[:7], rate, q_bias, k_bias, d_skip, mimo_x, mimo_z, mimo_o, out_norm,
            kept.ssm, kept.angle, carry, dy, answers, late, row_of_slot, place,
            dq, dk, dv, dz, dadt[index], dgamma, dweight, dturn[index], drate[index],
            dfirst_angle[index], dq_bias, dk_bias, dd_skip, *dmimo, dout_norm,
            *strides, frames, heads,
            BLOCK_H=block_h,
            GATE=gate,
            QUERIES=queries,
            KEYS=keys,
            BLOCK_P=whole,
            num_warps=config.num_warps,
            maxnreg=config.registers,
            **sizes,
        )  # fmt: skip

    rate = 0.5 * turn
    with torch.cuda.device_of(x.v):
        if normed:
            run_chunks(0, gate=True)
        carry_kernel[(rows * heads * -(-head_dim // block_p),)](
            x.q, x.z, x.dt, x.adt, x.trap, rate, q_bias, mimo_z, mimo_o, kept.angle,
            dy, answers, last, carry, dfirst, place,
            *(strides[i] for i in (0, 3, 4, 5, 6)), frames, heads,
            BLOCK_P=block_p,
            num_warps=config.carry_warps,
            **sizes,
        )  # fmt: skip
        run_chunks(0, gate=not normed, queries=True, keys=not config.split)
        if config.split:
            run_chunks(1, keys=True)

    # the first frame's share of the initial key and value
    if borders is None:
        begin = torch.arange(rows, device=device) * frames
        end, live = begin + frames, begin.new_ones(rows, dtype=torch.bool)
    else:
        begin, end = borders[:-1].long(), borders[1:].long()
        live = begin < end
    total = batch * frames
    begin, end = begin.clamp(max=total - 1), (end - 1).clamp(min=0)
    lam = torch.sigmoid(x.trap.float())
    dt = x.dt.float()
    share = ((1 - lam) * dt).flatten(0, 1)[begin] * live[:, None]
    key, value = state.k.float().transpose(1, 2), state.v.float().unsqueeze(2)
    weight = mimo_x.float() if mimo else torch.ones(1, 1, 1, device=device)
    toward = key @ dfirst.transpose(-1, -2)  # (rows, H, R, P)
    dshare = torch.zeros_like(dweight).flatten(0, 1)
    dshare[1:] = dweight.flatten(0, 1)[:-1]
    dshare.index_fill_(0, begin, 0.0)
    dshare.index_add_(0, begin, (toward * weight * value).sum((2, 3)) * live[:, None])
    dshare = dshare.view_as(dweight)
    toward = toward * share[:, :, None, None]
    first_key = ((weight * value * share[:, :, None, None]) @ dfirst).transpose(1, 2)
    first_value = (toward * weight).sum(2)
    first_angle = dfirst_angle.sum(0)

    # the sums
    dq_all = dq.sum(4, dtype=torch.float32)
    dk_all = dk.sum(4, dtype=torch.float32)
    dk_bias_all = dk_bias.sum(0)
    dmimo_all = [part.sum(0) for part in dmimo] if mimo else [None] * 3
    if mimo:
        dmimo_all[0] = dmimo_all[0] + (toward * value).sum(0)
    if dkey is not None:
        cos, sin = new_state.angle.cos().unsqueeze(-2), new_state.angle.sin().unsqueeze(-2)
        last_key = rotate(dkey.float().transpose(1, 2), cos, -sin, pairing)
        last_key = last_key * live[:, None, None, None]
        dk_bias_all = dk_bias_all + last_key.sum(0)
        last_key = torch.unflatten(last_key, 1, (groups, -1)).sum(2).transpose(1, 2)
        dk_all.flatten(0, 1).index_add_(0, end, last_key)
    if dvalue is not None:
        last_value = dvalue * live[:, None, None]
        dv.flatten(0, 1).index_add_(0, end, last_value.to(dv.dtype))
    if borders is not None:  # an empty row hands its state on
        gone = ~live[:, None, None]
        if dangle is not None:
            first_angle = first_angle + dangle * gone
        if dkey is not None:
            first_key = first_key + dkey * gone[..., None]
        if dvalue is not None:
            first_value = first_value + dvalue * gone

    drate_all = drate.sum((0, 3)).unsqueeze(2) if rate_heads == 1 else drate.sum(0)
    ddt = lam * dgamma + (1 - lam) * dshare + dturn.sum(0)
    dtrap = lam * (1 - lam) * dt * (dgamma - dshare)
    dinputs = (
        dq_all, dk_all, dv, dz, ddt, dadt.sum(0), dtrap, math.pi * (1 - turn * turn) * drate_all,
    )  # fmt: skip
    dparams = (
        dq_bias.sum(0), dk_bias_all, dd_skip.sum(0), *dmimo_all,
        dout_norm.sum(0) if normed else None,
    )  # fmt: skip
    dfirsts = (first_angle, dfirst, first_key, first_value)
    return (
        SsmInputs._make(d.to(old.dtype) for d, old in zip(dinputs, x, strict=True)),
        SsmParams._make(
            None if old is None or d is None else d.to(old.dtype)
            for d, old in zip(dparams, params, strict=True)
        ),
        SsmState._make(d.to(old.dtype) for d, old in zip(dfirsts, state, strict=True)),
    )
