"""The step as one Triton launch: every state element is read once and written once.

One program does one head of one row. Inside: everything of the contract in ``ssm_step``, and with
``raw`` also the RMS norms of B and C and what makes dt and A of the projection. Outside: the two
projections.

A tile of the state is (BLOCK_P, N). Both what comes in, two vectors per rank, and what goes out are
products on the matrix units, since plain arithmetic would take longer than the memory. Their
operands are pairs of bfloat16, a high and a low half, stacked in one axis: 16 digits, and sums are
float32. Where inputs and state are bfloat16 the high half is enough. The output reads a bfloat16
state as it is stored.

Letters as in ``audiossm_kernels``. Rows of every tensor may be any distance apart.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from audiossm_kernels.state import Pairing, RawParams, SsmInputs, SsmParams, SsmState
from audiossm_kernels.triton_math import TURN, cos_sin, halves, nearest, softplus, tanh

__all__ = ["StepConfig", "choose_config", "launch_step"]

EPS = tl.constexpr(1e-5)
BELOW_TURN = tl.constexpr(6.2831850)  # the float32 below a full turn


class StepConfig(NamedTuple):
    """How a program is laid out on the card."""

    block_p: int  # rows of the state in one tile
    num_warps: int
    registers: int | None = None  # of a thread at most; the compiler's choice by default
    stream: bool = False  # the state is the first thing that the cache gives up


# By bytes of a state element and by rank; the first entry whose rank is not smaller counts.
CONFIGS = {
    2: {1: StepConfig(64, 4, 96, stream=True), 8: StepConfig(64, 4, 112)},
    4: {1: StepConfig(64, 4), 8: StepConfig(64, 4)},
}


@triton.jit
def load_vectors(x_ptr, bias_ptr, vector, bias, inside):
    """Load (R, 1, N) elements and their biases."""
    x = tl.load(x_ptr + vector, mask=inside, other=0.0)
    b = tl.load(bias_ptr + bias, mask=inside, other=0.0)
    return x.to(tl.float32), b.to(tl.float32)


@triton.jit
def load_norms(norm_ptr, n, partner, turns, N: tl.constexpr):
    """Load the weights of a norm, (1, 1, N), of every dimension and of its partner."""
    own = tl.load(norm_ptr + n, mask=n < N, other=0.0)[None, None, :]
    return own, tl.load(norm_ptr + partner, mask=turns, other=0.0)[None, None, :]


@triton.jit
def turn(own, other, norms, cos, sin, N: tl.constexpr, RAW: tl.constexpr):
    """Norm vectors, add their bias and turn them; sin has the sign that the partner gets."""
    x, x_bias = own
    y, y_bias = other
    if RAW:
        scale = tl.rsqrt(tl.sum(x * x, axis=2) / N + EPS)[:, :, None]
        x *= scale * norms[0].to(tl.float32)
        y *= scale * norms[1].to(tl.float32)
    return (x + x_bias) * cos[None, None, :] + (y + y_bias) * sin[None, None, :]


@triton.jit
def load_tile(
    ssm_ptr, v_ptr, old_v_ptr, z_ptr, p, n, P: tl.constexpr, N: tl.constexpr, KEEP: tl.constexpr
):
    """Load the rows ``p`` of a state, and what comes in and goes out there."""
    inside = p < P
    h = tl.load(
        ssm_ptr + p[:, None] * N + n[None, :],
        mask=inside[:, None] & (n < N)[None, :],
        other=0.0,
        eviction_policy=KEEP,
    )
    value = tl.load(v_ptr + p, mask=inside, other=0.0)
    old_value = tl.load(old_v_ptr + p, mask=inside, other=0.0)
    gate = tl.load(z_ptr + p, mask=inside, other=0.0)
    return h, value, old_value, gate


@triton.jit
def load_ranks(
    mimo_x_ptr, mimo_z_ptr, mimo_o_ptr, head, p, j_rank, j_inside, r, P: tl.constexpr,
    R: tl.constexpr,
):  # fmt: skip
    """Load the ranks' weights for the rows ``p``: coming in, skipping, of gates, going out."""
    inside_p = p < P
    weight = (head * R + r)[None, :] * P + p[:, None]
    weight_inside = inside_p[:, None] & (r < R)[None, :]
    x_in = tl.load(
        mimo_x_ptr + (head * R + j_rank)[None, :] * P + p[:, None],
        mask=inside_p[:, None] & j_inside[None, :],
        other=0.0,
    )
    x_skip = tl.load(mimo_x_ptr + weight, mask=weight_inside, other=0.0)
    x_gate = tl.load(mimo_z_ptr + weight, mask=weight_inside, other=0.0)
    x_out = tl.load(mimo_o_ptr + weight, mask=weight_inside, other=0.0)
    return x_in, x_skip, x_gate, x_out


