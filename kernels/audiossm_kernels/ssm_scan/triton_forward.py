"""Many frames of the Mamba-3 mixer core in Triton: one program walks the chunks of a segment.

A program holds a head's state in registers and takes its frames chunk by chunk, each in four
products: scores = q k', out = scores v + q state', state = decay state + (weight v)' k. Keys and
queries of a head are made on the way from the groups' normed vectors and never written.

Where rows and heads are too few for the card, a row is cut into segments. A first walk finds what
each segment adds to a state of zero, in a frame of angles of its own; ``join_kernel`` hands the
state from segment to segment, turning each part by the angle before it; the second walk starts
every segment from there. Queries, keys and content turn together, so that this changes nothing.

The N dimensions of a vector are held as three tiles: first halves of the pairs that turn, second
halves, and the rest. A frame's row stands once per rank: row t R + r of a chunk.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from audiossm_kernels.ssm_scan.layout import ScanLayout, chunk_frames
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

__all__ = ["CONFIGS", "Kept", "ScanConfig", "choose_config", "launch_forward"]

EPS = tl.constexpr(1e-5)
BELOW_TURN = tl.constexpr(6.2831850)  # the float32 below a full turn
# Beyond 2^-40 a frame has forgotten all; larger sums would blur the weak decays after them.
LEAST_DECAY = tl.constexpr(-40.0)


class ScanConfig(NamedTuple):
    """How a walk is laid out on the card."""

    rows: int  # of a product: frames of a chunk times the rank
    num_warps: int
    num_stages: int = 1  # chunks that are loaded at a time
    block_p: int = 64  # rows of the state in one program
    # frames of a segment for each head: no batch size in it, so that a row's bits don't depend on
    # how many rows there are
    segment: int = 32
    registers: int | None = None  # of a thread at most; the compiler's choice by default


class Kept(NamedTuple):
    """What the backward needs of the walk: the state carried into every chunk, in its slot."""

    ssm: Tensor  # (slots, H, P, N): look-ahead share included, angles as they are
    angle: Tensor  # (slots, H, S) float32: turns before the chunk's first frame, in [0, 1)


# By bytes of an operand; then the first whose rank and d_state are not smaller.
CONFIGS = {
    2: {
        (1, 128): ScanConfig(64, 4, 2),
        (1, 256): ScanConfig(64, 4, block_p=32),
        (8, 128): ScanConfig(64, 4),
        (8, 256): ScanConfig(64, 4, block_p=32),
    },
    4: {(8, 128): ScanConfig(32, 8, block_p=32), (8, 256): ScanConfig(32, 8, block_p=16)},
}


@triton.jit
def rest_index(N: tl.constexpr, S: tl.constexpr, BLOCK_REST: tl.constexpr, ADJACENT: tl.constexpr):
    """Return the dimensions that don't turn."""
    j = tl.arange(0, BLOCK_REST)
    if ADJACENT:
        return j + 2 * S
    i = j + tl.where(j < N // 2 - S, S, 2 * S)
    if S % 8 == 0 and (N // 2) % 8 == 0:
        i = tl.max_contiguous(tl.multiple_of(i, 8), 8)
    return i


@triton.jit
def load_parts(
    rows,
    inside,
    N: tl.constexpr,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ADJACENT: tl.constexpr,
):
    """Load vectors of N elements at the pointers ``rows``: first halves, second halves, rest."""
    rows, inside = rows[:, None], inside[:, None]
    if ADJACENT:
        j = tl.arange(0, 2 * BLOCK_S)[None, :]
        pairs = tl.load(rows + j, mask=inside & (j < 2 * S), other=0.0)
        a, b = tl.split(tl.reshape(pairs, (pairs.shape[0], BLOCK_S, 2)))
    else:
        j = tl.arange(0, BLOCK_S)[None, :]
        a = tl.load(rows + j, mask=inside & (j < S), other=0.0)
        b = tl.load(rows + N // 2 + j, mask=inside & (j < S), other=0.0)
    c = a
    if BLOCK_REST > 0:
        i = rest_index(N, S, BLOCK_REST, ADJACENT)[None, :]
        c = tl.load(rows + i, mask=inside & (i < N), other=0.0)
    return a, b, c


@triton.jit
def store_parts(
    rows,
    inside,
    a,
    b,
    c,
    N: tl.constexpr,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ADJACENT: tl.constexpr,
):
    """Store what ``load_parts`` loads."""
    rows, inside = rows[:, None], inside[:, None]
    dtype = rows.dtype.element_ty
    if ADJACENT:
        j = tl.arange(0, 2 * BLOCK_S)[None, :]
        pairs = tl.reshape(tl.join(a.to(dtype), b.to(dtype)), (a.shape[0], 2 * BLOCK_S))
        tl.store(rows + j, pairs, mask=inside & (j < 2 * S))
    else:
        j = tl.arange(0, BLOCK_S)[None, :]
        tl.store(rows + j, a.to(dtype), mask=inside & (j < S))
        tl.store(rows + N // 2 + j, b.to(dtype), mask=inside & (j < S))
    if BLOCK_REST > 0:
        i = rest_index(N, S, BLOCK_REST, ADJACENT)[None, :]
        tl.store(rows + i, c.to(dtype), mask=inside & (i < N))


@triton.jit
def turn(x, bias, cos, sin):
    """Add the bias to the parts of vectors and turn their pairs."""
    a, b, c = x
    a_bias, b_bias, c_bias = bias
    a = a.to(tl.float32) + a_bias.to(tl.float32)
    b = b.to(tl.float32) + b_bias.to(tl.float32)
    c = c.to(tl.float32) + c_bias.to(tl.float32)
    return a * cos - b * sin, a * sin + b * cos, c


@triton.jit
def add_first(a, x, y, next_a, next_x, next_y):
    """Sum the first of three.

    The others go along only to be seen as results of a scan: else the compiler would make them
    anew, loads and all, for each layout that they are needed in, which takes all registers.
    """
    return a + next_a, next_x, next_y


@triton.jit
def repeat(x, R: tl.constexpr):
    """Return every row of a tile R times."""
    if R == 1:
        return x
    else:
        many = tl.broadcast_to(x[:, None, :], (x.shape[0], R, x.shape[1]))
        return tl.reshape(many, (x.shape[0] * R, x.shape[1]))


@triton.jit
def first_state(
    ssm_ptr,
    old_k_ptr,
    old_v_ptr,
    dt_ptr,
    trap_ptr,
    mimo_x_ptr,
    any_frame,
    row,
    head,
    heads,
    p,
    P: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
    R: tl.constexpr,
    MIMO: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ADJACENT: tl.constexpr,
):
    """Return the rows ``p`` of the state before a row's first frame, with that frame's share."""
    place = row * heads + head
    inside = p < P
    a, b, c = load_parts(
        ssm_ptr + place * (P * N) + p * N, inside, N, S, BLOCK_S, BLOCK_REST, ADJACENT
    )
    dt = tl.load(dt_ptr, mask=any_frame, other=0.0).to(tl.float32)
    share = dt * sigmoid(-tl.load(trap_ptr, mask=any_frame, other=0.0).to(tl.float32))
    old_value = share * tl.load(old_v_ptr + place * P + p, mask=inside, other=0.0)
    one = tl.arange(0, 1)
    for r in tl.static_range(R):
        value = old_value
        if MIMO:
            weight = tl.load(mimo_x_ptr + (head * R + r) * P + p, mask=inside, other=0.0)
            value *= weight.to(tl.float32)
        old_key = old_k_ptr + ((row * R + r) * heads + head) * N + one
        key = load_parts(old_key, one == 0, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
        a += value[:, None] * key[0]
        b += value[:, None] * key[1]
        if BLOCK_REST > 0:
            c += value[:, None] * key[2]
    return a, b, c


@triton.jit
def find_row(borders_ptr, slot, rows, SEGMENT: tl.constexpr):
    """Return the packed row that owns the slot of a segment."""
    low = slot * 0
    high = low + rows
    while high - low > 1:
        middle = (low + high) // 2
        before = tl.load(borders_ptr + middle) // SEGMENT + middle <= slot
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    return low


@triton.jit
def walk_kernel(
    # inputs
    q_ptr,
    k_ptr,
    v_ptr,
    z_ptr,
    dt_ptr,
    a_ptr,
    trap_ptr,
    rates_ptr,
    borders_ptr,
    # parameters
    q_bias_ptr,
    k_bias_ptr,
    d_skip_ptr,
    mimo_x_ptr,
    mimo_z_ptr,
    mimo_o_ptr,
    out_norm_ptr,
    # state before and after
    angle_ptr,
    ssm_ptr,
    old_k_ptr,
    old_v_ptr,
    new_angle_ptr,
    new_ssm_ptr,
    new_k_ptr,
    new_v_ptr,
    # segments: what each adds, or what it starts from
    part_ssm_ptr,
    part_angle_ptr,
    part_decay_ptr,
    kept_ssm_ptr,
    kept_angle_ptr,
    y_ptr,
    # distances between rows
    q_row,
    k_row,
    v_row,
    z_row,
    dt_row,
    a_row,
    trap_row,
    rows,
    frames,
    segments,
    H: tl.constexpr,
    G: tl.constexpr,
    P: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
    R: tl.constexpr,
    RATE_HEADS: tl.constexpr,
    ADJACENT: tl.constexpr,
    MIMO: tl.constexpr,
    OUT_NORM: tl.constexpr,
    PACKED: tl.constexpr,
    CHUNK: tl.constexpr,
    SEGMENT: tl.constexpr,  # frames, whole chunks
    CUT: tl.constexpr,  # rows have several segments
    OUTPUTS: tl.constexpr,  # else only what a segment adds
    KEEP: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    OPERAND: tl.constexpr,
    STAGES: tl.constexpr,
    # distances between frames: constants, for the offsets would take half of the registers
    Q_FRAME: tl.constexpr,
    K_FRAME: tl.constexpr,
    V_FRAME: tl.constexpr,
    Z_FRAME: tl.constexpr,
    DT_FRAME: tl.constexpr,
    A_FRAME: tl.constexpr,
    TRAP_FRAME: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    head, slot = program % H, program // H
    group = head // (H // G)
    if PACKED:
        row = find_row(borders_ptr, slot, rows, SEGMENT)
        start = tl.load(borders_ptr + row).to(tl.int64)
        length = (tl.load(borders_ptr + row + 1) - start).to(tl.int32)
        segment = (slot - start // SEGMENT - row).to(tl.int32)
        chunk_slot = start // CHUNK + row
        first_y = start
    else:
        row = slot // segments
        start = row * 0
        length = frames
        segment = (slot % segments).to(tl.int32)
        chunk_slot = row * tl.cdiv(frames, CHUNK)
        first_y = row * frames
        q_ptr += row * q_row
        k_ptr += row * k_row
        v_ptr += row * v_row
        z_ptr += row * z_row
        dt_ptr += row * dt_row
        a_ptr += row * a_row
        trap_ptr += row * trap_row
        rates_ptr += row * RATE_HEADS * S * frames
    begin = segment * SEGMENT
    if OUTPUTS:
        if (segment > 0) & (begin >= length):  # a slot that packing left free
            return
    elif begin + SEGMENT >= length:  # nothing follows a row's last segment
        return

    q_ptr += start * Q_FRAME + group * N
    k_ptr += start * K_FRAME + group * N
    v_ptr += start * V_FRAME + head * P
    z_ptr += start * Z_FRAME + head * P
    dt_ptr += start * DT_FRAME + head
    a_ptr += start * A_FRAME + head
    trap_ptr += start * TRAP_FRAME + head
    rates_ptr += start + (head % RATE_HEADS) * S * frames
    y_ptr += (first_y * H + head) * P

    p = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside_p = p < P
    s = tl.arange(0, BLOCK_S)
    WIDTH: tl.constexpr = 2 * BLOCK_S + BLOCK_REST
    part = slot * H + head
    part_rows = part_ssm_ptr + (part * P + p)[:, None] * WIDTH
    if CUT and OUTPUTS:
        ssm_a = tl.load(part_rows + s[None, :], mask=inside_p[:, None], other=0.0)
        ssm_b = tl.load(part_rows + BLOCK_S + s[None, :], mask=inside_p[:, None], other=0.0)
        ssm_c = ssm_a
        if BLOCK_REST > 0:
            j = 2 * BLOCK_S + tl.arange(0, BLOCK_REST)
            ssm_c = tl.load(part_rows + j[None, :], mask=inside_p[:, None], other=0.0)
        phi = tl.load(part_angle_ptr + part * S + s, mask=s < S, other=0.0)
    elif OUTPUTS:
        ssm_a, ssm_b, ssm_c = first_state(
            ssm_ptr,
            old_k_ptr,
            old_v_ptr,
            dt_ptr,
            trap_ptr,
            mimo_x_ptr,
            length > 0,
            row,
            head,
            H,
            p,
            P,
            N,
            S,
            R,
            MIMO,
            BLOCK_S,
            BLOCK_REST,
            ADJACENT,
        )
        phi = tl.load(angle_ptr + (row * H + head) * S + s, mask=s < S, other=0.0) / TURN
        phi -= tl.floor(phi)
    else:
        ssm_a = tl.zeros([BLOCK_P, BLOCK_S], tl.float32)
        ssm_b = tl.zeros([BLOCK_P, BLOCK_S], tl.float32)
        ssm_c = ssm_a
        if BLOCK_REST > 0:
            ssm_c = tl.zeros([BLOCK_P, BLOCK_REST], tl.float32)
        phi = tl.zeros([BLOCK_S], tl.float32)
    decayed = 0.0

    ROWS: tl.constexpr = CHUNK * R
    i = tl.arange(0, ROWS)
    time, rank = i // R, i % R
    t = tl.arange(0, CHUNK)
    if R == 1:  # one vector for all frames
        bias_rows, bias_inside = tl.arange(0, 1), tl.arange(0, 1) == 0
    else:
        bias_rows, bias_inside = rank, i >= 0
    bias_rows = (head * R + bias_rows) * N
    if OUTPUTS:
        d_skip = tl.load(d_skip_ptr + head).to(tl.float32)
    weights = (head * R + rank)[:, None] * P + p[None, :]

    first, last = begin // CHUNK, tl.cdiv(tl.minimum(begin + SEGMENT, length), CHUNK)
    for chunk in tl.range(bound(first), bound(last), num_stages=STAGES):
        frame = chunk * CHUNK + time
        inside = frame < length
        here = start * 0 + chunk * CHUNK  # as int64
        if KEEP:
            kept = (chunk_slot + chunk) * H + head
            store_parts(
                kept_ssm_ptr + (kept * P + p) * N,
                inside_p,
                ssm_a,
                ssm_b,
                ssm_c,
                N,
                S,
                BLOCK_S,
                BLOCK_REST,
                ADJACENT,
            )
            if tl.program_id(1) == 0:
                kept_phi = tl.where(phi >= 1, 0.0, phi)
                tl.store(kept_angle_ptr + kept * S + s, kept_phi, mask=s < S)

        dt_here = dt_ptr + here * DT_FRAME + time * DT_FRAME
        trap_here = trap_ptr + here * TRAP_FRAME + time * TRAP_FRAME
        dt = tl.load(dt_here, mask=inside, other=0.0).to(tl.float32)
        trap = tl.load(trap_here, mask=inside, other=0.0).to(tl.float32)
        follows = frame + 1 < length
        next_dt = tl.load(dt_here + DT_FRAME, mask=follows, other=0.0).to(tl.float32)
        next_trap = tl.load(trap_here + TRAP_FRAME, mask=follows, other=0.0).to(tl.float32)
        a_here = a_ptr + here * A_FRAME + time * A_FRAME
        a = tl.load(a_here, mask=inside & (rank == 0), other=0.0).to(tl.float32)
        # time runs along the last axis here: a sum over frames then stays within a warp
        on = chunk * CHUNK + t < length
        half_dt = dt_ptr + here * DT_FRAME + t * DT_FRAME
        half_dt = 0.5 * tl.load(half_dt, mask=on, other=0.0).to(tl.float32)
        rates_here = rates_ptr + here + (s.to(tl.int64) * frames)[:, None] + t[None, :]
        rate = tl.load(rates_here, mask=(s < S)[:, None] & on[None, :], other=0.0)

        value = tl.load(
            v_ptr + here * V_FRAME + (time * V_FRAME)[:, None] + p[None, :],
            mask=inside[:, None] & inside_p[None, :],
            other=0.0,
        ).to(tl.float32)
        k_rows = k_ptr + here * K_FRAME + (time * K_FRAME + rank * (G * N))
        key = load_parts(k_rows, inside, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
        if MIMO:
            x_in = tl.load(mimo_x_ptr + weights, mask=inside_p[None, :], other=0.0)
            value *= x_in.to(tl.float32)

        # rows of further ranks add nothing to the sums over frames
        gamma = sigmoid(trap) * dt
        weight = gamma + sigmoid(-next_trap) * next_dt
        a = tl.minimum(tl.maximum(a * LOG2_E, LEAST_DECAY), 0.0)
        total = tl.sum(a, axis=0)
        if INTERPRETED:  # there the other form is slow
            decay = tl.cumsum(a, axis=0)
        else:
            decay, gamma, weight = tl.associative_scan((a, gamma, weight), 0, add_first)
        # log of what a frame weighs at the start of the chunk
        reach = tl.log2(tl.maximum(weight, 1e-37)) - decay
        step = rate * half_dt[None, :]
        step -= tl.floor(step + 0.5)
        cos, sin = fast_cos_sin(phi[:, None] + tl.cumsum(step, axis=1))
        phi += tl.sum(step, axis=1)
        phi -= tl.floor(phi)
        cos, sin = repeat(tl.trans(cos), R), repeat(tl.trans(sin), R)

        # biases are read again from the cache: the registers are short
        k_bias = load_parts(
            k_bias_ptr + bias_rows, bias_inside, N, S, BLOCK_S, BLOCK_REST, ADJACENT
        )
        key_a, key_b, key_c = turn(key, k_bias, cos, sin)
        key_a, key_b = key_a.to(OPERAND), key_b.to(OPERAND)
        key_c = key_c.to(OPERAND)
        to_end = exp2(tl.minimum(total - decay, 0.0)) * weight
        gain = tl.trans((value * to_end[:, None]).to(OPERAND))

        if OUTPUTS:
            q_rows = q_ptr + here * Q_FRAME + (time * Q_FRAME + rank * (G * N))
            query = load_parts(q_rows, inside, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
            q_bias = load_parts(
                q_bias_ptr + bias_rows, bias_inside, N, S, BLOCK_S, BLOCK_REST, ADJACENT
            )
            query_a, query_b, query_c = turn(query, q_bias, cos, sin)
            query_a, query_b = query_a.to(OPERAND), query_b.to(OPERAND)
            query_c = query_c.to(OPERAND)
            scores = tl.dot(query_a, tl.trans(key_a), input_precision="ieee")
            scores = tl.dot(query_b, tl.trans(key_b), acc=scores, input_precision="ieee")
            old_a, old_b = ssm_a.to(OPERAND), ssm_b.to(OPERAND)
            o = tl.dot(query_a, tl.trans(old_a), input_precision="ieee")
            o = tl.dot(query_b, tl.trans(old_b), acc=o, input_precision="ieee")
            if BLOCK_REST > 0:
                scores = tl.dot(query_c, tl.trans(key_c), acc=scores, input_precision="ieee")
                old_c = ssm_c.to(OPERAND)
                o = tl.dot(query_c, tl.trans(old_c), acc=o, input_precision="ieee")
            o *= exp2(decay)[:, None]
            past = time[:, None] > time[None, :]
            factor = exp2(tl.where(past, decay[:, None] + reach[None, :], -1000.0))
            # gamma itself, not weight minus the share: rounding would leak the next frame in
            factor = tl.where(time[:, None] == time[None, :], gamma[None, :], factor)
            scores = (scores * factor).to(OPERAND)
            o = tl.dot(scores, value.to(OPERAND), acc=o, input_precision="ieee")

        kept_share = exp2(total)
        ssm_a = tl.dot(gain, key_a, acc=ssm_a * kept_share, input_precision="ieee")
        ssm_b = tl.dot(gain, key_b, acc=ssm_b * kept_share, input_precision="ieee")
        if BLOCK_REST > 0:
            ssm_c = tl.dot(gain, key_c, acc=ssm_c * kept_share, input_precision="ieee")
        decayed += total

        if OUTPUTS:
            gate = tl.load(
                z_ptr + here * Z_FRAME + (time * Z_FRAME)[:, None] + p[None, :],
                mask=inside[:, None] & inside_p[None, :],
                other=0.0,
            ).to(tl.float32)
            # again from the cache, for the registers
            value = tl.load(
                v_ptr + here * V_FRAME + (time * V_FRAME)[:, None] + p[None, :],
                mask=inside[:, None] & inside_p[None, :],
                other=0.0,
                cache_modifier=".cg",
            ).to(tl.float32)
            if MIMO:
                x_skip = tl.load(mimo_x_ptr + weights, mask=inside_p[None, :], other=0.0)
                value *= x_skip.to(tl.float32)
            o += d_skip * value
            if MIMO:
                x_gate = tl.load(mimo_z_ptr + weights, mask=inside_p[None, :], other=0.0)
                gate *= x_gate.to(tl.float32)
            if OUT_NORM:  # then BLOCK_P >= P
                o *= tl.rsqrt(tl.sum(o * o, axis=1) / P + EPS)[:, None]
                scale = tl.load(out_norm_ptr + head * P + p, mask=inside_p, other=0.0)
                o *= scale.to(tl.float32)[None, :]
            o *= gate * sigmoid(gate)
            if MIMO:
                x_out = tl.load(mimo_o_ptr + weights, mask=inside_p[None, :], other=0.0)
                o *= x_out.to(tl.float32)
            if R > 1:
                o = tl.sum(tl.reshape(o, (CHUNK, R, BLOCK_P)), axis=1)
            y_inside = (chunk * CHUNK + t < length)[:, None] & inside_p[None, :]
            y_rows = y_ptr + here * (H * P) + (t * (H * P))[:, None]
            tl.store(y_rows + p[None, :], o.to(y_ptr.dtype.element_ty), mask=y_inside)

    if OUTPUTS:
        if begin + SEGMENT >= length:
            place = row * H + head
            store_parts(
                new_ssm_ptr + (place * P + p) * N,
                inside_p,
                ssm_a,
                ssm_b,
                ssm_c,
                N,
                S,
                BLOCK_S,
                BLOCK_REST,
                ADJACENT,
            )
            end = tl.maximum(length - 1, 0).to(tl.int64)
            last_v = tl.load(v_ptr + end * V_FRAME + p, mask=inside_p & (length > 0), other=0.0)
            last_v = last_v.to(tl.float32)
            if PACKED:  # an empty sequence leaves its state as it is
                old_v = tl.load(old_v_ptr + place * P + p, mask=inside_p, other=0.0)
                last_v = tl.where(length > 0, last_v, old_v)
            tl.store(new_v_ptr + place * P + p, last_v, mask=inside_p)
            if tl.program_id(1) == 0:
                r = tl.arange(0, R)
                ranks = (head * R + r) * N
                cos, sin = fast_cos_sin(phi)
                key = load_parts(
                    k_ptr + end * K_FRAME + r * (G * N),
                    (r >= 0) & (length > 0),
                    N,
                    S,
                    BLOCK_S,
                    BLOCK_REST,
                    ADJACENT,
                )
                bias = load_parts(k_bias_ptr + ranks, r >= 0, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
                key_a, key_b, key_c = turn(key, bias, cos[None, :], sin[None, :])
                angle = tl.minimum(tl.where(phi >= 1, 0.0, phi) * TURN, BELOW_TURN)
                k_place = ((row * R + r) * H + head) * N
                if PACKED:
                    old = load_parts(
                        old_k_ptr + k_place, r >= 0, N, S, BLOCK_S, BLOCK_REST, ADJACENT
                    )
                    key_a = tl.where(length > 0, key_a, old[0])
                    key_b = tl.where(length > 0, key_b, old[1])
                    key_c = tl.where(length > 0, key_c, old[2])
                    old_angle = tl.load(angle_ptr + place * S + s, mask=s < S, other=0.0)
                    angle = tl.where(length > 0, angle, old_angle)
                tl.store(new_angle_ptr + place * S + s, angle, mask=s < S)
                store_parts(
                    new_k_ptr + k_place,
                    r >= 0,
                    key_a,
                    key_b,
                    key_c,
                    N,
                    S,
                    BLOCK_S,
                    BLOCK_REST,
                    ADJACENT,
                )
    else:
        tl.store(part_rows + s[None, :], ssm_a, mask=inside_p[:, None])
        tl.store(part_rows + BLOCK_S + s[None, :], ssm_b, mask=inside_p[:, None])
        if BLOCK_REST > 0:
            j = 2 * BLOCK_S + tl.arange(0, BLOCK_REST)
            tl.store(part_rows + j[None, :], ssm_c, mask=inside_p[:, None])
        if tl.program_id(1) == 0:
            tl.store(part_angle_ptr + part * S + s, phi, mask=s < S)
            tl.store(part_decay_ptr + part, decayed)


@triton.jit
def join_kernel(
    dt_ptr,
    trap_ptr,
    borders_ptr,
    mimo_x_ptr,
    angle_ptr,
    ssm_ptr,
    old_k_ptr,
    old_v_ptr,
    # what every segment adds
    part_ssm_ptr,
    part_angle_ptr,
    part_decay_ptr,
    # what every segment starts from
    start_ssm_ptr,
    start_angle_ptr,
    dt_row,
    trap_row,
    dt_frame,
    trap_frame,
    frames,
    segments,
    heads,
    P: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
    R: tl.constexpr,
    ADJACENT: tl.constexpr,
    MIMO: tl.constexpr,
    PACKED: tl.constexpr,
    SEGMENT: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    head, row = program % heads, program // heads
    if PACKED:
        start = tl.load(borders_ptr + row).to(tl.int64)
        length = (tl.load(borders_ptr + row + 1) - start).to(tl.int32)
        slot = start // SEGMENT + row
        dt_ptr += start * dt_frame
        trap_ptr += start * trap_frame
    else:
        length = frames
        slot = row * segments
        dt_ptr += row * dt_row
        trap_ptr += row * trap_row
    p = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = (p < P)[:, None]
    a, b, c = first_state(
        ssm_ptr,
        old_k_ptr,
        old_v_ptr,
        dt_ptr + head,
        trap_ptr + head,
        mimo_x_ptr,
        length > 0,
        row,
        head,
        heads,
        p,
        P,
        N,
        S,
        R,
        MIMO,
        BLOCK_S,
        BLOCK_REST,
        ADJACENT,
    )
    s = tl.arange(0, BLOCK_S)
    phi = tl.load(angle_ptr + (row * heads + head) * S + s, mask=s < S, other=0.0) / TURN
    phi -= tl.floor(phi)
    WIDTH: tl.constexpr = 2 * BLOCK_S + BLOCK_REST
    count = tl.maximum(tl.cdiv(length, SEGMENT), 1)
    for segment in tl.range(0, bound(count)):
        part = (slot + segment) * heads + head
        place = (part * P + p)[:, None] * WIDTH
        tl.store(start_ssm_ptr + place + s[None, :], a, mask=inside)
        tl.store(start_ssm_ptr + place + BLOCK_S + s[None, :], b, mask=inside)
        if BLOCK_REST > 0:
            j = 2 * BLOCK_S + tl.arange(0, BLOCK_REST)[None, :]
            tl.store(start_ssm_ptr + place + j, c, mask=inside)
        if tl.program_id(1) == 0:
            tl.store(start_angle_ptr + part * S + s, phi, mask=s < S)
        more = segment + 1 < count  # the last one's part was not made
        share = exp2(tl.load(part_decay_ptr + part, mask=more, other=0.0))
        cos, sin = fast_cos_sin(phi)
        cos, sin = cos[None, :], sin[None, :]
        x = tl.load(part_ssm_ptr + place + s[None, :], mask=inside & more, other=0.0)
        y = tl.load(part_ssm_ptr + place + BLOCK_S + s[None, :], mask=inside & more, other=0.0)
        a = a * share + x * cos - y * sin
        b = b * share + x * sin + y * cos
        if BLOCK_REST > 0:
            c = c * share + tl.load(part_ssm_ptr + place + j, mask=inside & more, other=0.0)
        phi += tl.load(part_angle_ptr + part * S + s, mask=(s < S) & more, other=0.0)
        phi -= tl.floor(phi)


def choose_config(itemsize: int, rank: int, d_state: int) -> ScanConfig:
    """Return the layout for operands of ``itemsize`` bytes, from ``CONFIGS``."""
    table = CONFIGS[itemsize]
    return next(config for (r, n), config in table.items() if rank <= r and d_state <= n)


def whole_frames(x: Tensor) -> Tensor:
    """Return ``x`` with every frame contiguous; frames may lie apart, as slices do."""
    return x if x[:1, :1].is_contiguous() else x.contiguous()


def launch_forward(
    x: SsmInputs,
    params: SsmParams,
    state: SsmState,
    pairing: Pairing,
    *,
    borders: Tensor | None = None,
    keep: bool = False,
    config: ScanConfig | None = None,
) -> tuple[Tensor, SsmState, Kept | None]:
    """Run the scan; shapes as in ``ssm_scan``.

    Args:
        x: frames, of float32, bfloat16 or float16.
        params: small parameters.
        state: float32, a row per sequence.
        pairing: pairs that rotate.
        borders: (n + 1,) int64, of sequences packed in one row.
        keep: whether the state before every chunk of ``ScanLayout`` is wanted.
        config: a layout other than the shipped one.
    Returns:
        y: (B, L, H, P), dtype of ``v``; the state after the last frame, float32; and what was kept.
    """
    batch, frames, rank, groups, d_state = x.q.shape
    heads, head_dim = x.v.shape[2:]
    num_angles, device = state.angle.shape[-1], x.v.device
    rows = batch if borders is None else len(borders) - 1
    narrow = torch.float32 not in (x.q.dtype, x.k.dtype, x.v.dtype)
    itemsize = 2 if narrow else 4
    if config is None:
        config = choose_config(itemsize, rank, d_state)
    chunk = chunk_frames(rank, itemsize) if keep else max(1, config.rows // rank)
    layout = ScanLayout(rows, frames, chunk, borders is not None)
    # half turns per unit of dt, once for all heads, time along the last axis
    rates = torch.tanh(x.angles.permute(0, 2, 3, 1).float().contiguous())
    x = SsmInputs._make(whole_frames(part) for part in x)
    params = SsmParams._make(None if part is None else part.contiguous() for part in params)
    state = SsmState._make(part.contiguous() for part in state)

    y = torch.empty(x.v.shape, dtype=x.v.dtype, device=device)
    new_state = SsmState._make(torch.empty_like(part) for part in state)
    kept = None
    if keep:
        kept = Kept(
            torch.empty(
                layout.slots,
                heads,
                head_dim,
                d_state,
                dtype=torch.bfloat16 if narrow else torch.float32,
                device=device,
            ),
            torch.empty(layout.slots, heads, num_angles, device=device),
        )
    if rows == 0:
        return y, new_state, kept

    block_s = max(16, triton.next_power_of_2(num_angles))
    rest = d_state - 2 * num_angles
    block_rest = max(16, triton.next_power_of_2(rest)) if rest else 0
    whole = max(16, triton.next_power_of_2(head_dim))
    block_p = whole if params.out_norm is not None else min(config.block_p, whole)
    segment = -(-max(config.segment * heads, chunk) // chunk) * chunk
    parts = ScanLayout(rows, frames, segment, borders is not None)
    cut = frames > segment
    nothing = params.d_skip  # stands for what the variant hasn't
    borders_or_not = nothing if borders is None else borders
    sizes = {
        "P": head_dim,
        "N": d_state,
        "S": num_angles,
        "R": rank,
        "ADJACENT": pairing == "adjacent",
        "MIMO": params.mimo_x is not None,
        "PACKED": borders is not None,
        "SEGMENT": segment,
        "BLOCK_S": block_s,
        "BLOCK_REST": block_rest,
    }
    distances = {
        f"{label}_FRAME": part.stride(1)
        for label, part in zip(("Q", "K", "V", "Z", "DT", "A", "TRAP"), x[:7], strict=True)
    }
    # the interpreter has no products of bfloat16
    operand = tl.bfloat16 if narrow and not triton.knobs.runtime.interpret else tl.float32

    def walk(made: tuple[Tensor, ...], *, outputs: bool) -> None:
        walk_kernel[(parts.slots * heads, triton.cdiv(head_dim, block_p))](
            *x[:7],
            rates,
            borders_or_not,
            *(nothing if part is None else part for part in params),
            *state,
            *new_state,
            *made,
            *(kept or (nothing, nothing)),
            y,
            *(part.stride(0) for part in x[:7]),
            rows,
            frames,
            parts.chunks_per_row,
            **sizes,
            **distances,
            H=heads,
            G=groups,
            RATE_HEADS=x.angles.shape[2],
            OUT_NORM=params.out_norm is not None,
            CHUNK=chunk,
            CUT=cut,
            OUTPUTS=outputs,
            KEEP=keep and outputs,
            BLOCK_P=block_p,
            OPERAND=operand,
            STAGES=config.num_stages,
            num_warps=config.num_warps,
            maxnreg=config.registers,
        )

    with torch.cuda.device_of(y):
        if not cut:
            walk((nothing,) * 3, outputs=True)
            return y, new_state, kept
        width = 2 * block_s + block_rest
        part_ssm, start_ssm = torch.empty(
            2, parts.slots, heads, head_dim, width, device=device
        ).unbind()
        part_angle, start_angle = torch.empty(
            2, parts.slots, heads, num_angles, device=device
        ).unbind()
        part_decay = torch.empty(parts.slots, heads, device=device)
        walk((part_ssm, part_angle, part_decay), outputs=False)
        block_p_joined = 16
        join_kernel[(rows * heads, triton.cdiv(head_dim, block_p_joined))](
            x.dt,
            x.trap,
            borders_or_not,
            nothing if params.mimo_x is None else params.mimo_x,
            *state,
            part_ssm,
            part_angle,
            part_decay,
            start_ssm,
            start_angle,
            x.dt.stride(0),
            x.trap.stride(0),
            x.dt.stride(1),
            x.trap.stride(1),
            frames,
            parts.chunks_per_row,
            heads,
            **sizes,
            BLOCK_P=block_p_joined,
            num_warps=4,
        )
        walk((start_ssm, start_angle, part_decay), outputs=True)
    return y, new_state, kept
