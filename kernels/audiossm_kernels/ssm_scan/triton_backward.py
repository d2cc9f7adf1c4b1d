"""The scan's gradients in Triton: one walk over the chunks, then every chunk by itself.

``carry_kernel`` walks each head's chunks from the last to the first and leaves at every chunk the
gradient of the state it hands on. With that and the state kept by the forward, chunks are
independent: ``chunk_kernel`` takes a chunk and a block of heads of one group, builds each head's
queries, keys and scores again, and sums the gradients of the shared q and k over its heads in
registers. Gradients per chunk of the small parameters, and per block of q, k and angles, are summed
by torch. Nothing is added atomically: equal calls have equal bits.

The other way round, a program per head that walks all chunks and keeps the state's gradient in
registers, would not store it (at batch 8, 2048 frames, 64 heads of 64 x 128: 0.3 GB written and
read once in SISO, 1.1 GB in MIMO of rank 4), but would store dq and dk of every head (0.5 and 2.1
GB, written and read), and at batch 1 it would leave half of a large card idle.

Two sums over all later frames are not walked. Turning, or weakening, everything after a border is
the same as turning or weakening the state S handed over it, so those sums are products of S and its
gradient dS: <dS, S> for the decay and -<dS, J S> for the angle, J a quarter turn of every pair. The
rounding of S and dS then doesn't add up over chunks, and within a chunk the terms of two frames
cancel exactly, since both frames get them from the same rounded scores.

Letters as in ``audiossm_kernels``; weight is the folded one of ``chunked``. Vectors of N elements
stand in three parts and a frame once per rank, as in ``triton_forward``.
"""

import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from audiossm_kernels.rotary import rotate
from audiossm_kernels.ssm_scan.layout import ScanLayout
from audiossm_kernels.ssm_scan.triton_forward import Kept, whole_frames
from audiossm_kernels.ssm_scan.triton_marks import LEAST_DECAY
from audiossm_kernels.ssm_scan.triton_parts import (
    add_first,
    find_row,
    load_parts,
    repeat,
    store_parts,
    turn,
)
from audiossm_kernels.state import Pairing, SsmInputs, SsmParams, SsmState
from audiossm_kernels.triton_math import (
    INTERPRETED,
    LOG2_E,
    TURN,
    bound,
    exp2,
    fast_cos_sin,
    sigmoid,
)

__all__ = ["CONFIGS", "BackwardConfig", "choose_config", "launch_backward"]

EPS = tl.constexpr(1e-5)
# the walk is cut along the state's rows, as far as it goes, until there are so many programs
CARRY_PROGRAMS = 256


class BackwardConfig(NamedTuple):
    """How the two kernels are laid out on the card."""

    heads: int  # of a block, at most; they share a program's sums
    num_warps: int  # of the chunks
    carry_block_p: int  # rows of the state in one program of the walk, at most
    carry_warps: int
    split: bool = True  # queries and keys in two launches, whose tiles fit the registers better
    registers: int | None = None  # of a thread of the chunks at most; the compiler's choice


# By bytes of an element and by rank; the first entry whose rank is not smaller counts.
CONFIGS = {
    2: {1: BackwardConfig(8, 4, 64, 4), 8: BackwardConfig(8, 4, 64, 4)},
    4: {8: BackwardConfig(4, 4, 32, 4)},
}


@triton.jit
def operand(x, ROUND: tl.constexpr, OPERAND: tl.constexpr):
    """Round to what the products take; the interpreter has no products of bfloat16."""
    return x.to(ROUND).to(OPERAND)


@triton.jit
def operands(x, ROUND: tl.constexpr, OPERAND: tl.constexpr):
    """Round the parts of vectors."""
    a, b, c = x
    return (
        operand(a, ROUND, OPERAND),
        operand(b, ROUND, OPERAND),
        operand(c, ROUND, OPERAND),
    )


@triton.jit
def inner(x, y, BLOCK_REST: tl.constexpr):
    """Return all inner products (X, Y) of the vectors x (X, N) and y (Y, N), in parts."""
    z = tl.dot(x[0], tl.trans(y[0]), input_precision="ieee")
    z = tl.dot(x[1], tl.trans(y[1]), acc=z, input_precision="ieee")
    if BLOCK_REST > 0:
        z = tl.dot(x[2], tl.trans(y[2]), acc=z, input_precision="ieee")
    return z


@triton.jit
def mix(weights, x, BLOCK_REST: tl.constexpr):
    """Return weighted sums of the vectors x, in parts."""
    a = tl.dot(weights, x[0], input_precision="ieee")
    b = tl.dot(weights, x[1], input_precision="ieee")
    c = a
    if BLOCK_REST > 0:
        c = tl.dot(weights, x[2], input_precision="ieee")
    return a, b, c


