"""The gradient of the state between chunks: a walk from the last to the first."""

import triton
import triton.language as tl

from audiossm_kernels.ssm_scan.triton_parts import load_rows, store_rows
from audiossm_kernels.ssm_scan.triton_pieces import (
    add_mix,
    load_turns,
    load_vectors,
    operand,
)
from audiossm_kernels.triton_math import bound, exp2

__all__ = ["carry_kernel"]


@triton.jit
def carry_kernel(
    q_ptr,
    q_bias_ptr,
    answers_ptr,
    turns_ptr,
    steps_ptr,
    total_ptr,
    borders_ptr,
    last_ptr,
    # gradient of the state after every chunk, and of the one before the first
    carry_ptr,
    first_ptr,
    q_frame: tl.constexpr,
    frames,
    heads: tl.constexpr,
    G: tl.constexpr,
    P: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    ADJACENT: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ROUND: tl.constexpr,
    OPERAND: tl.constexpr,
    STAGES: tl.constexpr,
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
    q_ptr += begin * q_frame + group * N
    answers_ptr += (begin * heads + head) * (R * P)

    i = tl.arange(0, C * R)
    time, rank = i // R, i % R
    p = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside_p = p < P
    place = row * heads + head
    carry = load_rows(
        last_ptr + place * (P * N) + p * N, inside_p, N, S, BLOCK_S, BLOCK_REST, ADJACENT
    )
    carry_a, carry_b, carry_c = carry
    for back in tl.range(0, bound(count), num_stages=STAGES):
        chunk = (count - 1 - back).to(tl.int64)
        here = chunk * C
        place = (slot + chunk) * heads + head
        store_rows(
            carry_ptr + place * (P * N) + p * N, inside_p, (carry_a, carry_b, carry_c),
            N, S, BLOCK_S, BLOCK_REST, ADJACENT,
        )  # fmt: skip
        inside = time < length - here.to(tl.int32)
        total = exp2(tl.load(total_ptr + place))
        decay = tl.load(steps_ptr + place * (4 * C) + time)
        cos, sin = load_turns(
            turns_ptr + place * (C * 2 * BLOCK_S) + time * (2 * BLOCK_S), BLOCK_S, ADJACENT
        )
        query = load_vectors(
            q_ptr + here * q_frame + (time * q_frame + rank * (G * N)), inside,
            q_bias_ptr + head * (R * N), cos, sin, rank,
            R, N, S, BLOCK_S, BLOCK_REST, ADJACENT, OPERAND,
        )  # fmt: skip
        at = here * (heads * R * P) + (time * (heads * R * P) + rank * P)[:, None] + p[None, :]
        mask = inside[:, None] & inside_p[None, :]
        answer = tl.load(answers_ptr + at, mask=mask, other=0.0).to(tl.float32)
        answer = tl.trans(operand(answer * exp2(decay)[:, None], ROUND, OPERAND))
        carry_a, carry_b, carry_c = add_mix(
            (carry_a * total, carry_b * total, carry_c * total), answer, query,
            BLOCK_REST, ADJACENT,
        )  # fmt: skip
    place = row * heads + head
    store_rows(
        first_ptr + place * (P * N) + p * N, inside_p, (carry_a, carry_b, carry_c),
        N, S, BLOCK_S, BLOCK_REST, ADJACENT,
    )  # fmt: skip
