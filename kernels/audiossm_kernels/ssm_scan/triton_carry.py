"""The gradient of the state between chunks: a walk from the last to the first."""

import triton
import triton.language as tl

from audiossm_kernels.ssm_scan.triton_parts import (
    load_parts,
    store_parts,
)
from audiossm_kernels.ssm_scan.triton_pieces import (
    add_mix,
    load_answers,
    load_decay,
    load_turns,
    load_vectors,
    operand,
)
from audiossm_kernels.triton_math import (
    bound,
    exp2,
)

__all__ = ["carry_kernel"]


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