@triton.jit
def add_mix(sums, scale, weights, x, BLOCK_REST: tl.constexpr):
    """Return ``scale`` times ``sums``, plus weighted sums of the vectors x, in parts."""
    a, b, c = sums
    a = tl.dot(weights, x[0], acc=a * scale, input_precision="ieee")
    b = tl.dot(weights, x[1], acc=b * scale, input_precision="ieee")
    if BLOCK_REST > 0:
        c = tl.dot(weights, x[2], acc=c * scale, input_precision="ieee")
    return a, b, c


@triton.jit
def over_ranks(x, C: tl.constexpr, R: tl.constexpr, WIDTH: tl.constexpr):
    """(C * R, WIDTH) -> (C, WIDTH): sum."""
    if R == 1:
        return x
    else:
        return tl.sum(tl.reshape(x, (C, R, WIDTH)), axis=1)


@triton.jit
def over_frames(x, C: tl.constexpr, R: tl.constexpr, WIDTH: tl.constexpr):
    """(C * R, WIDTH) -> (R, WIDTH): sum."""
    if R == 1:
        return tl.sum(x, axis=0)[None, :]
    else:
        return tl.sum(tl.reshape(x, (C, R, WIDTH)), axis=0)


@triton.jit
def store_back(
    x,
    bias_rows,
    cos,
    sin,
    C: tl.constexpr,
    R: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ADJACENT: tl.constexpr,
):
    """Turn gradients of vectors back, store their sum over the frames and return them."""
    a = x[0] * cos + x[1] * sin
    b = x[1] * cos - x[0] * sin
    c = x[2]
    bias_a, bias_b = over_frames(a, C, R, BLOCK_S), over_frames(b, C, R, BLOCK_S)
    bias_c = bias_a
    if BLOCK_REST > 0:
        bias_c = over_frames(c, C, R, BLOCK_REST)
    store_parts(
        bias_rows, tl.arange(0, R) >= 0, bias_a, bias_b, bias_c, N, S, BLOCK_S, BLOCK_REST, ADJACENT
    )
    return a, b, c


@triton.jit
def load_decay(a_ptr, a_frame, time, inside, rank):
    """Return the log2 of what fades in each frame; rows of further ranks add nothing."""
    a = tl.load(a_ptr + time * a_frame, mask=inside & (rank == 0), other=0.0).to(tl.float32)
    return tl.minimum(tl.maximum(a * LOG2_E, LEAST_DECAY), 0.0)


@triton.jit
def load_turns(
    phi_ptr, rates_ptr, half_dt, frames, on, S: tl.constexpr, BLOCK_S: tl.constexpr, R: tl.constexpr
):
    """Return the rates (S, C) of a chunk, and cosine and sine (C * R, S) of its angles."""
    s = tl.arange(0, BLOCK_S)
    t = tl.arange(0, half_dt.shape[0])
    at = rates_ptr + (s.to(tl.int64) * frames)[:, None] + t[None, :]
    rate = tl.load(at, mask=(s < S)[:, None] & on[None, :], other=0.0)
    step = rate * half_dt[None, :]
    step -= tl.floor(step + 0.5)
    start = tl.load(phi_ptr + s, mask=s < S, other=0.0)
    cos, sin = fast_cos_sin(start[:, None] + tl.cumsum(step, axis=1))
    return rate, repeat(tl.trans(cos), R), repeat(tl.trans(sin), R)


