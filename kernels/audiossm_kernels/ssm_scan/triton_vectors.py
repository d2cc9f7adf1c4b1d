"""The gradients of the queries or keys of a chunk and head, on all ways but the turn's own."""

import triton
import triton.language as tl

from audiossm_kernels.ssm_scan.triton_parts import load_rows
from audiossm_kernels.ssm_scan.triton_pieces import (
    add_mix,
    find_chunk,
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
    states_ptr,
    answers_ptr,
    borders_ptr,
    gradient_ptr,
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
    KEYS: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ROUND: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """Store a head's dq, or with KEYS dk, and their part in the gradients of decays and angles.

    ``states_ptr`` has the state before every chunk, with KEYS the gradient of the one after it.
    Rows of the scores are queries, with KEYS keys.
    """
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
    scores = tl.zeros([C * R, C * R], tl.float32)
    grad_a, grad_b, grad_c = zero_rows(C * R, BLOCK_S, BLOCK_REST, ADJACENT)
    for block in tl.range(0, tl.cdiv(P, BLOCK_P)):
        p = block * BLOCK_P + tl.arange(0, BLOCK_P)
        inside_p = p < P
        inside_v = inside[:, None] & inside_p[None, :]
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
        at = (time * (heads * R * P) + rank * P)[:, None] + p[None, :]
        answers = tl.load(answers_ptr + frame * (R * P) + at, mask=inside_v, other=0.0).to(OPERAND)
        state = load_rows(
            states_ptr + place * (P * N) + p * N, inside_p, N, S, BLOCK_S, BLOCK_REST, ADJACENT
        )
        state = state[0].to(OPERAND), state[1].to(OPERAND), state[2].to(OPERAND)
        if KEYS:
            scores = tl.dot(value, tl.trans(answers), acc=scores, input_precision="ieee")
            weights = value
        else:
            scores = tl.dot(answers, tl.trans(value), acc=scores, input_precision="ieee")
            weights = answers
        grad_a, grad_b, grad_c = add_mix(
            (grad_a, grad_b, grad_c), weights, state, BLOCK_REST, ADJACENT
        )
    steps = steps_ptr + place * (4 * C) + time
    decay, gamma, weight = tl.load(steps), tl.load(steps + C), tl.load(steps + 2 * C)
    if KEYS:
        fade = exp2(tl.minimum(decay[None, :] - decay[:, None], 0.0))
        fade = tl.where(time[None, :] >= time[:, None], fade, 0.0)
        fade *= tl.where(time[None, :] > time[:, None], weight[:, None], gamma[:, None])
        faded = (tl.load(steps + 3 * C) * weight)[:, None]
    else:
        fade = exp2(tl.minimum(decay[:, None] - decay[None, :], 0.0))
        fade = tl.where(time[:, None] >= time[None, :], fade, 0.0)
        fade *= tl.where(time[:, None] > time[None, :], weight[None, :], gamma[None, :])
        faded = exp2(decay)[:, None]
    scores = operand(scores * fade, ROUND, OPERAND)
    tl.debug_barrier()
    cos, sin = load_turns(
        turns_ptr + place * (C * 2 * BLOCK_S) + time * (2 * BLOCK_S), BLOCK_S, ADJACENT
    )
    k_rows = k_ptr + start * k_frame + group * N + (time * k_frame + rank * (G * N))
    q_rows = q_ptr + start * q_frame + group * N + (time * q_frame + rank * (G * N))
    k_bias_ptr += head * (R * N)
    q_bias_ptr += head * (R * N)
    if KEYS:
        own_rows, own_bias, other_rows, other_bias = k_rows, k_bias_ptr, q_rows, q_bias_ptr
    else:
        own_rows, own_bias, other_rows, other_bias = q_rows, q_bias_ptr, k_rows, k_bias_ptr
    other = load_vectors(
        other_rows, inside, other_bias, cos, sin, rank,
        R, N, S, BLOCK_S, BLOCK_REST, ADJACENT, ROUND, OPERAND,
    )  # fmt: skip
    grad = add_mix(
        (grad_a * faded, grad_b * faded, grad_c * faded), scores, other, BLOCK_REST, ADJACENT
    )
    tl.debug_barrier()  # keeps loads below from being made early, whose registers the products need
    cos, sin = load_turns(
        turns_ptr + place * (C * 2 * BLOCK_S) + time * (2 * BLOCK_S), BLOCK_S, ADJACENT
    )
    own = load_vectors(
        own_rows, inside, own_bias, cos, sin, rank,
        R, N, S, BLOCK_S, BLOCK_REST, ADJACENT, ROUND, OPERAND,
    )  # fmt: skip
    turned, product = store_back(
        gradient_ptr + frame * (R * N) + (time * (heads * R * N) + rank * N), inside, grad, own,
        cos, sin, C, R, N, S, BLOCK_S, BLOCK_REST, ADJACENT,
    )  # fmt: skip
    c, s = tl.arange(0, C), tl.arange(0, BLOCK_S)
    if R > 1:
        product = tl.sum(tl.reshape(product, (C, R)), axis=1)
    tl.store(decays_ptr + place * C + c, -product if KEYS else product)
    at = place * (C * S) + (c * S)[:, None] + s[None, :]
    tl.store(turned_ptr + at, turned, mask=(s < S)[None, :])
