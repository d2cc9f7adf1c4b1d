"""The gradients of the queries and keys of a chunk and head, on all ways but the turn's own."""

import triton
import triton.language as tl

from audiossm_kernels.ssm_scan.triton_pieces import (
    add_mix,
    find_chunk,
    load_state,
    load_turns,
    load_values,
    load_vectors,
    operand,
    store_back,
    zero_rows,
)
from audiossm_kernels.triton_math import exp2

__all__ = ["vectors_kernel"]


@triton.jit
def vectors_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    q_bias_ptr,
    k_bias_ptr,
    mimo_x_ptr,
    turns_ptr,
    steps_ptr,
    # state before every chunk, and the gradient of the one after it
    ssm_ptr,
    carry_ptr,
    answers_ptr,
    borders_ptr,
    dq_ptr,
    dk_ptr,
    decays_ptr,
    turned_ptr,
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
    """Store a head's dq and dk, and their part in the gradients of decays and angles."""
    place = tl.program_id(0).to(tl.int64)
    head, slot = place % heads, place // heads
    group = head // (heads // G)
    _, start, _, left = find_chunk(borders_ptr, slot, rows, frames, C, PACKED)
    if left <= 0:
        return
    i = tl.arange(0, C * R)
    time, rank = i // R, i % R
    inside = time < left
    frame = start * heads + head
    v_rows = v_ptr + start * v_frame + head * P + time * v_frame
    answers_rows = answers_ptr + frame * (R * P) + (time * (heads * R * P) + rank * P)
    turns_rows = turns_ptr + place * (C * 2 * BLOCK_S) + time * (2 * BLOCK_S)
    k_rows = k_ptr + start * k_frame + group * N + (time * k_frame + rank * (G * N))
    q_rows = q_ptr + start * q_frame + group * N + (time * q_frame + rank * (G * N))
    mimo_x_ptr += head * (R * P)
    k_bias_ptr += head * (R * N)
    q_bias_ptr += head * (R * N)

    scores = tl.zeros([C * R, C * R], tl.float32)
    grad = zero_rows(C * R, BLOCK_S, BLOCK_REST, ADJACENT)
    for block in tl.range(0, tl.cdiv(P, BLOCK_P)):
        p = block * BLOCK_P + tl.arange(0, BLOCK_P)
        inside_p = p < P
        inside_v = inside[:, None] & inside_p[None, :]
        value = load_values(
            v_rows, mimo_x_ptr, p, inside_v, C, R, P, BLOCK_P, MIMO, ROUND, OPERAND
        )[1]
        answers = tl.load(answers_rows[:, None] + p[None, :], mask=inside_v, other=0.0)
        answers = answers.to(OPERAND)
        state = load_state(ssm_ptr, place, p, P, N, S, BLOCK_S, BLOCK_REST, ADJACENT, OPERAND)
        scores = tl.dot(answers, tl.trans(value), acc=scores, input_precision="ieee")
        grad = add_mix(grad, answers, state, BLOCK_REST, ADJACENT)
    steps = steps_ptr + place * (4 * C) + time
    decay, gamma, weight = tl.load(steps), tl.load(steps + C), tl.load(steps + 2 * C)
    fade = exp2(tl.minimum(decay[:, None] - decay[None, :], 0.0))
    fade = tl.where(time[:, None] >= time[None, :], fade, 0.0)
    fade *= tl.where(time[:, None] > time[None, :], weight[None, :], gamma[None, :])
    scores = operand(scores * fade, ROUND, OPERAND)
    faded = exp2(decay)[:, None]
    tl.debug_barrier()
    cos, sin = load_turns(turns_rows, BLOCK_S, ADJACENT)
    key = load_vectors(
        k_rows, inside, k_bias_ptr, cos, sin, rank,
        R, N, S, BLOCK_S, BLOCK_REST, ADJACENT, OPERAND,
    )  # fmt: skip
    grad = add_mix(
        (grad[0] * faded, grad[1] * faded, grad[2] * faded), scores, key, BLOCK_REST, ADJACENT
    )
    tl.debug_barrier()  # keeps loads below from being made early, whose registers the products need
    turned, product, rest = store_back(
        q_ptr + start * q_frame + group * N, q_frame, q_bias_ptr,
        turns_ptr + place * (C * 2 * BLOCK_S), dq_ptr + frame * (R * N), heads * R * N,
        left, grad, C, G, R, N, S, BLOCK_S, BLOCK_REST, ADJACENT, OPERAND,
    )  # fmt: skip

    tl.debug_barrier()
    grad = zero_rows(C * R, BLOCK_S, BLOCK_REST, ADJACENT)
    for block in tl.range(0, tl.cdiv(P, BLOCK_P)):
        p = block * BLOCK_P + tl.arange(0, BLOCK_P)
        inside_v = inside[:, None] & (p < P)[None, :]
        value = load_values(
            v_rows, mimo_x_ptr, p, inside_v, C, R, P, BLOCK_P, MIMO, ROUND, OPERAND
        )[1]
        carry = load_state(carry_ptr, place, p, P, N, S, BLOCK_S, BLOCK_REST, ADJACENT, OPERAND)
        grad = add_mix(grad, value, carry, BLOCK_REST, ADJACENT)
    steps = steps_ptr + place * (4 * C) + time
    faded = (tl.load(steps + 3 * C) * tl.load(steps + 2 * C))[:, None]
    tl.debug_barrier()
    cos, sin = load_turns(turns_rows, BLOCK_S, ADJACENT)
    query = load_vectors(
        q_rows, inside, q_bias_ptr, cos, sin, rank,
        R, N, S, BLOCK_S, BLOCK_REST, ADJACENT, OPERAND,
    )  # fmt: skip
    grad = add_mix(
        (grad[0] * faded, grad[1] * faded, grad[2] * faded), tl.trans(scores), query,
        BLOCK_REST, ADJACENT,
    )  # fmt: skip
    tl.debug_barrier()
    k_turned, k_product, k_rest = store_back(
        k_ptr + start * k_frame + group * N, k_frame, k_bias_ptr,
        turns_ptr + place * (C * 2 * BLOCK_S), dk_ptr + frame * (R * N), heads * R * N,
        left, grad, C, G, R, N, S, BLOCK_S, BLOCK_REST, ADJACENT, OPERAND,
    )  # fmt: skip
    c, s = tl.arange(0, C), tl.arange(0, BLOCK_S)
    # one sum of both would have the compiler make the rest's again as the pairs' are made
    decays = decays_ptr + place * (2 * C) + c
    tl.store(decays, product - k_product)
    if BLOCK_REST > 0:
        tl.store(decays + C, rest - k_rest)
    at = place * (C * S) + (c * S)[:, None] + s[None, :]
    tl.store(turned_ptr + at, turned + k_turned, mask=(s < S)[None, :])
