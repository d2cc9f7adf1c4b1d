"""What the state answers, once more, and the gradients behind it: chunk by chunk, head by head."""

import triton
import triton.language as tl

from audiossm_kernels.ssm_scan.triton_parts import load_rows
from audiossm_kernels.ssm_scan.triton_pieces import (
    find_chunk,
    inner,
    load_turns,
    load_values,
    load_vectors,
    operand,
)
from audiossm_kernels.triton_math import exp2, sigmoid

__all__ = ["gate_kernel", "outputs_kernel"]

EPS = tl.constexpr(1e-5)


@triton.jit
def outputs_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    q_bias_ptr,
    k_bias_ptr,
    d_skip_ptr,
    mimo_x_ptr,
    turns_ptr,
    steps_ptr,
    ssm_ptr,
    borders_ptr,
    outputs_ptr,
    q_frame: tl.constexpr,
    k_frame: tl.constexpr,
    v_frame: tl.constexpr,
    rows,
    frames,
    heads: tl.constexpr,
    G: tl.constexpr,
    P: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    ADJACENT: tl.constexpr,
    MIMO: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ROUND: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """Make a head's answers again."""
    place = tl.program_id(0).to(tl.int64)
    head, slot = place % heads, place // heads
    group = head // (heads // G)
    _, start, _, left = find_chunk(borders_ptr, slot, rows, frames, C, PACKED)
    if left <= 0:  # a slot that packing left free
        return
    i = tl.arange(0, C * R)
    time, rank = i // R, i % R
    inside = time < left
    frame = start * heads + head
    cos, sin = load_turns(
        turns_ptr + place * (C * 2 * BLOCK_S) + time * (2 * BLOCK_S), BLOCK_S, ADJACENT
    )
    key = load_vectors(
        k_ptr + start * k_frame + group * N + (time * k_frame + rank * (G * N)), inside,
        k_bias_ptr + head * (R * N), cos, sin, rank,
        R, N, S, BLOCK_S, BLOCK_REST, ADJACENT, ROUND, OPERAND,
    )  # fmt: skip
    query = load_vectors(
        q_ptr + start * q_frame + group * N + (time * q_frame + rank * (G * N)), inside,
        q_bias_ptr + head * (R * N), cos, sin, rank,
        R, N, S, BLOCK_S, BLOCK_REST, ADJACENT, ROUND, OPERAND,
    )  # fmt: skip
    scores = inner(query, key, BLOCK_REST, ADJACENT)
    steps = steps_ptr + place * (4 * C) + time
    decay, gamma, weight = tl.load(steps), tl.load(steps + C), tl.load(steps + 2 * C)
    past = time[:, None] > time[None, :]
    factor = exp2(tl.minimum(decay[:, None] - decay[None, :], 0.0))
    # gamma itself beside the diagonal, not weight minus the share: that leaks rounding
    factor *= tl.where(past, weight[None, :], gamma[None, :])
    factor = tl.where(time[:, None] >= time[None, :], factor, 0.0)
    weighted = operand(scores * factor, ROUND, OPERAND)
    d_skip = tl.load(d_skip_ptr + head).to(tl.float32)
    for block in tl.range(0, tl.cdiv(P, BLOCK_P)):
        p = block * BLOCK_P + tl.arange(0, BLOCK_P)
        inside_p = p < P
        inside_v = inside[:, None] & inside_p[None, :]
        state = load_rows(
            ssm_ptr + place * (P * N) + p * N, inside_p, N, S, BLOCK_S, BLOCK_REST, ADJACENT
        )
        state = state[0].to(OPERAND), state[1].to(OPERAND), state[2].to(OPERAND)
        value = load_values(
            v_ptr + start * v_frame + head * P + time * v_frame,
            mimo_x_ptr + head * (R * P),
            rank,
            p,
            inside_v,
            P,
            MIMO,
        )[1]
        value = operand(value, ROUND, OPERAND)
        o = inner(query, state, BLOCK_REST, ADJACENT) * exp2(decay)[:, None]
        o = tl.dot(weighted, value, acc=o, input_precision="ieee")
        o += d_skip * value.to(tl.float32)
        at = (time * (heads * R * P) + rank * P)[:, None] + p[None, :]
        o = o.to(outputs_ptr.dtype.element_ty)
        tl.store(outputs_ptr + frame * (R * P) + at, o, mask=inside_v)