@triton.jit
def load_vectors(
    rows,
    inside,
    bias_rows,
    bias_inside,
    cos,
    sin,
    N: tl.constexpr,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ADJACENT: tl.constexpr,
    ROUND: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """Load the queries or keys of a head: with their biases, turned, as operands."""
    x = load_parts(rows, inside, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
    bias = load_parts(bias_rows, bias_inside, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
    return operands(turn(x, bias, cos, sin), ROUND, OPERAND)


@triton.jit
def load_answers(
    answers_ptr,
    dy_ptr,
    z_ptr,
    mimo_z_ptr,
    mimo_o_ptr,
    z_frame,
    y_frame,
    time,
    rank,
    p,
    inside,
    P: tl.constexpr,
    R: tl.constexpr,
    MIMO: tl.constexpr,
    STORED: tl.constexpr,
):
    """Return the gradient (C * R, P) of what the state answers: as stored, or through the gate."""
    if STORED:
        at = (time * y_frame * R + rank * P)[:, None] + p[None, :]
        return tl.load(answers_ptr + at, mask=inside, other=0.0).to(tl.float32)
    else:
        gate = tl.load(z_ptr + (time * z_frame)[:, None] + p[None, :], mask=inside, other=0.0).to(
            tl.float32
        )
        out = tl.load(dy_ptr + (time * y_frame)[:, None] + p[None, :], mask=inside, other=0.0)
        out = out.to(tl.float32)
        if MIMO:
            weights = (rank * P)[:, None] + p[None, :]
            gate *= tl.load(mimo_z_ptr + weights, mask=inside, other=0.0).to(tl.float32)
            out *= tl.load(mimo_o_ptr + weights, mask=inside, other=0.0).to(tl.float32)
        return out * gate * sigmoid(gate)


@triton.jit
def carry_kernel(
    q_ptr,
    z_ptr,
    dt_ptr,
    a_ptr,
    rates_ptr,
    q_bias_ptr,
    mimo_z_ptr,
    mimo_o_ptr,
    phi_ptr,
    dy_ptr,
    answers_ptr,
    last_ptr,
    carry_ptr,
    first_ptr,
    borders_ptr,
    q_frame: tl.constexpr,
    z_frame: tl.constexpr,
    dt_frame: tl.constexpr,
    a_frame: tl.constexpr,
    frames,
    heads: tl.constexpr,
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
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ROUND: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """Walk a head's chunks backwards; a program has BLOCK_P rows of its state."""
    program = tl.program_id(0).to(tl.int64)
    head, row = program % heads, program // heads
    group = head // (heads // G)
    if PACKED:
        begin = tl.load(borders_ptr + row).to(tl.int64)
        length = (tl.load(borders_ptr + row + 1) - begin).to(tl.int32)
        slot = begin // C + row
    else:
        begin, length = row * frames, frames
        slot = row * tl.cdiv(frames, C)
    count = tl.cdiv(length, C)
    rates_ptr += (head % RATE_HEADS) * S * frames
    if PACKED:
        rates_ptr += begin
    else:
        rates_ptr += row * (RATE_HEADS * S) * frames
    q_ptr += begin * q_frame + group * N
    z_ptr += begin * z_frame + head * P
    dt_ptr += begin * dt_frame + head
    a_ptr += begin * a_frame + head
    dy_ptr += (begin * heads + head) * P
    answers_ptr += (begin * heads + head) * (R * P)

    i = tl.arange(0, C * R)
    time, rank = i // R, i % R
    if R == 1:  # one vector for all frames
        bias_rows, bias_inside = tl.arange(0, 1), tl.arange(0, 1) == 0
    else:
        bias_rows, bias_inside = rank, i >= 0
    bias_rows = q_bias_ptr + (head * R + bias_rows) * N
    c = tl.arange(0, C)
    p = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside_p = p < P
    place = row * heads + head
    carry = load_parts(
        last_ptr + place * (P * N) + p * N, inside_p, N, S, BLOCK_S, BLOCK_REST, ADJACENT
    )
    carry_a, carry_b, carry_c = carry
    for back in tl.range(0, bound(count)):
        chunk = (count - 1 - back).to(tl.int64)
        here = chunk * C
        place = (slot + chunk) * heads + head
        store_parts(
            carry_ptr + place * (P * N) + p * N, inside_p, carry_a, carry_b, carry_c,
            N, S, BLOCK_S, BLOCK_REST, ADJACENT,
        )  # fmt: skip
        inside = time < length - here.to(tl.int32)
        a = load_decay(a_ptr + here * a_frame, a_frame, time, inside, rank)
        total, decay = tl.sum(a, axis=0), tl.cumsum(a, axis=0)
        on = c < length - here.to(tl.int32)
        dt = tl.load(dt_ptr + here * dt_frame + c * dt_frame, mask=on, other=0.0).to(tl.float32)
        _, cos, sin = load_turns(
            phi_ptr + place * S, rates_ptr + here, 0.5 * dt, frames, on, S, BLOCK_S, R
        )
        query = load_vectors(
            q_ptr + here * q_frame + (time * q_frame + rank * (G * N)), inside,
            bias_rows, bias_inside, cos, sin,
            N, S, BLOCK_S, BLOCK_REST, ADJACENT, ROUND, OPERAND,
        )  # fmt: skip
        answer = load_answers(
            answers_ptr + here * (heads * R * P),
            dy_ptr + here * (heads * P),
            z_ptr + here * z_frame,
            mimo_z_ptr + head * (R * P),
            mimo_o_ptr + head * (R * P),
            z_frame, heads * P, time, rank, p, inside[:, None] & inside_p[None, :],
            P, R, MIMO, NORMED,
        )  # fmt: skip
        answer = tl.trans(operand(answer * exp2(decay)[:, None], ROUND, OPERAND))
        carry_a, carry_b, carry_c = add_mix(
            (carry_a, carry_b, carry_c), exp2(total), answer, query, BLOCK_REST
        )
    place = row * heads + head
    store_parts(
        first_ptr + place * (P * N) + p * N, inside_p, carry_a, carry_b, carry_c,
        N, S, BLOCK_S, BLOCK_REST, ADJACENT,
    )  # fmt: skip


@triton.jit
def chunk_kernel(
    # inputs
    q_ptr,
    k_ptr,
    v_ptr,
    z_ptr,
    dt_ptr,
    a_ptr,
    trap_ptr,
    rates_ptr,
    q_bias_ptr,
    k_bias_ptr,
    d_skip_ptr,
    mimo_x_ptr,
    mimo_z_ptr,
    mimo_o_ptr,
    out_norm_ptr,
    # per chunk: state and angle before it, gradient of the state after it
    ssm_ptr,
    phi_ptr,
    carry_ptr,
    dy_ptr,
    answers_ptr,
    late_ptr,
    borders_ptr,
    # gradients
    dq_ptr,
    dk_ptr,
    dv_ptr,
    dz_ptr,
    da_ptr,
    dgamma_ptr,
    dweight_ptr,
    dturn_ptr,
    drates_ptr,
    dangle_ptr,
    dq_bias_ptr,
    dk_bias_ptr,
    dd_skip_ptr,
    dmimo_x_ptr,
    dmimo_z_ptr,
    dmimo_o_ptr,
    dout_norm_ptr,
    # distances between frames
    q_frame: tl.constexpr,
    k_frame: tl.constexpr,
    v_frame: tl.constexpr,
    z_frame: tl.constexpr,
    dt_frame: tl.constexpr,
    a_frame: tl.constexpr,
    trap_frame: tl.constexpr,
    rows,
    frames,
    heads: tl.constexpr,
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
    NORMED: tl.constexpr,
    GATE: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ROUND: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """Compute a chunk's gradients for BLOCK_H heads of one group.

    GATE: those behind the state's answers, and with NORMED the gradient of the answers to
    ``answers_ptr``, which the other parts then read. QUERIES: those of q, and KEYS: those of k, v
    and the weights; decays and angles get the sum of both.
    """
    program = tl.program_id(0).to(tl.int64)
    blocks = heads // BLOCK_H
    slot, block = program // blocks, program % blocks
    group = block * BLOCK_H // (heads // G)
    if PACKED:
        row = find_row(borders_ptr, slot, rows, C)
        begin = tl.load(borders_ptr + row).to(tl.int64)
        length = tl.load(borders_ptr + row + 1) - begin
        chunk = slot - begin // C - row
    else:
        row, chunk = slot // tl.cdiv(frames, C), slot % tl.cdiv(frames, C)
        begin, length = row * frames, row * 0 + frames
    start = begin + chunk * C
    left = (length - chunk * C).to(tl.int32)
    if left <= 0:  # a slot that packing left free
        return

    ROWS: tl.constexpr = C * R
    i = tl.arange(0, ROWS)
    time, rank = i // R, i % R
    inside, follows, leads = time < left, time + 1 < left, (time < left) & (rank == 0)
    c = tl.arange(0, C)
    r = tl.arange(0, R)
    s = tl.arange(0, BLOCK_S)
    p = tl.arange(0, BLOCK_P)
    inside_p = p < P
    inside_v = inside[:, None] & inside_p[None, :]
    frames_v = (c < left)[:, None] & inside_p[None, :]
    turns = (s < S)[:, None] & (c < left)[None, :]
    if R == 1:  # one vector for all frames
        bias_rows, bias_inside = tl.arange(0, 1), tl.arange(0, 1) == 0
    else:
        bias_rows, bias_inside = rank, i >= 0
    by_rates = (s.to(tl.int64) * frames)[:, None] + c[None, :]
    if PACKED:
        by_rates += start
    elif RATE_HEADS == 1:
        by_rates += row * blocks * S * frames + chunk * C
    else:
        by_rates += row * heads * S * frames + chunk * C
    weights = (rank * P)[:, None] + p[None, :]
    ranks = (r * P)[:, None] + p[None, :]

    if PACKED:
        rates_ptr += start
    else:
        rates_ptr += row * (RATE_HEADS * S) * frames + chunk * C
    q_ptr += start * q_frame + group * N
    k_ptr += start * k_frame + group * N
    sum_a = tl.zeros([ROWS, BLOCK_S], tl.float32)
    sum_b, other_a, other_b = sum_a, sum_a, sum_a
    drates = tl.zeros([BLOCK_S, C], tl.float32)
    sum_c, other_c = sum_a, sum_a
    if BLOCK_REST > 0:
        sum_c = tl.zeros([ROWS, BLOCK_REST], tl.float32)
        other_c = sum_c
    # what could leave the loop is cheap, and would wait in registers that are short
    for index in tl.range(0, BLOCK_H, disable_licm=True):
        head = block * BLOCK_H + index
        place = slot * heads + head
        frame = start * heads + head  # of tensors (B, L, H, ...)
        a = load_decay(a_ptr + start * a_frame + head, a_frame, time, inside, rank)
        total = tl.sum(a, axis=0)
        dt_here = dt_ptr + start * dt_frame + head + time * dt_frame
        trap_here = trap_ptr + start * trap_frame + head + time * trap_frame
        dt = tl.load(dt_here, mask=inside, other=0.0).to(tl.float32)
        trap = tl.load(trap_here, mask=inside, other=0.0).to(tl.float32)
        next_dt = tl.load(dt_here + dt_frame, mask=follows, other=0.0).to(tl.float32)
        next_trap = tl.load(trap_here + trap_frame, mask=follows, other=0.0).to(tl.float32)
        gamma = sigmoid(trap) * dt
        weight = gamma + sigmoid(-next_trap) * next_dt
        if INTERPRETED:
            decay = tl.cumsum(a, axis=0)
        else:
            decay, gamma, weight = tl.associative_scan((a, gamma, weight), 0, add_first)
        t_dt = dt_ptr + start * dt_frame + head + c * dt_frame
        t_dt = tl.load(t_dt, mask=c < left, other=0.0).to(tl.float32)
        rate, cos, sin = load_turns(
            phi_ptr + place * S, rates_ptr + (head % RATE_HEADS) * S * frames, 0.5 * t_dt,
            frames, c < left, S, BLOCK_S, R,
        )  # fmt: skip
        key = load_vectors(
            k_ptr + (time * k_frame + rank * (G * N)), inside,
            k_bias_ptr + (head * R + bias_rows) * N, bias_inside, cos, sin,
            N, S, BLOCK_S, BLOCK_REST, ADJACENT, ROUND, OPERAND,
        )  # fmt: skip
        query = load_vectors(
            q_ptr + (time * q_frame + rank * (G * N)), inside,
            q_bias_ptr + (head * R + bias_rows) * N, bias_inside, cos, sin,
            N, S, BLOCK_S, BLOCK_REST, ADJACENT, ROUND, OPERAND,
        )  # fmt: skip
        scores = inner(query, key, BLOCK_REST)
        past = time[:, None] > time[None, :]
        fade = exp2(tl.minimum(decay[:, None] - decay[None, :], 0.0))
        # gamma itself beside the diagonal, not weight minus the share: that leaks rounding
        factor = tl.where(past, weight[None, :], gamma[None, :]) * fade
        factor = tl.where(time[:, None] >= time[None, :], factor, 0.0)
        if GATE or KEYS:
            weighted = operand(scores * factor, ROUND, OPERAND)

        v_here = v_ptr + start * v_frame + head * P + (time * v_frame)[:, None] + p[None, :]
        value = tl.load(v_here, mask=inside_v, other=0.0).to(tl.float32)
        if MIMO:
            x_in = tl.load(mimo_x_ptr + head * (R * P) + weights, mask=inside_v, other=0.0)
            value *= x_in.to(tl.float32)
        value = operand(value, ROUND, OPERAND)
        z_here = z_ptr + start * z_frame + head * P
        dy_here = dy_ptr + frame * P
        answers_here = answers_ptr + frame * (R * P)
        d_skip = tl.load(d_skip_ptr + head).to(tl.float32)
        state_rows = place * (P * N) + p * N
        per_rank = place * (R * P) + ranks
        if GATE or QUERIES:
            state = load_parts(ssm_ptr + state_rows, inside_p, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
            state = operands(state, ROUND, OPERAND)
            old = inner(query, state, BLOCK_REST) * exp2(decay)[:, None]
        if GATE:
            o = tl.dot(weighted, value, acc=old, input_precision="ieee")
            o += d_skip * value.to(tl.float32)
            z_at = z_here + (time * z_frame)[:, None] + p[None, :]
            raw = tl.load(z_at, mask=inside_v, other=0.0).to(tl.float32)
            dy_at = dy_here + (time * (heads * P))[:, None] + p[None, :]
            dy = tl.load(dy_at, mask=inside_v, other=0.0).to(tl.float32)
            gate, out = raw, dy
            if MIMO:
                x_gate = tl.load(mimo_z_ptr + head * (R * P) + weights, mask=inside_v, other=0.0)
                x_gate = x_gate.to(tl.float32)
                gate = raw * x_gate
                x_out = tl.load(mimo_o_ptr + head * (R * P) + weights, mask=inside_v, other=0.0)
                out = dy * x_out.to(tl.float32)
            slope = sigmoid(gate)
            opened = gate * slope  # silu
            slope += opened * (1 - slope)
            answer = out * opened
            if NORMED:
                scale = tl.load(out_norm_ptr + head * P + p, mask=inside_p, other=0.0)
                scale = scale.to(tl.float32)[None, :]
                inverse = tl.rsqrt(tl.sum(o * o, axis=1) / P + EPS)[:, None]
                normed = o * inverse
                o = normed * scale
                dscale = tl.sum(answer * normed, axis=0)
                tl.store(dout_norm_ptr + place * P + p, dscale, mask=inside_p)
                answer *= scale
                mean = tl.sum(answer * normed, axis=1)[:, None] / P
                answer = (answer - normed * mean) * inverse
                at = (time * (heads * R * P) + rank * P)[:, None] + p[None, :]
                tl.store(answers_here + at, answer, mask=inside_v)
            dz = out * o * slope
            if MIMO:
                dmimo_o = over_frames(dy * o * opened, C, R, BLOCK_P)
                tl.store(dmimo_o_ptr + per_rank, dmimo_o, mask=inside_p[None, :])
                dmimo_z = over_frames(dz * raw, C, R, BLOCK_P)
                tl.store(dmimo_z_ptr + per_rank, dmimo_z, mask=inside_p[None, :])
                dz = over_ranks(dz * x_gate, C, R, BLOCK_P)
            at = (c * (heads * P))[:, None] + p[None, :]
            tl.store(dz_ptr + frame * P + at, dz.to(dz_ptr.dtype.element_ty), mask=frames_v)
        else:
            answer = load_answers(
                answers_here, dy_here, z_here,
                mimo_z_ptr + head * (R * P), mimo_o_ptr + head * (R * P),
                z_frame, heads * P, time, rank, p, inside_v, P, R, MIMO, NORMED,
            )  # fmt: skip

        if QUERIES or KEYS:
            answers = operand(answer, ROUND, OPERAND)
            dscores = tl.dot(answers, tl.trans(value), input_precision="ieee")
            dweighted = operand(dscores * factor, ROUND, OPERAND)
            decays = tl.zeros([ROWS], tl.float32)
            dtotal = 0.0
            turned = tl.zeros([ROWS, BLOCK_S], tl.float32)
            late = tl.zeros([BLOCK_S], tl.float32)

        if KEYS:
            pairs = dscores * scores * fade
            dgamma = tl.sum(tl.where(time[:, None] == time[None, :], pairs, 0.0), axis=0)
            pairs = tl.where(past, pairs, 0.0)
            dweight = tl.sum(pairs, axis=0)
            decays += tl.sum(pairs * weight[None, :], axis=1) - dweight * weight

        if QUERIES:
            decays += tl.sum(answers.to(tl.float32) * old, axis=1)
            grad = mix(answers, state, BLOCK_REST)
            grad_a, grad_b, grad_c = add_mix(grad, exp2(decay)[:, None], dweighted, key, BLOCK_REST)
            turned += grad_b * query[0].to(tl.float32) - grad_a * query[1].to(tl.float32)
            grad_a, grad_b, grad_c = store_back(
                (grad_a, grad_b, grad_c), dq_bias_ptr + (place * R + r) * N,
                cos, sin, C, R, N, S, BLOCK_S, BLOCK_REST, ADJACENT,
            )  # fmt: skip
            sum_a += grad_a
            sum_b += grad_b
            if BLOCK_REST > 0:
                sum_c += grad_c

        if KEYS:
            # through the state handed on
            to_end = exp2(tl.minimum(total - decay, 0.0))
            carry = load_parts(
                carry_ptr + state_rows, inside_p, N, S, BLOCK_S, BLOCK_REST, ADJACENT
            )
            before = load_parts(ssm_ptr + state_rows, inside_p, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
            carry_a, carry_b = carry[0].to(tl.float32), carry[1].to(tl.float32)
            before_a, before_b = before[0].to(tl.float32), before[1].to(tl.float32)
            same = tl.sum(carry_a * before_a + carry_b * before_b, axis=1)
            border = tl.sum(carry_b * before_a - carry_a * before_b, axis=0) * exp2(total)
            if BLOCK_REST > 0:
                same += tl.sum(carry[2].to(tl.float32) * before[2].to(tl.float32), axis=1)
            carry = operands(carry, ROUND, OPERAND)
            dvalue = inner(key, carry, BLOCK_REST)
            dshare = tl.sum(dvalue * value.to(tl.float32), axis=1) * to_end
            dweight += dshare
            dshare *= weight
            decays -= dshare
            dtotal += tl.sum(same, axis=0) * exp2(total) + tl.sum(dshare, axis=0)
            faded = (to_end * weight)[:, None]
            dvalue = dvalue * faded + answers.to(tl.float32) * d_skip
            dvalue = tl.dot(tl.trans(weighted), answers, acc=dvalue, input_precision="ieee")
            dskip = tl.sum(answers.to(tl.float32) * value.to(tl.float32), axis=1)
            tl.store(dd_skip_ptr + place, tl.sum(dskip, axis=0))
            if MIMO:
                x = tl.load(v_here, mask=inside_v, other=0.0).to(tl.float32)
                dmimo_x = over_frames(dvalue * x, C, R, BLOCK_P)
                tl.store(dmimo_x_ptr + per_rank, dmimo_x, mask=inside_p[None, :])
                x_in = tl.load(mimo_x_ptr + head * (R * P) + weights, mask=inside_v, other=0.0)
                dvalue *= x_in.to(tl.float32)
            dvalue = over_ranks(dvalue, C, R, BLOCK_P)
            at = (c * (heads * P))[:, None] + p[None, :]
            tl.store(dv_ptr + frame * P + at, dvalue.to(dv_ptr.dtype.element_ty), mask=frames_v)
            if R > 1:
                dweight = tl.sum(tl.reshape(dweight, (C, R)), axis=1)
                dgamma = tl.sum(tl.reshape(dgamma, (C, R)), axis=1)
            tl.store(dweight_ptr + frame + c * heads, dweight, mask=c < left)
            tl.store(dgamma_ptr + frame + c * heads, dgamma + dweight, mask=c < left)

            grad_a, grad_b, grad_c = mix(value, carry, BLOCK_REST)
            key_a, key_b = key[0].to(tl.float32), key[1].to(tl.float32)
            late += tl.load(late_ptr + (row * heads + head) * S + s, mask=s < S, other=0.0)
            late -= border + tl.sum((grad_b * key_a - grad_a * key_b) * faded, axis=0)
            grad_a, grad_b, grad_c = add_mix(
                (grad_a, grad_b, grad_c), faded, tl.trans(dweighted), query, BLOCK_REST
            )
            turned += grad_b * key_a - grad_a * key_b
            grad_a, grad_b, grad_c = store_back(
                (grad_a, grad_b, grad_c), dk_bias_ptr + (place * R + r) * N,
                cos, sin, C, R, N, S, BLOCK_S, BLOCK_REST, ADJACENT,
            )  # fmt: skip
            other_a += grad_a
            other_b += grad_b
            if BLOCK_REST > 0:
                other_c += grad_c

        if QUERIES or KEYS:
            # decays and angles: sums over this frame and all later ones, in a frame's first row
            decays = tl.cumsum(decays, axis=0, reverse=True) + dtotal
            a = tl.load(a_ptr + start * a_frame + head + time * a_frame, mask=leads, other=0.0)
            tl.store(da_ptr + frame + time * heads, tl.where(a > 0, 0.0, decays), mask=leads)
            turned = tl.trans(over_ranks(turned, C, R, BLOCK_S))
            turned = tl.cumsum(turned, axis=1, reverse=True) + late[:, None]
            by_dt = tl.sum(turned * rate, axis=0) * (0.5 * TURN)
            tl.store(dturn_ptr + frame + c * heads, by_dt, mask=c < left)
            by_rate = turned * t_dt[None, :]
            if RATE_HEADS == 1:
                drates += by_rate
            else:
                tl.store(drates_ptr + (head * S * frames) + by_rates, by_rate, mask=turns)
            if chunk == 0:
                angle = (row * heads + head) * S + s[:, None] + c[None, :] * 0
                tl.store(dangle_ptr + angle, turned, mask=turns & (c == 0)[None, :])

    vectors = ((start * R + i) * blocks + block) * N
    if QUERIES:
        store_parts(
            dq_ptr + vectors, inside, sum_a, sum_b, sum_c,
            N, S, BLOCK_S, BLOCK_REST, ADJACENT,
        )  # fmt: skip
    if KEYS:
        store_parts(
            dk_ptr + vectors, inside, other_a, other_b, other_c,
            N, S, BLOCK_S, BLOCK_REST, ADJACENT,
        )  # fmt: skip
    if (QUERIES or KEYS) and RATE_HEADS == 1:
        tl.store(drates_ptr + block * S * frames + by_rates, drates, mask=turns)


def choose_config(itemsize: int, rank: int) -> BackwardConfig:
    """Return the layout for inputs of ``itemsize`` bytes per element, from ``CONFIGS``."""
    by_rank = CONFIGS[itemsize]
    return by_rank[min((r for r in by_rank if r >= rank), default=max(by_rank))]


def even_frames(x: Tensor) -> Tensor:
    """Return ``x`` (B, L, ...) with contiguous frames, all the same distance apart."""
    x = whole_frames(x)
    return x if len(x) == 1 or x.stride(0) == x.shape[1] * x.stride(1) else x.contiguous()


def quarter_turn(gradient: Tensor, x: Tensor, num_angles: int, pairing: Pairing) -> Tensor:
    """Return the gradient (..., S) of a turn of the pairs of ``x`` (..., N), given that of x."""
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
    narrow = kept.ssm.dtype != torch.float32
    rounded = tl.bfloat16 if narrow else tl.float32
    x = SsmInputs._make(even_frames(part) for part in x)
    dy = dy.contiguous()
    given = [None if part is None else part.contiguous() for part in params]
    nothing = params.d_skip.contiguous()  # stands for what the variant hasn't
    q_bias, k_bias, d_skip, mimo_x, mimo_z, mimo_o, out_norm = (
        nothing if part is None else part for part in given
    )
    mimo, normed = params.mimo_x is not None, params.out_norm is not None

    def empty(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(size, dtype=dtype, device=device)

    def per_slot(*size: int) -> Tensor:
        # a free slot of packed rows is not written
        return (torch.zeros if packed else torch.empty)((layout.slots, heads, *size), device=device)

    # half turns per unit of dt, time along the last axis
    rates = torch.tanh(x.angles.permute(0, 2, 3, 1).float().contiguous())

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
    drate = empty(parts, batch, blocks if rate_heads == 1 else heads, num_angles, frames)
    dfirst_angle = torch.zeros((parts, *late.shape), device=device)
    dq_bias, dk_bias = per_slot(rank, d_state), per_slot(rank, d_state)
    dd_skip = per_slot()
    dmimo = [per_slot(rank, head_dim) if mimo else nothing for _ in range(3)]
    dout_norm = per_slot(head_dim) if normed else nothing

    strides = [part.stride(1) for part in x[:7]]
    rest = d_state - 2 * num_angles
    whole = max(16, triton.next_power_of_2(head_dim))
    block_p = min(config.carry_block_p, whole)
    while block_p > 16 and rows * heads * (whole // block_p) < CARRY_PROGRAMS:
        block_p //= 2
    sizes: dict[str, Any] = {
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
        "BLOCK_S": max(16, triton.next_power_of_2(num_angles)),
        "BLOCK_REST": max(16, triton.next_power_of_2(rest)) if rest else 0,
        "ROUND": rounded,
        # the interpreter has no products of bfloat16
        "OPERAND": tl.float32 if triton.knobs.runtime.interpret else rounded,
        "num_stages": 1,  # loads are few and tiles large: a second copy would not fit
    }
    place = nothing if borders is None else borders

    def run_chunks(
        index: int, *, gate: bool = False, queries: bool = False, keys: bool = False
    ) -> None:
        chunk_kernel[(layout.slots * blocks,)](
            *x[:7], rates, q_bias, k_bias, d_skip, mimo_x, mimo_z, mimo_o, out_norm,
            kept.ssm, kept.angle, carry, dy, answers, late, place,
            dq, dk, dv, dz, dadt[index], dgamma, dweight, dturn[index], drate[index],
            dfirst_angle[index], dq_bias, dk_bias, dd_skip, *dmimo, dout_norm,
            *strides, rows, frames, heads,
            BLOCK_H=block_h,
            GATE=gate,
            QUERIES=queries,
            KEYS=keys,
            BLOCK_P=whole,
            # a large state needs the registers of more threads
            num_warps=8 if whole * d_state > 2**13 else config.num_warps,
            maxnreg=config.registers,
            **sizes,
        )  # fmt: skip

    with torch.cuda.device_of(x.v):
        if normed:
            run_chunks(0, gate=True)
        carry_kernel[(rows * heads, -(-head_dim // block_p))](
            x.q, x.z, x.dt, x.adt, rates, q_bias, mimo_z, mimo_o, kept.angle,
            dy, answers, last, carry, dfirst, place,
            *(strides[i] for i in (0, 3, 4, 5)), frames, heads,
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
    opens = torch.zeros(total, device=device).index_add_(0, begin, live.float())
    dshare *= (opens == 0)[:, None]
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
    dmimo_all: list[Tensor | None] = [None] * 3
    if mimo:
        dmimo_x, dmimo_z, dmimo_o = (part.sum(0) for part in dmimo)
        dmimo_all = [dmimo_x + (toward * value).sum(0), dmimo_z, dmimo_o]
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

    drate_all = drate.sum((0, 2)).unsqueeze(1) if rate_heads == 1 else drate.sum(0)
    drate_all = (math.pi * (1 - rates * rates) * drate_all).permute(0, 3, 1, 2)
    ddt = lam * dgamma + (1 - lam) * dshare + dturn.sum(0)
    dtrap = lam * (1 - lam) * dt * (dgamma - dshare)
    dinputs = (
        dq_all, dk_all, dv, dz, ddt, dadt.sum(0), dtrap, drate_all,
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
