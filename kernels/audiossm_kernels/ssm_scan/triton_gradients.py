"""The gradients of a chunk for a block of heads, from the states at its borders."""

import triton
import triton.language as tl

from audiossm_kernels.ssm_scan.triton_parts import (
    add_first,
    find_row,
    load_parts,
    store_parts,
)
from audiossm_kernels.ssm_scan.triton_pieces import (
    add_mix,
    inner,
    load_answers,
    load_decay,
    load_turns,
    load_vectors,
    mix,
    operand,
    operands,
    over_frames,
    over_ranks,
    store_back,
)
from audiossm_kernels.triton_math import (
    INTERPRETED,
    TURN,
    exp2,
    sigmoid,
)

__all__ = ["chunk_kernel"]

EPS = tl.constexpr(1e-5)


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