@triton.jit
def interleave(a, b, ROWS: tl.constexpr, N: tl.constexpr, PAD: tl.constexpr):
    """Stack rows of two (ROWS, 1, N) tiles: a0, b0, a1, ..., with PAD - 1 rows of zeros after each.

    Joins would leave neighbours of a column in one thread: shared memory would hold columns, and
    eight threads wait for each other at every store.
    """
    place = tl.arange(0, 2 * PAD)[None, :, None]
    a, b = tl.broadcast_to(a, (ROWS, 2 * PAD, N)), tl.broadcast_to(b, (ROWS, 2 * PAD, N))
    x = tl.where(place == 0, a, tl.where(place == PAD, b, tl.zeros_like(b)))
    return tl.reshape(x, (2 * PAD * ROWS, N))


@triton.jit
def step_kernel(
    # inputs
    q_ptr,
    k_ptr,
    v_ptr,
    z_ptr,
    dt_ptr,
    a_ptr,
    trap_ptr,
    angles_ptr,
    live_ptr,
    slots_ptr,
    # parameters
    q_bias_ptr,
    k_bias_ptr,
    d_skip_ptr,
    mimo_x_ptr,
    mimo_z_ptr,
    mimo_o_ptr,
    out_norm_ptr,
    dt_bias_ptr,
    q_norm_ptr,
    k_norm_ptr,
    # state before and after
    angle_ptr,
    ssm_ptr,
    old_k_ptr,
    old_v_ptr,
    new_angle_ptr,
    new_ssm_ptr,
    new_k_ptr,
    new_v_ptr,
    y_ptr,
    # distances between rows
    q_row,
    k_row,
    v_row,
    z_row,
    dt_row,
    a_row,
    trap_row,
    angles_row,
    angle_row,
    ssm_row,
    old_k_row,
    old_v_row,
    new_angle_row,
    new_ssm_row,
    new_k_row,
    new_v_row,
    a_floor,
    slowest,
    heads,
    G: tl.constexpr,
    P: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
    R: tl.constexpr,
    ANGLES_STRIDE: tl.constexpr,
    ADJACENT: tl.constexpr,
    MIMO: tl.constexpr,
    OUT_NORM: tl.constexpr,
    RAW: tl.constexpr,
    HEAVY_TAIL: tl.constexpr,
    LIVE: tl.constexpr,
    SLOTS: tl.constexpr,
    IN_PLACE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr,
    PAD: tl.constexpr,
    HALVES: tl.constexpr,
    EXACT: tl.constexpr,  # outputs, too, have more digits than bfloat16
    OPERAND: tl.constexpr,
    KEEP: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    row, head = program // heads, program % heads
    group = head // (heads // G)
    y_ptr += program * P
    slot = row  # of the states
    if SLOTS:  # their addresses wait for it anyway
        slot = tl.load(slots_ptr + row).to(tl.int64)
        if slot < 0:
            for start in tl.range(0, P, BLOCK_P):
                p = start + tl.arange(0, BLOCK_P)
                nothing = tl.zeros([BLOCK_P], y_ptr.dtype.element_ty)
                tl.store(y_ptr + p, nothing, mask=p < P)
            return

    # loads first: they wait together, the state's longest
    ssm_ptr += slot * ssm_row + head * (P * N)
    v_ptr += row * v_row + head * P
    old_v_ptr += slot * old_v_row + head * P
    z_ptr += row * z_row + head * P
    n = tl.arange(0, BLOCK_N)
    p = tl.arange(0, BLOCK_P)
    ahead = load_tile(ssm_ptr, v_ptr, old_v_ptr, z_ptr, p, n, P, N, KEEP)
    first_value = ahead[1]

    if ADJACENT:
        pair, partner, first = n // 2, n ^ 1, n % 2 == 0
    else:
        first = n < N // 2
        pair = tl.where(first, n, n - N // 2)
        partner = tl.where(first, n + N // 2, n - N // 2)
    turns = (pair < S) & (n < N)
    r = tl.arange(0, BLOCK_R)
    inside = (r < R)[:, None, None] & (n < N)[None, None, :]
    paired = (r < R)[:, None, None] & turns[None, None, :]
    vector = ((r * G + group) * N)[:, None, None]
    bias = ((head * R + r) * N)[:, None, None]
    place = ((r * heads + head) * N)[:, None, None] + n[None, None, :]
    q_ptr += row * q_row
    k_ptr += row * k_row
    own, other = n[None, None, :], partner[None, None, :]
    key = load_vectors(k_ptr, k_bias_ptr, vector + own, bias + own, inside)
    key_other = load_vectors(k_ptr, k_bias_ptr, vector + other, bias + other, paired)
    old_key = tl.load(old_k_ptr + slot * old_k_row + place, mask=inside, other=0.0)
    query = load_vectors(q_ptr, q_bias_ptr, vector + own, bias + own, inside)
    query_other = load_vectors(q_ptr, q_bias_ptr, vector + other, bias + other, paired)

    # every state dimension computes the angle of its own pair
    angles_ptr += row * angles_row + head * ANGLES_STRIDE
    rate = tl.load(angles_ptr + pair, mask=turns, other=0.0).to(tl.float32)
    phi = tl.load(angle_ptr + slot * angle_row + head * S + pair, mask=turns, other=0.0)
    dt = tl.load(dt_ptr + row * dt_row + head).to(tl.float32)
    a = tl.load(a_ptr + row * a_row + head).to(tl.float32)
    lam = tl.sigmoid(tl.load(trap_ptr + row * trap_row + head).to(tl.float32))
    d_skip = tl.load(d_skip_ptr + head).to(tl.float32)
    # column j of a tile's weights belongs to row j of the keys
    j = tl.arange(0, 2 * HALVES * BLOCK_R * PAD)
    j_rank = j // (2 * HALVES * PAD)
    j_new = (j // (HALVES * PAD)) % 2 == 0
    j_inside = (j % PAD == 0) & (j_rank < R)
    if MIMO and BLOCK_P >= P:  # where the registers hold them
        ranks = load_ranks(mimo_x_ptr, mimo_z_ptr, mimo_o_ptr, head, p, j_rank, j_inside, r, P, R)
    k_norms, q_norms = key, query  # stand for what the variant hasn't
    if RAW:
        dt_bias = tl.load(dt_bias_ptr + head).to(tl.float32)
        k_norms = load_norms(k_norm_ptr, n, partner, turns, N)
        q_norms = load_norms(q_norm_ptr, n, partner, turns, N)
    if LIVE:  # not before the loads: none of them would begin until this one is here
        if tl.load(live_ptr + row) == 0:
            for start in tl.range(0, P, BLOCK_P):
                p = start + tl.arange(0, BLOCK_P)
                nothing = tl.zeros([BLOCK_P], y_ptr.dtype.element_ty)
                tl.store(y_ptr + p, nothing, mask=p < P)
            return

    if RAW:
        dt = softplus(dt + dt_bias)
        if HEAVY_TAIL:
            decay = tl.where(a >= 0, 1 + a, 1 / (1 - tl.minimum(a, 0.0)))
        else:
            decay = softplus(a)
        a = tl.minimum(-tl.maximum(decay, a_floor) * dt, slowest)
    alpha = tl.exp(tl.minimum(a, 0.0))
    beta, gamma = (1 - lam) * dt * alpha, lam * dt

    phi = phi.to(tl.float32) / TURN + 0.5 * tanh(rate) * dt
    phi -= tl.floor(phi)
    phi = tl.where(phi >= 1, 0.0, phi)  # a tiny negative angle rounds up to a full turn
    cos, sin = cos_sin(phi)
    cos = tl.where(turns, cos, 1.0)
    sin = tl.where(turns, tl.where(first, -sin, sin), 0.0)
    new_key = turn(key, key_other, k_norms, cos, sin, N, RAW)
    new_query = turn(query, query_other, q_norms, cos, sin, N, RAW)

    if HALVES == 2:
        # products of two halves on the matrix units are as good as float32 ones
        keys = interleave(new_key, old_key.to(tl.float32), BLOCK_R, BLOCK_N, 1)
        k_high, k_low = halves(keys[:, None, :])
        keys = interleave(k_high, k_low, 2 * BLOCK_R, BLOCK_N, PAD).to(OPERAND)
        q_high, q_low = halves(new_query)
        queries = interleave(q_high, q_low, BLOCK_R, BLOCK_N, 2 * PAD)
    else:
        new_key = nearest(new_key)
        keys = interleave(new_key, nearest(old_key), BLOCK_R, BLOCK_N, PAD).to(OPERAND)
        queries = nearest(new_query)
        queries = interleave(queries, tl.zeros_like(queries), BLOCK_R, BLOCK_N, PAD)
    queries = tl.trans(queries).to(OPERAND)

    j_scale = tl.where(j_inside, tl.where(j_new, gamma, beta), 0.0)[None, :]

    new_ssm_ptr += slot * new_ssm_row + head * (P * N)
    for start in tl.range(0, P, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        inside_p = p < P
        tile = p[:, None] * N + n[None, :]
        tile_inside = inside_p[:, None] & (n < N)[None, :]
        h = ahead[0].to(tl.float32) * alpha
        value = ahead[1].to(tl.float32)
        old_value = ahead[2].to(tl.float32)
        gate = ahead[3].to(tl.float32)[:, None]
        if BLOCK_P < P:
            ahead = load_tile(ssm_ptr, v_ptr, old_v_ptr, z_ptr, p + BLOCK_P, n, P, N, KEEP)
        if MIMO:
            if BLOCK_P < P:
                ranks = load_ranks(
                    mimo_x_ptr, mimo_z_ptr, mimo_o_ptr, head, p, j_rank, j_inside, r, P, R
                )
            x_in, x_skip, x_gate, x_out = ranks
        weights = tl.where(j_new[None, :], value[:, None], old_value[:, None]) * j_scale
        if MIMO:
            weights *= x_in.to(tl.float32)
        if HALVES == 2:
            w_high, w_low = halves(weights)
            h = tl.dot(w_high.to(OPERAND), keys, acc=h)
            h = tl.dot(w_low.to(OPERAND), keys, acc=h)
        else:
            h = tl.dot(nearest(weights).to(OPERAND), keys, acc=h)
        stored = h.to(new_ssm_ptr.dtype.element_ty)
        tl.store(new_ssm_ptr + tile, stored, mask=tile_inside, eviction_policy=KEEP)

        high, low = halves(h)
        o = tl.dot(high.to(OPERAND), queries)
        if EXACT:
            o = tl.dot(low.to(OPERAND), queries, acc=o)
        o = tl.sum(tl.reshape(o, (BLOCK_P, BLOCK_R, 2 * HALVES * PAD)), axis=2)
        skip = d_skip * value[:, None]
        if MIMO:
            skip *= x_skip.to(tl.float32)
            gate *= x_gate.to(tl.float32)
        o += skip
        if OUT_NORM:  # then BLOCK_P >= P
            o *= tl.rsqrt(tl.sum(o * o, axis=0) / P + EPS)[None, :]
            scale = tl.load(out_norm_ptr + head * P + p, mask=inside_p, other=0.0)
            o *= scale.to(tl.float32)[:, None]
        o *= gate * tl.sigmoid(gate)
        if MIMO:
            o *= x_out.to(tl.float32)
        y = tl.sum(o, axis=1)
        tl.store(y_ptr + p, y.to(y_ptr.dtype.element_ty), mask=inside_p)

    if IN_PLACE:
        # angle, k and v are read by several threads, so all must have read before one writes
        tl.debug_barrier()
    tl.store(
        new_angle_ptr + slot * new_angle_row + head * S + pair,
        tl.minimum(phi * TURN, BELOW_TURN).to(new_angle_ptr.dtype.element_ty),
        mask=turns & first,
    )
    tl.store(
        new_k_ptr + slot * new_k_row + place,
        new_key.to(new_k_ptr.dtype.element_ty),
        mask=inside,
    )
    new_v_ptr += slot * new_v_row + head * P
    p = tl.arange(0, BLOCK_P)
    first_value = first_value.to(tl.float32).to(new_v_ptr.dtype.element_ty)
    tl.store(new_v_ptr + p, first_value, mask=p < P)
    for start in tl.range(BLOCK_P, P, BLOCK_P):
        inside_p = start + p < P
        value = tl.load(v_ptr + start + p, mask=inside_p, other=0.0).to(tl.float32)
        tl.store(new_v_ptr + start + p, value.to(new_v_ptr.dtype.element_ty), mask=inside_p)


def choose_config(state_bytes: int, rank: int) -> StepConfig:
    """Return the layout for a state of ``state_bytes`` per element, from ``CONFIGS``."""
    by_rank = CONFIGS[state_bytes]
    return by_rank[min((r for r in by_rank if r >= rank), default=max(by_rank))]


def whole_rows(x: Tensor) -> Tensor:
    """Return ``x`` with every row contiguous; rows may lie apart, as slices of a projection do."""
    return x if x[:1].is_contiguous() else x.contiguous()


def launch_step(
    x: SsmInputs,
    params: SsmParams,
    state: SsmState,
    new_state: SsmState,
    y: Tensor,
    pairing: Pairing,
    *,
    raw: RawParams | None = None,
    live: Tensor | None = None,
    slots: Tensor | None = None,
    config: StepConfig | None = None,
) -> None:
    """Write one step into ``y`` and ``new_state``.

    Args:
        x: shapes as in ``ssm_step``; with ``raw``, its ``dt`` and ``adt`` are before bias and
            activation and its ``q`` and ``k`` before the norm.
        params: small parameters.
        state: four states, rows contiguous.
        new_state: four tensors like ``state``, or ``state`` itself.
        y: (B, H, P), contiguous.
        pairing: pairs that rotate.
        raw: what turns a raw projection into inputs.
        live: (B,) bool; rows that are False get a zero ``y`` and leave ``new_state`` as it is.
        slots: (B,) int64, the rows of the states that belong to those of ``x``; below 0 is none,
            as if not live.
        config: a layout other than the shipped one.
    """
    batch, rank, groups, d_state = x.q.shape
    heads, head_dim = x.v.shape[1:]
    if batch == 0:
        return
    x = SsmInputs._make(whole_rows(part) for part in x)
    params = SsmParams._make(None if part is None else part.contiguous() for part in params)
    out_norm = params.out_norm is not None
    if config is None:
        config = choose_config(state.ssm.element_size(), rank)
    block_n = max(triton.next_power_of_2(d_state), 16)
    block_r = triton.next_power_of_2(rank)
    # a norm needs the whole head in one tile; else tiles stay small enough for the registers
    whole = max(triton.next_power_of_2(head_dim), 16)
    block_p = whole if out_norm else min(config.block_p, whole, max(16, 8192 // block_n))
    tile = block_p * block_n
    # at least 8 elements a thread: copies of an element in two warps would race in place
    num_warps = max(1, min(max(config.num_warps, tile // 2048), tile // 256, 8))
    # a state of bfloat16 has no use for more digits
    num_halves = 1 if state.ssm.dtype == torch.bfloat16 and x.v.dtype != torch.float32 else 2
    nothing = params.d_skip  # stands for what the variant hasn't
    args = [
        *x,
        nothing if live is None else live.view(torch.uint8),
        nothing if slots is None else slots,
        *(nothing if part is None else part for part in params),
        *([nothing] * 3 if raw is None else [raw.dt_bias, raw.q_norm, raw.k_norm]),
        *state,
        *new_state,
        y,
        *(part.stride(0) for part in (*x, *state, *new_state)),
        0.0 if raw is None else raw.a_floor,
        0.0 if raw is None or raw.max_memory is None else -1 / raw.max_memory,
        heads,
    ]
    with torch.cuda.device_of(y):
        step_kernel[(batch * heads,)](
            *args,
            G=groups,
            P=head_dim,
            N=d_state,
            S=state.angle.shape[-1],
            R=rank,
            ANGLES_STRIDE=0 if x.angles.shape[1] == 1 else state.angle.shape[-1],
            ADJACENT=pairing == "adjacent",
            MIMO=params.mimo_x is not None,
            OUT_NORM=out_norm,
            RAW=raw is not None,
            HEAVY_TAIL=raw is not None and raw.a_activation == "heavy_tail",
            LIVE=live is not None,
            SLOTS=slots is not None,
            IN_PLACE=new_state.ssm is state.ssm,
            BLOCK_P=block_p,
            BLOCK_N=block_n,
            BLOCK_R=block_r,
            # products take 16 rows of keys and columns of queries
            PAD=max(1, 8 // (num_halves * block_r)),
            HALVES=num_halves,
            EXACT=x.v.dtype == torch.float32,
            # the interpreter has no products of bfloat16
            OPERAND=tl.float32 if triton.knobs.runtime.interpret else tl.bfloat16,
            KEEP="evict_first" if config.stream else "",
            num_warps=num_warps,
            maxnreg=config.registers,
        )
