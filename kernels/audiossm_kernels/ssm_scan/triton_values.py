"""The gradients of the values and weights of a chunk and head, and of all decays after it."""

import triton
import triton.language as tl

from audiossm_kernels.ssm_scan.triton_parts import load_rows, unmerge
from audiossm_kernels.ssm_scan.triton_pieces import (
    find_chunk,
    inner,
    load_ranks,
    load_turns,
    load_values,
    load_vectors,
    operand,
    over_frames,
    over_ranks,
)
from audiossm_kernels.triton_math import exp2, widen

__all__ = ["values_kernel"]


@triton.jit
def values_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    q_bias_ptr,
    k_bias_ptr,
    mimo_x_ptr,
    turns_ptr,
    steps_ptr,
    # state before every chunk, and after the last ones; gradient of the one after every chunk
    ssm_ptr,
    end_ptr,
    carry_ptr,
    answers_ptr,
    last_ptr,
    borders_ptr,
    d_skip_ptr,
    dv_ptr,
    dd_skip_ptr,
    dmimo_x_ptr,
    dgamma_ptr,
    dweight_ptr,
    late_ptr,
    dtotal_ptr,
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
    """Store the gradients of a head's values and weights, and the border's of decays and angles.

    Rows of the scores are keys.
    """
    place = tl.program_id(0).to(tl.int64)
    head, slot = place % heads, place // heads
    group = head // (heads // G)
    row, start, _, left = find_chunk(borders_ptr, slot, rows, frames, C, PACKED)
    if left <= 0:  # a slot that packing left free
        return
    i = tl.arange(0, C * R)
    time, rank = i // R, i % R
    c, s = tl.arange(0, C), tl.arange(0, BLOCK_S)
    inside = time < left
    frame = start * heads + head
    end = row * heads + head
    # what the state handed on adds to the gradients of all decays and angles before it
    after_ptr = tl.where(left > C, ssm_ptr + (place + heads) * (P * N), end_ptr + end * (P * N))
    same = tl.zeros([BLOCK_P], tl.float32)
    late = tl.load(last_ptr + end * S + s, mask=s < S, other=0.0)
    for block in tl.range(0, tl.cdiv(P, BLOCK_P)):
        p = block * BLOCK_P + tl.arange(0, BLOCK_P)
        here = carry_ptr + place * (P * N) + p * N
        carry = load_rows(here, p < P, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
        after = load_rows(after_ptr + p * N, p < P, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
        carry_a, carry_b = unmerge(widen(carry[0]), widen(carry[1]), ADJACENT)
        after_a, after_b = unmerge(widen(after[0]), widen(after[1]), ADJACENT)
        same += tl.sum(carry_a * after_a + carry_b * after_b, axis=1)
        late -= tl.sum(carry_b * after_a - carry_a * after_b, axis=0)
        if BLOCK_REST > 0:
            same += tl.sum(widen(carry[2]) * widen(after[2]), axis=1)
    tl.store(late_ptr + place * S + s, late, mask=s < S)
    tl.store(dtotal_ptr + place, tl.sum(same, axis=0))
    # what is needed again is loaded again: held, it would take all registers
    tl.debug_barrier()

    cos, sin = load_turns(
        turns_ptr + place * (C * 2 * BLOCK_S) + time * (2 * BLOCK_S), BLOCK_S, ADJACENT
    )
    key = load_vectors(
        k_ptr + start * k_frame + group * N + (time * k_frame + rank * (G * N)), inside,
        k_bias_ptr + head * (R * N), cos, sin, rank,
        R, N, S, BLOCK_S, BLOCK_REST, ADJACENT, OPERAND,
    )  # fmt: skip
    query = load_vectors(
        q_ptr + start * q_frame + group * N + (time * q_frame + rank * (G * N)), inside,
        q_bias_ptr + head * (R * N), cos, sin, rank,
        R, N, S, BLOCK_S, BLOCK_REST, ADJACENT, OPERAND,
    )  # fmt: skip
    v_rows = v_ptr + start * v_frame + head * P + time * v_frame
    answers_rows = answers_ptr + frame * (R * P) + (time * (heads * R * P) + rank * P)
    mimo_x_ptr += head * (R * P)

    dscores = tl.zeros([C * R, C * R], tl.float32)
    for block in tl.range(0, tl.cdiv(P, BLOCK_P)):
        p = block * BLOCK_P + tl.arange(0, BLOCK_P)
        inside_v = inside[:, None] & (p < P)[None, :]
        value = load_values(
            v_rows, mimo_x_ptr, p, inside_v, C, R, P, BLOCK_P, MIMO, ROUND, OPERAND
        )[1]
        answers = tl.load(answers_rows[:, None] + p[None, :], mask=inside_v, other=0.0)
        answers = answers.to(OPERAND)
        dscores = tl.dot(value, tl.trans(answers), acc=dscores, input_precision="ieee")
    same_row = tl.arange(0, C * R)[:, None] == tl.arange(0, C * R)[None, :]
    dskip = tl.sum(tl.sum(tl.where(same_row, dscores, 0.0), axis=1), axis=0)
    tl.store(dd_skip_ptr + place, dskip)
    scores = inner(key, query, BLOCK_REST, ADJACENT)

    steps = steps_ptr + place * (4 * C) + time
    decay, gamma, weight = tl.load(steps), tl.load(steps + C), tl.load(steps + 2 * C)
    to_end = tl.load(steps + 3 * C)
    later = time[None, :] > time[:, None]
    fade = exp2(tl.minimum(decay[None, :] - decay[:, None], 0.0))
    fade = tl.where(time[None, :] >= time[:, None], fade, 0.0)
    factor = fade * tl.where(later, weight[:, None], gamma[:, None])
    # the skip's part with the rest: no tile more, and rounded as the forward rounds it
    d_skip = tl.load(d_skip_ptr + head).to(tl.float32)
    weighted = operand(scores * factor + tl.where(same_row, d_skip, 0.0), ROUND, OPERAND)
    pairs = dscores * scores * fade
    dweight = tl.sum(tl.where(later, pairs, 0.0), axis=1)
    dgamma = tl.sum(tl.where(later, 0.0, pairs), axis=1)

    tl.debug_barrier()
    for block in tl.range(0, tl.cdiv(P, BLOCK_P)):
        p = block * BLOCK_P + tl.arange(0, BLOCK_P)
        inside_p = p < P
        inside_v = inside[:, None] & inside_p[None, :]
        states = place * (P * N) + p * N
        carry = load_rows(carry_ptr + states, inside_p, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
        carry = carry[0].to(OPERAND), carry[1].to(OPERAND), carry[2].to(OPERAND)
        x, value = load_values(
            v_rows, mimo_x_ptr, p, inside_v, C, R, P, BLOCK_P, MIMO, ROUND, OPERAND
        )
        answers = tl.load(answers_rows[:, None] + p[None, :], mask=inside_v, other=0.0)
        answers = answers.to(OPERAND)
        dvalue = inner(key, carry, BLOCK_REST, ADJACENT)
        dweight += tl.sum(dvalue * value.to(tl.float32), axis=1) * to_end
        dvalue *= (to_end * weight)[:, None]
        dvalue = tl.dot(weighted, answers, acc=dvalue, input_precision="ieee")
        if MIMO:
            dmimo_x = over_frames(dvalue * x.to(tl.float32), C, R, BLOCK_P)
            at = (place * R + tl.arange(0, R))[:, None] * P + p[None, :]
            tl.store(dmimo_x_ptr + at, dmimo_x, mask=inside_p[None, :])
            dvalue *= load_ranks(mimo_x_ptr, p, C, R, P, BLOCK_P)
        dv = over_ranks(dvalue, C, R, BLOCK_P)
        at = frame * P + (c * (heads * P))[:, None] + p[None, :]
        mask = (c < left)[:, None] & inside_p[None, :]
        tl.store(dv_ptr + at, dv.to(dv_ptr.dtype.element_ty), mask=mask)

    if R > 1:
        dweight = tl.sum(tl.reshape(dweight, (C, R)), axis=1)
        dgamma = tl.sum(tl.reshape(dgamma, (C, R)), axis=1)
    tl.store(dweight_ptr + frame + c * heads, dweight, mask=c < left)
    tl.store(dgamma_ptr + frame + c * heads, dgamma + dweight, mask=c < left)
