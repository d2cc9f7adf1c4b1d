"""The walk of the scan's forward and what joins its segments: kernels alone."""

import triton
import triton.language as tl

from audiossm_kernels.ssm_scan.triton_parts import (
    first_state,
    load_parts,
    load_tiles,
    load_weights,
    merge,
    place_chunk,
    split_ranks,
    store_parts,
    turn,
    unmerge,
)
from audiossm_kernels.triton_math import (
    INTERPRETED,
    TURN,
    add_pairs,
    bound,
    exp2,
    fast_cos_sin,
    fast_tanh,
    nearest,
    settle,
    sigmoid,
    turn_pairs,
    widen,
)

__all__ = ["join_kernel", "walk_kernel"]

EPS = tl.constexpr(1e-5)


@triton.jit
def each_rank(x, R: tl.constexpr):
    """Return every entry of a vector R times."""
    if R == 1:
        return x
    else:
        return tl.reshape(tl.broadcast_to(x[:, None], (x.shape[0], R)), (x.shape[0] * R,))


@triton.jit
def load_bias(
    rows,
    N: tl.constexpr,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ADJACENT: tl.constexpr,
    PAIRS: tl.constexpr,
):
    """Load the ranks' biases at the pointers ``rows`` (1, ranks, 1)."""
    a, b, c = load_tiles(rows, rows.to(tl.int64) >= 0, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
    if PAIRS:
        return nearest(a), nearest(b), nearest(c)
    else:
        return a, b, c


@triton.jit
def as_operands(
    x,
    bias,
    cos,
    sin,
    BLOCK_REST: tl.constexpr,
    ADJACENT: tl.constexpr,
    OPERAND: tl.constexpr,
    PAIRS: tl.constexpr,
):
    """Turn the parts (frames, ranks, width) of vectors and return tiles (frames ranks, width)."""
    if PAIRS:
        a = add_pairs(nearest(x[0]), bias[0])
        b = add_pairs(nearest(x[1]), bias[1])
        a, b = turn_pairs(a, b, cos, sin)
        c = a
        if BLOCK_REST > 0:
            c = add_pairs(nearest(x[2]), bias[2])
        a, b, c = a.to(OPERAND), b.to(OPERAND), c.to(OPERAND)
    else:
        a, b, c = turn(x, bias, widen(cos), widen(sin))
        a, b, c = a.to(OPERAND), b.to(OPERAND), c.to(OPERAND)
    a = merge(a, b, ADJACENT)
    return flat(a), flat(b), flat(c)


@triton.jit
def call(places, inside):
    """Call the lines of 128 bytes at pointers into the L2 cache."""
    if not INTERPRETED:
        tl.inline_asm_elementwise(
            "{.reg .pred p; setp.ne.b32 p, $2, 0; @p prefetch.global.L2 [$1]; mov.b32 $0, 0;}",
            "=r,l,r",
            [places, inside.to(tl.int32)],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )


@triton.jit
def stack(x):
    """Return a tile (ranks, frames, width) as one of (frames ranks, width)."""
    return flat(tl.permute(x, (1, 0, 2)))


@triton.jit
def flat(x):
    """Return a tile (frames, ranks, width) as one of (frames ranks, width)."""
    return tl.reshape(x, (x.shape[0] * x.shape[1], x.shape[2]))


@triton.jit
def twice_silu(half, OPERAND: tl.constexpr):
    """Return silu(2 half), of operands of 16 bits by the card's tanh: off by 2^-11 of ``half``."""
    if INTERPRETED or OPERAND == tl.float32:
        return 2 * half * sigmoid(2 * half)
    else:
        return half + half * fast_tanh(half)


@triton.jit
def walk_kernel(
    # inputs
    q_ptr,
    k_ptr,
    v_ptr,
    z_ptr,
    dt_ptr,
    trap_ptr,
    borders_ptr,
    # parameters
    q_bias_ptr,
    k_bias_ptr,
    d_skip_ptr,
    mimo_x_ptr,
    mimo_z_ptr,
    mimo_o_ptr,
    out_norm_ptr,
    # marks of every chunk
    turns_ptr,
    scales_ptr,
    total_ptr,
    # state before and after
    ssm_ptr,
    old_k_ptr,
    old_v_ptr,
    new_angle_ptr,
    new_ssm_ptr,
    new_k_ptr,
    new_v_ptr,
    # segments: what each adds, or what it starts from
    part_ssm_ptr,
    part_decay_ptr,
    kept_ssm_ptr,
    kept_outputs_ptr,
    y_ptr,
    # distances between rows
    q_row,
    k_row,
    v_row,
    z_row,
    dt_row,
    trap_row,
    rows,
    frames,
    H: tl.constexpr,
    G: tl.constexpr,
    P: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
    R: tl.constexpr,
    ADJACENT: tl.constexpr,
    MIMO: tl.constexpr,
    OUT_NORM: tl.constexpr,
    PACKED: tl.constexpr,
    CHUNK: tl.constexpr,
    SEGMENT: tl.constexpr,  # frames, whole chunks
    PART: tl.constexpr,  # the same of the walk without outputs: a whole part of a segment
    CUT: tl.constexpr,  # rows have several segments
    OUTPUTS: tl.constexpr,  # else only what a segment adds
    KEEP: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    OPERAND: tl.constexpr,
    PAIRS: tl.constexpr,  # keys and queries are made in bfloat16
    AGAIN: tl.constexpr,  # biases are read for every chunk, not held
    AHEAD: tl.constexpr,  # the next chunk is called into the L2 cache
    STAGES: tl.constexpr,
    # distances between frames: constants, for the offsets would take half of the registers
    Q_FRAME: tl.constexpr,
    K_FRAME: tl.constexpr,
    V_FRAME: tl.constexpr,
    Z_FRAME: tl.constexpr,
    DT_FRAME: tl.constexpr,
    TRAP_FRAME: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    head, slot = program % H, program // H
    group = head // (H // G)
    WALKED: tl.constexpr = SEGMENT if OUTPUTS else PART
    row, start, length, segment = place_chunk(borders_ptr, slot, rows, frames, WALKED, PACKED)
    begin = segment * WALKED
    if PACKED:
        chunk_slot = start // CHUNK + row
        part_slot = start // PART + row + begin // PART
        first_y = start
    else:
        chunk_slot = row * tl.cdiv(frames, CHUNK)
        part_slot = row * tl.cdiv(frames, PART) + begin // PART
        first_y = row * frames
        q_ptr += row * q_row
        k_ptr += row * k_row
        v_ptr += row * v_row
        z_ptr += row * z_row
        dt_ptr += row * dt_row
        trap_ptr += row * trap_row
    if OUTPUTS:
        if (segment > 0) & (begin >= length):  # a slot that packing left free
            return
    elif begin // SEGMENT * SEGMENT + SEGMENT >= length:  # nothing follows a row's last segment
        return

    q_ptr += start * Q_FRAME + group * N
    k_ptr += start * K_FRAME + group * N
    v_ptr += start * V_FRAME + head * P
    z_ptr += start * Z_FRAME + head * P
    y_ptr += (first_y * H + head) * P

    p = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside_p = p < P
    s = tl.arange(0, BLOCK_S)
    A_WIDTH: tl.constexpr = 2 * BLOCK_S if ADJACENT else BLOCK_S  # of the first part
    WIDTH: tl.constexpr = 2 * BLOCK_S + BLOCK_REST
    part = part_slot * H + head
    part_rows = part_ssm_ptr + (part * P + p)[:, None] * WIDTH
    a_columns = tl.arange(0, A_WIDTH)[None, :]
    if CUT and OUTPUTS:
        ssm_a = tl.load(part_rows + a_columns, mask=inside_p[:, None], other=0.0)
        ssm_b = ssm_a
        if not ADJACENT:
            ssm_b = tl.load(part_rows + BLOCK_S + s[None, :], mask=inside_p[:, None], other=0.0)
        ssm_c = ssm_a
        if BLOCK_REST > 0:
            j = 2 * BLOCK_S + tl.arange(0, BLOCK_REST)
            ssm_c = tl.load(part_rows + j[None, :], mask=inside_p[:, None], other=0.0)
    elif OUTPUTS:
        ssm_a, ssm_b, ssm_c = first_state(
            ssm_ptr,
            old_k_ptr,
            old_v_ptr,
            dt_ptr + start * DT_FRAME + head,
            trap_ptr + start * TRAP_FRAME + head,
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
    else:
        ssm_a = tl.zeros([BLOCK_P, A_WIDTH], tl.float32)
        ssm_b = ssm_a
        if not ADJACENT:
            ssm_b = tl.zeros([BLOCK_P, BLOCK_S], tl.float32)
        ssm_c = ssm_a
        if BLOCK_REST > 0:
            ssm_c = tl.zeros([BLOCK_P, BLOCK_REST], tl.float32)
    decayed = 0.0

    ROWS: tl.constexpr = CHUNK * R
    time = tl.arange(0, ROWS) // R
    t, r = tl.arange(0, CHUNK), tl.arange(0, R)
    tile = t[:, None, None] + 0 * r[None, :, None]
    # a rank's bias once, not for every frame: as many registers as it has dimensions
    one = (tl.arange(0, 1) + head * (R * N))[:, None, None] + (r * N)[None, :, None]
    k_bias = load_bias(k_bias_ptr + one, N, S, BLOCK_S, BLOCK_REST, ADJACENT, PAIRS)
    if OUTPUTS:
        q_bias = load_bias(q_bias_ptr + one, N, S, BLOCK_S, BLOCK_REST, ADJACENT, PAIRS)
        d_skip = tl.load(d_skip_ptr + head).to(tl.float32)
        if OUT_NORM:
            norm = tl.load(out_norm_ptr + head * P + p, mask=inside_p, other=0.0).to(tl.float32)
    weights = head * (R * P) + p
    WHOLE: tl.constexpr = P % BLOCK_P == 0  # masks cost a register to clear for each that is loaded

    first, last = begin // CHUNK, tl.cdiv(tl.minimum(begin + WALKED, length), CHUNK)
    for chunk in tl.range(bound(first), bound(last), num_stages=STAGES):
        on = chunk * CHUNK + t < length
        tile_on = chunk * CHUNK + tile < length
        v_inside = on[:, None] if WHOLE else on[:, None] & inside_p[None, :]
        here = start * 0 + chunk * CHUNK  # as int64
        mark = (chunk_slot + chunk) * H + head
        if KEEP:
            old_a, old_b = unmerge(ssm_a, ssm_b, ADJACENT)
            store_parts(
                kept_ssm_ptr + (mark * P + p) * N,
                inside_p,
                old_a,
                old_b,
                ssm_c,
                N,
                S,
                BLOCK_S,
                BLOCK_REST,
                ADJACENT,
            )

        if AHEAD:
            soon = on & (chunk * CHUNK + CHUNK + t < length)
            call(v_ptr + (here + CHUNK) * V_FRAME + t * V_FRAME + tl.program_id(1) * BLOCK_P, soon)
            if OUTPUTS:
                z_soon = z_ptr + (here + CHUNK) * Z_FRAME + t * Z_FRAME
                call(z_soon + tl.program_id(1) * BLOCK_P, soon)
            next_turns = turns_ptr + (mark + H) * (CHUNK * 2 * BLOCK_S) + t * (2 * BLOCK_S)
            call(next_turns, soon)
        turns = turns_ptr + mark * (CHUNK * 2 * BLOCK_S) + tile * (2 * BLOCK_S)
        if ADJACENT:  # laid out as the pairs are, so that nothing changes threads
            pairs = tl.load(turns + tl.arange(0, 2 * BLOCK_S)[None, None, :])
            cos, sin = tl.split(tl.reshape(pairs, (CHUNK, R, BLOCK_S, 2)))
        else:
            cos = tl.load(turns + s[None, None, :])
            sin = tl.load(turns + BLOCK_S + s[None, None, :])
        scales = scales_ptr + mark * (4 * CHUNK) + t
        to_end = tl.load(scales + 3 * CHUNK)
        total = tl.load(total_ptr + mark)

        v_here = v_ptr + here * V_FRAME + (t * V_FRAME)[:, None] + p[None, :]
        content = tl.load(v_here, mask=v_inside, other=0.0)
        if AGAIN:
            k_bias = load_bias(k_bias_ptr + one, N, S, BLOCK_S, BLOCK_REST, ADJACENT, PAIRS)
        k_here = k_ptr + here * K_FRAME + tile * K_FRAME + (r * (G * N))[None, :, None]
        key = load_tiles(k_here, tile_on, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
        key_a, key_b, key_c = as_operands(
            key, k_bias, cos, sin, BLOCK_REST, ADJACENT, OPERAND, PAIRS
        )
        if MIMO:
            # by broadcast: joined tiles would stand in shared memory column by column
            x_in = mimo_x_ptr + (head * (R * P) + r * P)[:, None, None] + p[None, None, :]
            x_in = tl.load(x_in, mask=inside_p[None, None, :] & (r >= 0)[:, None, None], other=0.0)
            value = widen(content)[None, :, :] * x_in.to(tl.float32)
            gain = stack((value * to_end[None, :, None]).to(OPERAND))
            operand = stack(value.to(OPERAND))
        else:
            operand = content.to(OPERAND)
            gain = (widen(content) * to_end[:, None]).to(OPERAND)
        gain = tl.trans(settle(gain))

        if OUTPUTS:
            decay = each_rank(tl.load(scales), R)
            reach = each_rank(tl.load(scales + CHUNK), R)
            gamma = each_rank(tl.load(scales + 2 * CHUNK), R)
            if AGAIN:
                q_bias = load_bias(q_bias_ptr + one, N, S, BLOCK_S, BLOCK_REST, ADJACENT, PAIRS)
            q_here = q_ptr + here * Q_FRAME + tile * Q_FRAME + (r * (G * N))[None, :, None]
            query = load_tiles(q_here, tile_on, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
            query_a, query_b, query_c = as_operands(
                query, q_bias, cos, sin, BLOCK_REST, ADJACENT, OPERAND, PAIRS
            )
            # else what they are made of would come as the product takes it, 8 threads to a bank
            query_a, query_b, query_c = settle(query_a), settle(query_b), settle(query_c)
            scores = tl.dot(query_a, tl.trans(key_a), input_precision="ieee")
            o = tl.dot(query_a, tl.trans(ssm_a.to(OPERAND)), input_precision="ieee")
            if not ADJACENT:
                scores = tl.dot(query_b, tl.trans(key_b), acc=scores, input_precision="ieee")
                o = tl.dot(query_b, tl.trans(ssm_b.to(OPERAND)), acc=o, input_precision="ieee")
            if BLOCK_REST > 0:
                scores = tl.dot(query_c, tl.trans(key_c), acc=scores, input_precision="ieee")
                o = tl.dot(query_c, tl.trans(ssm_c.to(OPERAND)), acc=o, input_precision="ieee")
            o *= exp2(decay)[:, None]
            past = time[:, None] > time[None, :]
            factor = exp2(tl.where(past, decay[:, None] + reach[None, :], -1000.0))
            # gamma itself, not weight minus the share: rounding would leak the next frame in
            factor = tl.where(time[:, None] == time[None, :], gamma[None, :], factor)
            scores *= factor
            if not MIMO:  # the skip, without another tile that changes threads
                scores += tl.where(time[:, None] == time[None, :], d_skip, 0.0)
            scores = scores.to(OPERAND)
            o = tl.dot(scores, operand, acc=o, input_precision="ieee")

        kept_share = exp2(total)
        ssm_a = tl.dot(gain, key_a, acc=ssm_a * kept_share, input_precision="ieee")
        if not ADJACENT:
            ssm_b = tl.dot(gain, key_b, acc=ssm_b * kept_share, input_precision="ieee")
        if BLOCK_REST > 0:
            ssm_c = tl.dot(gain, key_c, acc=ssm_c * kept_share, input_precision="ieee")
        decayed += total

        if OUTPUTS:
            z_here = z_ptr + here * Z_FRAME + (t * Z_FRAME)[:, None] + p[None, :]
            # a plain cast, not widen(): before such the compiler changes threads, in half the bytes
            half_z = 0.5 * tl.load(z_here, mask=v_inside, other=0.0).to(tl.float32)
            if MIMO:
                skip = d_skip * widen(content)
            outputs = split_ranks(o, R)
            y = tl.zeros([CHUNK, BLOCK_P], tl.float32)
            for rank in tl.static_range(R):
                out = outputs[rank]
                half_gate = half_z
                if MIMO:
                    weight = weights + rank * P
                    out += skip * load_weights(mimo_x_ptr + weight, inside_p, WHOLE)
                    half_gate *= load_weights(mimo_z_ptr + weight, inside_p, WHOLE)
                if KEEP:
                    kept = kept_outputs_ptr + (here + first_y) * (H * R * P) + weights + rank * P
                    kept = kept[None, :] + (t * (H * R * P))[:, None]
                    tl.store(kept, out.to(kept_outputs_ptr.dtype.element_ty), mask=v_inside)
                if OUT_NORM:
                    out *= tl.rsqrt(tl.sum(out * out, axis=1) / P + EPS)[:, None] * norm[None, :]
                out *= twice_silu(half_gate, OPERAND)
                if MIMO:
                    out *= load_weights(mimo_o_ptr + weight, inside_p, WHOLE)
                y += out
            y_here = y_ptr + here * (H * P) + (t * (H * P))[:, None] + p[None, :]
            tl.store(y_here, y.to(y_ptr.dtype.element_ty), mask=v_inside)

    if OUTPUTS:
        if begin + SEGMENT >= length:
            place = row * H + head
            new_a, new_b = unmerge(ssm_a, ssm_b, ADJACENT)
            store_parts(
                new_ssm_ptr + (place * P + p) * N,
                inside_p,
                new_a,
                new_b,
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
                ranks = (head * R + r) * N
                angle = tl.load(new_angle_ptr + place * S + s, mask=s < S, other=0.0)
                cos_end, sin_end = fast_cos_sin(angle / TURN)
                last_k = load_parts(
                    k_ptr + end * K_FRAME + r * (G * N),
                    (r >= 0) & (length > 0),
                    N,
                    S,
                    BLOCK_S,
                    BLOCK_REST,
                    ADJACENT,
                )
                bias = load_parts(k_bias_ptr + ranks, r >= 0, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
                last_a, last_b, last_c = turn(last_k, bias, cos_end[None, :], sin_end[None, :])
                k_place = ((row * R + r) * H + head) * N
                if PACKED:
                    old = load_parts(
                        old_k_ptr + k_place, r >= 0, N, S, BLOCK_S, BLOCK_REST, ADJACENT
                    )
                    last_a = tl.where(length > 0, last_a, old[0])
                    last_b = tl.where(length > 0, last_b, old[1])
                    last_c = tl.where(length > 0, last_c, old[2])
                store_parts(
                    new_k_ptr + k_place,
                    r >= 0,
                    last_a,
                    last_b,
                    last_c,
                    N,
                    S,
                    BLOCK_S,
                    BLOCK_REST,
                    ADJACENT,
                )
    else:
        tl.store(part_rows + a_columns, ssm_a, mask=inside_p[:, None])
        if not ADJACENT:
            tl.store(part_rows + BLOCK_S + s[None, :], ssm_b, mask=inside_p[:, None])
        if BLOCK_REST > 0:
            j = 2 * BLOCK_S + tl.arange(0, BLOCK_REST)
            tl.store(part_rows + j[None, :], ssm_c, mask=inside_p[:, None])
        if tl.program_id(1) == 0:
            tl.store(part_decay_ptr + part, decayed)


@triton.jit
def join_kernel(
    dt_ptr,
    trap_ptr,
    borders_ptr,
    mimo_x_ptr,
    ssm_ptr,
    old_k_ptr,
    old_v_ptr,
    # what every part of a segment adds
    part_ssm_ptr,
    part_decay_ptr,
    # what every segment starts from
    start_ssm_ptr,
    dt_row,
    trap_row,
    dt_frame,
    trap_frame,
    frames,
    parts,
    heads,
    P: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
    R: tl.constexpr,
    ADJACENT: tl.constexpr,
    MIMO: tl.constexpr,
    PACKED: tl.constexpr,
    SEGMENT: tl.constexpr,
    PART: tl.constexpr,
    STAGES: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    head, row = program % heads, program // heads
    if PACKED:
        start = tl.load(borders_ptr + row).to(tl.int64)
        length = (tl.load(borders_ptr + row + 1) - start).to(tl.int32)
        slot = start // PART + row
        dt_ptr += start * dt_frame
        trap_ptr += start * trap_frame
    else:
        length = frames
        slot = row * parts
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
    WIDTH: tl.constexpr = 2 * BLOCK_S + BLOCK_REST
    i = tl.arange(0, 2 * BLOCK_S if ADJACENT else BLOCK_S)[None, :]
    PARTS: tl.constexpr = SEGMENT // PART
    made = tl.maximum(tl.cdiv(length, SEGMENT) - 1, 0) * PARTS  # none of the last segment
    for i_part in tl.range(0, bound(made + 1), num_stages=STAGES):
        part = (slot + i_part) * heads + head
        place = (part * P + p)[:, None] * WIDTH
        more, starts = i_part < made, inside & (i_part % PARTS == 0)
        share = exp2(tl.load(part_decay_ptr + part, mask=more, other=0.0))
        tl.store(start_ssm_ptr + place + i, a, mask=starts)
        a = a * share + tl.load(part_ssm_ptr + place + i, mask=inside & more, other=0.0)
        if not ADJACENT:
            j = BLOCK_S + i
            tl.store(start_ssm_ptr + place + j, b, mask=starts)
            b = b * share + tl.load(part_ssm_ptr + place + j, mask=inside & more, other=0.0)
        if BLOCK_REST > 0:
            j = 2 * BLOCK_S + tl.arange(0, BLOCK_REST)[None, :]
            tl.store(start_ssm_ptr + place + j, c, mask=starts)
            c = c * share + tl.load(part_ssm_ptr + place + j, mask=inside & more, other=0.0)