@triton.jit
def gate_kernel(
    z_ptr,
    mimo_z_ptr,
    mimo_o_ptr,
    out_norm_ptr,
    dy_ptr,
    borders_ptr,
    outputs_ptr,
    answers_ptr,
    dz_ptr,
    dmimo_z_ptr,
    dmimo_o_ptr,
    dout_norm_ptr,
    z_frame: tl.constexpr,
    rows,
    frames,
    heads: tl.constexpr,
    P: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    MIMO: tl.constexpr,
    NORMED: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Store the gradients behind a head's answers, and the answers' own; rank by rank."""
    place = tl.program_id(0).to(tl.int64)
    head, slot = place % heads, place // heads
    _, start, _, left = find_chunk(borders_ptr, slot, rows, frames, C, PACKED)
    if left <= 0:
        return
    frame = start * heads + head
    c, p = tl.arange(0, C), tl.arange(0, BLOCK_P)
    inside_p = p < P
    inside = (c < left)[:, None] & inside_p[None, :]
    z_at = start * z_frame + head * P + (c * z_frame)[:, None] + p[None, :]
    raw = tl.load(z_ptr + z_at, mask=inside, other=0.0).to(tl.float32)
    y_at = frame * P + (c * (heads * P))[:, None] + p[None, :]
    dy = tl.load(dy_ptr + y_at, mask=inside, other=0.0).to(tl.float32)
    gate, out = raw, dy
    dz = tl.zeros([C, BLOCK_P], tl.float32)
    if NORMED:
        scale = tl.load(out_norm_ptr + head * P + p, mask=inside_p, other=0.0).to(tl.float32)
        dscale = tl.zeros([BLOCK_P], tl.float32)
    for rank in tl.static_range(R):
        at = frame * (R * P) + (c * (heads * R * P))[:, None] + (rank * P + p)[None, :]
        o = tl.load(outputs_ptr + at, mask=inside, other=0.0).to(tl.float32)
        weights = (head * R + rank) * P + p
        if MIMO:
            x_gate = tl.load(mimo_z_ptr + weights, mask=inside_p, other=0.0).to(tl.float32)[None, :]
            x_out = tl.load(mimo_o_ptr + weights, mask=inside_p, other=0.0).to(tl.float32)[None, :]
            gate, out = raw * x_gate, dy * x_out
        slope = sigmoid(gate)
        opened = gate * slope  # silu
        slope += opened * (1 - slope)
        answer = out * opened
        if NORMED:
            inverse = tl.rsqrt(tl.sum(o * o, axis=1) / P + EPS)[:, None]
            normed = o * inverse
            o = normed * scale[None, :]
            dscale += tl.sum(answer * normed, axis=0)
            answer *= scale[None, :]
            mean = tl.sum(answer * normed, axis=1)[:, None] / P
            answer = (answer - normed * mean) * inverse
        tl.store(answers_ptr + at, answer.to(answers_ptr.dtype.element_ty), mask=inside)
        through = out * o * slope
        if MIMO:
            weights = (place * R + rank) * P + p
            tl.store(dmimo_o_ptr + weights, tl.sum(dy * o * opened, axis=0), mask=inside_p)
            tl.store(dmimo_z_ptr + weights, tl.sum(through * raw, axis=0), mask=inside_p)
            through *= x_gate
        dz += through
    tl.store(dz_ptr + y_at, dz.to(dz_ptr.dtype.element_ty), mask=inside)
    if NORMED:
        tl.store(dout_norm_ptr + place * P + p, dscale, mask=inside_p)
