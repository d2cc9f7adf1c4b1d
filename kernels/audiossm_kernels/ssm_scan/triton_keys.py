"""The gradients of the keys, values and weights, chunk by chunk and head by head."""

import triton
import triton.language as tl

from audiossm_kernels.ssm_scan.triton_parts import unmerge
from audiossm_kernels.ssm_scan.triton_pieces import (
    add_mix,
    find_chunk,
    inner,
    load_rows,
    load_turns,
    load_values,
    load_vectors,
    operand,
    over_frames,
    over_ranks,
    store_back,
    zero_rows,
)
from audiossm_kernels.triton_math import exp2

__all__ = ["keys_kernel"]


@triton.jit
def keys_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    q_bias_ptr,
    k_bias_ptr,
    d_skip_ptr,
    mimo_x_ptr,
    turns_ptr,
    steps_ptr,
    total_ptr,
    # state before every chunk, gradient of the one after it
    ssm_ptr,
    carry_ptr,
    answers_ptr,
    last_ptr,
    borders_ptr,
    dk_ptr,
    dv_ptr,
    dgamma_ptr,
    dweight_ptr,
    decays_ptr,
    turned_ptr,
    late_ptr,
    dtotal_ptr,
    dd_skip_ptr,
    dmimo_x_ptr,
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
    """Store a head's dk, dv and weights' gradients, and the keys' part in decays and angles.

    Tiles of scores stand upright: rows are keys.
    """
    place = tl.program_id(0).to(tl.int64)
    head, slot = place % heads, place // heads
    group = head // (heads // G)
    row, start, _, left = find_chunk(borders_ptr, slot, rows, frames, C, PACKED)
    if left <= 0:  # a slot that packing left free
        return
    i = tl.arange(0, C * R)
    time, rank = i // R, i % R
    c, r, s = tl.arange(0, C), tl.arange(0, R), tl.arange(0, BLOCK_S)
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
    v_rows = v_ptr + start * v_frame + head * P + time * v_frame
    answers_rows = answers_ptr + frame * (R * P) + (time * (heads * R * P) + rank * P)
    mimo_x_ptr += head * (R * P)

    dscores = tl.zeros([C * R, C * R], tl.float32)
    for block in tl.range(0, tl.cdiv(P, BLOCK_P)):
        p = block * BLOCK_P + tl.arange(0, BLOCK_P)
        inside_v = inside[:, None] & (p < P)[None, :]
        _, value = load_values(v_rows, mimo_x_ptr, rank, p, inside_v, P, MIMO)
        value = operand(value, ROUND, OPERAND)
        at = answers_rows[:, None] + p[None, :]
        answers = tl.load(at, mask=inside_v, other=0.0).to(OPERAND)
        dscores = tl.dot(value, tl.trans(answers), acc=dscores, input_precision="ieee")
    scores = inner(key, query, BLOCK_REST, ADJACENT)

    steps = steps_ptr + place * (4 * C) + time
    decay, gamma, weight = tl.load(steps), tl.load(steps + C), tl.load(steps + 2 * C)
    to_end, total = tl.load(steps + 3 * C), exp2(tl.load(total_ptr + place))
    later = time[None, :] > time[:, None]
    fade = exp2(tl.minimum(decay[None, :] - decay[:, None], 0.0))
    fade = tl.where(time[None, :] >= time[:, None], fade, 0.0)
    factor = fade * tl.where(later, weight[:, None], gamma[:, None])
    weighted = operand(scores * factor, ROUND, OPERAND)
    pairs = dscores * scores * fade
    dscores = operand(dscores * factor, ROUND, OPERAND)
    dweight = tl.sum(tl.where(later, pairs, 0.0), axis=1)
    dgamma = tl.sum(tl.where(later, 0.0, pairs), axis=1)

    d_skip = tl.load(d_skip_ptr + head).to(tl.float32)
    grad_a, grad_b, grad_c = zero_rows(C * R, BLOCK_S, BLOCK_REST, ADJACENT)
    dskip = tl.zeros([C * R], tl.float32)
    same = tl.zeros([BLOCK_P], tl.float32)
    border = tl.zeros([BLOCK_S], tl.float32)
    for block in tl.range(0, tl.cdiv(P, BLOCK_P)):
        p = block * BLOCK_P + tl.arange(0, BLOCK_P)
        inside_p = p < P
        inside_v = inside[:, None] & inside_p[None, :]
        # through the state handed on
        at = place * (P * N) + p * N
        carry = load_rows(carry_ptr + at, inside_p, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
        before = load_rows(ssm_ptr + at, inside_p, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
        carry_a, carry_b = unmerge(carry[0], carry[1], ADJACENT)
        before_a, before_b = unmerge(before[0], before[1], ADJACENT)
        carry_a, carry_b = carry_a.to(tl.float32), carry_b.to(tl.float32)
        before_a, before_b = before_a.to(tl.float32), before_b.to(tl.float32)
        same += tl.sum(carry_a * before_a + carry_b * before_b, axis=1)
        border += tl.sum(carry_b * before_a - carry_a * before_b, axis=0)
        if BLOCK_REST > 0:
            same += tl.sum(carry[2].to(tl.float32) * before[2].to(tl.float32), axis=1)
        carry = carry[0].to(OPERAND), carry[1].to(OPERAND), carry[2].to(OPERAND)

        x, value = load_values(v_rows, mimo_x_ptr, rank, p, inside_v, P, MIMO)
        value = operand(value, ROUND, OPERAND)
        at = answers_rows[:, None] + p[None, :]
        answers = tl.load(at, mask=inside_v, other=0.0).to(OPERAND)
        grad_a, grad_b, grad_c = add_mix(
            (grad_a, grad_b, grad_c), value, carry, BLOCK_REST, ADJACENT
        )
        wide = answers.to(tl.float32)
        dskip += tl.sum(wide * value.to(tl.float32), axis=1)
        dvalue = inner(key, carry, BLOCK_REST, ADJACENT) * (to_end * weight)[:, None]
        dvalue = tl.dot(weighted, answers, acc=dvalue, input_precision="ieee") + wide * d_skip
        if MIMO:
            dmimo_x = over_frames(dvalue * x.to(tl.float32), C, R, BLOCK_P)
            ranks = place * (R * P) + (r * P)[:, None] + p[None, :]
            tl.store(dmimo_x_ptr + ranks, dmimo_x, mask=inside_p[None, :])
            x_at = mimo_x_ptr + (rank * P)[:, None] + p[None, :]
            dvalue *= tl.load(x_at, mask=inside_v, other=0.0).to(tl.float32)
        dvalue = over_ranks(dvalue, C, R, BLOCK_P)
        at = frame * P + (c * (heads * P))[:, None] + p[None, :]
        mask = (c < left)[:, None] & inside_p[None, :]
        tl.store(dv_ptr + at, dvalue.to(dv_ptr.dtype.element_ty), mask=mask)
    tl.store(dd_skip_ptr + place, tl.sum(dskip, axis=0))

    # what the chunk's own frames add to the gradients of all decays and angles after it
    half_a, half_b = unmerge(grad_a, grad_b, ADJACENT)
    key_a, key_b = unmerge(key[0].to(tl.float32), key[1].to(tl.float32), ADJACENT)
    dshare = tl.sum(half_a * key_a + half_b * key_b, axis=1)
    if BLOCK_REST > 0:
        dshare += tl.sum(grad_c * key[2].to(tl.float32), axis=1)
    dshare *= to_end
    dweight += dshare
    tl.store(dtotal_ptr + place, tl.sum(same, axis=0) * total + tl.sum(dshare * weight, axis=0))
    faded = (to_end * weight)[:, None]
    late = tl.load(last_ptr + (row * heads + head) * S + s, mask=s < S, other=0.0)
    late -= border * total + tl.sum((half_b * key_a - half_a * key_b) * faded, axis=0)
    tl.store(late_ptr + place * S + s, late, mask=s < S)
    if R > 1:
        dweight = tl.sum(tl.reshape(dweight, (C, R)), axis=1)
        dgamma = tl.sum(tl.reshape(dgamma, (C, R)), axis=1)
    tl.store(dweight_ptr + frame + c * heads, dweight, mask=c < left)
    tl.store(dgamma_ptr + frame + c * heads, dgamma + dweight, mask=c < left)

    grad = add_mix(
        (grad_a * faded, grad_b * faded, grad_c * faded), dscores, query, BLOCK_REST, ADJACENT
    )
    turned, product = store_back(
        dk_ptr + frame * (R * N) + (time * (heads * R * N) + rank * N), inside, grad, key,
        cos, sin, C, R, N, S, BLOCK_S, BLOCK_REST, ADJACENT,
    )  # fmt: skip
    if R > 1:
        product = tl.sum(tl.reshape(product, (C, R)), axis=1)
    tl.store(decays_ptr + place * C + c, -product)
    at = place * (C * S) + (c * S)[:, None] + s[None, :]
    tl.store(turned_ptr + at, turned, mask=(s < S)[None, :])
