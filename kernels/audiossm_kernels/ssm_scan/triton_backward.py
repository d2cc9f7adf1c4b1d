"""The scan's gradients in Triton: one walk over the chunks, then every chunk by itself.

``carry_kernel`` walks each head's chunks from the last to the first and leaves at every chunk the
gradient of the state it hands on. With that and the state kept by the forward, chunks are
independent: ``chunk_kernel`` takes a chunk and a block of heads of one group, builds each head's
queries, keys and scores again, and sums the gradients of the shared q and k over its heads in
registers. Gradients per chunk of the small parameters, and per block of q, k and angles, are summed
by torch. Nothing is added atomically: equal calls have equal bits.

The other way round, a program per head that walks all chunks and keeps the state's gradient in
registers, would not store it (at batch 8, 2048 frames, 64 heads of 64 x 128: 0.3 GB written and
read once in SISO, 1.1 GB in MIMO of rank 4), but would store dq and dk of every head (0.5 and 2.1
GB, written and read), and at batch 1 it would leave half of a large card idle.

Two sums over all later frames are not walked. Turning, or weakening, everything after a border is
the same as turning or weakening the state S handed over it, so those sums are products of S and its
gradient dS: <dS, S> for the decay and -<dS, J S> for the angle, J a quarter turn of every pair. The
rounding of S and dS then doesn't add up over chunks, and within a chunk the terms of two frames
cancel exactly, since both frames get them from the same rounded scores.

Letters as in ``audiossm_kernels``; weight is the folded one of ``chunked``. Vectors of N elements
stand in three parts and a frame once per rank, as in ``triton_forward``.
"""

import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from audiossm_kernels.rotary import rotate
from audiossm_kernels.ssm_scan.layout import ScanLayout
from audiossm_kernels.ssm_scan.triton_carry import carry_kernel
from audiossm_kernels.ssm_scan.triton_forward import Kept, whole_frames
from audiossm_kernels.ssm_scan.triton_gradients import chunk_kernel
from audiossm_kernels.state import Pairing, SsmInputs, SsmParams, SsmState

__all__ = ["CONFIGS", "BackwardConfig", "choose_config", "launch_backward"]

# the walk is cut along the state's rows, as far as it goes, until there are so many programs
CARRY_PROGRAMS = 256


class BackwardConfig(NamedTuple):
    """How the two kernels are laid out on the card."""

    heads: int  # of a block, at most; they share a program's sums
    num_warps: int  # of the chunks
    carry_block_p: int  # rows of the state in one program of the walk, at most
    carry_warps: int
    split: bool = True  # queries and keys in two launches, whose tiles fit the registers better
    registers: int | None = None  # of a thread of the chunks at most; the compiler's choice


# By bytes of an element and by rank; the first entry whose rank is not smaller counts.
CONFIGS = {
    2: {1: BackwardConfig(8, 4, 64, 4), 8: BackwardConfig(8, 4, 64, 4)},
    4: {8: BackwardConfig(4, 4, 32, 4)},
}


def choose_config(itemsize: int, rank: int) -> BackwardConfig:
    """Return the layout for inputs of ``itemsize`` bytes per element, from ``CONFIGS``."""
    by_rank = CONFIGS[itemsize]
    return by_rank[min((r for r in by_rank if r >= rank), default=max(by_rank))]


def even_frames(x: Tensor) -> Tensor:
    """Return ``x`` (B, L, ...) with contiguous frames, all the same distance apart."""
    x = whole_frames(x)
    return x if len(x) == 1 or x.stride(0) == x.shape[1] * x.stride(1) else x.contiguous()


def quarter_turn(gradient: Tensor, x: Tensor, num_angles: int, pairing: Pairing) -> Tensor:
    """Return the gradient (..., S) of a turn of the pairs of ``x`` (..., N), given that of x."""
    if pairing == "adjacent":
        pairs = slice(0, 2 * num_angles, 2), slice(1, 2 * num_angles, 2)
    else:
        half = x.shape[-1] // 2
        pairs = slice(0, num_angles), slice(half, half + num_angles)
    first, second = pairs
    return gradient[..., second] * x[..., first] - gradient[..., first] * x[..., second]


def launch_backward(
    x: SsmInputs,
    params: SsmParams,
    state: SsmState,
    pairing: Pairing,
    layout: ScanLayout,
    kept: Kept,
    new_state: SsmState,
    dy: Tensor,
    dstate: tuple[Tensor | None, ...],
    *,
    borders: Tensor | None = None,
    config: BackwardConfig | None = None,
) -> tuple[SsmInputs, SsmParams, SsmState]:
    """Return the gradients of inputs, parameters and initial states, each in its tensor's dtype.

    Args:
        x: shapes as in ``ssm_scan``.
        params: small parameters.
        state: four states of ``layout.rows`` rows.
        pairing: pairs that rotate.
        layout: the forward's chunks.
        kept: what the forward kept of them.
        new_state: the state it returned.
        dy: (B, L, H, P), the output's gradient.
        dstate: gradients of the four final states; None is zero.
        borders: (rows + 1,) integers, given when packed.
        config: a layout other than the shipped one.
    """
    batch, frames, rank, groups, d_state = x.q.shape
    heads, head_dim = x.v.shape[2:]
    num_angles, rate_heads = x.angles.shape[-1], x.angles.shape[2]
    device, rows, chunk, packed = x.v.device, layout.rows, layout.chunk, layout.packed
    if config is None:
        config = choose_config(kept.ssm.element_size(), rank)
    block_h = max(n for n in range(1, config.heads + 1) if heads // groups % n == 0)
    blocks = heads // block_h
    narrow = kept.ssm.dtype != torch.float32
    rounded = tl.bfloat16 if narrow else tl.float32
    x = SsmInputs._make(even_frames(part) for part in x)
    dy = dy.contiguous()
    given = [None if part is None else part.contiguous() for part in params]
    nothing = params.d_skip.contiguous()  # stands for what the variant hasn't
    q_bias, k_bias, d_skip, mimo_x, mimo_z, mimo_o, out_norm = (
        nothing if part is None else part for part in given
    )
    mimo, normed = params.mimo_x is not None, params.out_norm is not None

    def empty(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(size, dtype=dtype, device=device)

    def per_slot(*size: int) -> Tensor:
        # a free slot of packed rows is not written
        return (torch.zeros if packed else torch.empty)((layout.slots, heads, *size), device=device)

    # half turns per unit of dt, time along the last axis
    rates = torch.tanh(x.angles.permute(0, 2, 3, 1).float().contiguous())

    dangle, dssm, dkey, dvalue = dstate
    last = empty(rows, heads, head_dim, d_state)
    last.copy_(dssm) if dssm is not None else last.zero_()
    late = torch.zeros(rows, heads, num_angles, device=device)
    if dangle is not None:
        late += dangle
    if dssm is not None:
        late += quarter_turn(last, new_state.ssm.float(), num_angles, pairing).sum(2)
    if dkey is not None:
        late += quarter_turn(dkey, new_state.k.float(), num_angles, pairing).sum(1)

    carry = empty(layout.slots, heads, head_dim, d_state, dtype=kept.ssm.dtype)
    dfirst = torch.empty_like(last)
    answers = empty(batch, frames, heads, rank, head_dim) if normed else nothing
    partial = torch.bfloat16 if x.q.dtype == torch.bfloat16 else torch.float32
    lead = (batch, frames)
    dq = empty(*lead, rank, groups, blocks // groups, d_state, dtype=partial)
    dk = torch.empty_like(dq)
    dv, dz = empty(*lead, heads, head_dim, dtype=x.v.dtype), torch.empty_like(dy, dtype=x.z.dtype)
    dgamma, dweight = empty(*lead, heads), empty(*lead, heads)
    parts = 2 if config.split else 1
    dadt, dturn = empty(parts, *lead, heads), empty(parts, *lead, heads)
    drate = empty(parts, batch, blocks if rate_heads == 1 else heads, num_angles, frames)
    dfirst_angle = torch.zeros((parts, *late.shape), device=device)
    dq_bias, dk_bias = per_slot(rank, d_state), per_slot(rank, d_state)
    dd_skip = per_slot()
    dmimo = [per_slot(rank, head_dim) if mimo else nothing for _ in range(3)]
    dout_norm = per_slot(head_dim) if normed else nothing

    strides = [part.stride(1) for part in x[:7]]
    rest = d_state - 2 * num_angles
    whole = max(16, triton.next_power_of_2(head_dim))
    block_p = min(config.carry_block_p, whole)
    while block_p > 16 and rows * heads * (whole // block_p) < CARRY_PROGRAMS:
        block_p //= 2
    sizes: dict[str, Any] = {
        "G": groups,
        "P": head_dim,
        "N": d_state,
        "S": num_angles,
        "R": rank,
        "C": chunk,
        "RATE_HEADS": rate_heads,
        "ADJACENT": pairing == "adjacent",
        "MIMO": mimo,
        "NORMED": normed,
        "PACKED": packed,
        "BLOCK_S": max(16, triton.next_power_of_2(num_angles)),
        "BLOCK_REST": max(16, triton.next_power_of_2(rest)) if rest else 0,
        "ROUND": rounded,
        # the interpreter has no products of bfloat16
        "OPERAND": tl.float32 if triton.knobs.runtime.interpret else rounded,
        "num_stages": 1,  # loads are few and tiles large: a second copy would not fit
    }
    place = nothing if borders is None else borders

    def run_chunks(
        index: int, *, gate: bool = False, queries: bool = False, keys: bool = False
    ) -> None:
        chunk_kernel[(layout.slots * blocks,)](
            *x[:7], rates, q_bias, k_bias, d_skip, mimo_x, mimo_z, mimo_o, out_norm,
            kept.ssm, kept.angle, carry, dy, answers, late, place,
            dq, dk, dv, dz, dadt[index], dgamma, dweight, dturn[index], drate[index],
            dfirst_angle[index], dq_bias, dk_bias, dd_skip, *dmimo, dout_norm,
            *strides, rows, frames, heads,
            BLOCK_H=block_h,
            GATE=gate,
            QUERIES=queries,
            KEYS=keys,
            BLOCK_P=whole,
            # a large state needs the registers of more threads
            num_warps=8 if whole * d_state > 2**13 else config.num_warps,
            maxnreg=config.registers,
            **sizes,
        )  # fmt: skip

    with torch.cuda.device_of(x.v):
        if normed:
            run_chunks(0, gate=True)
        carry_kernel[(rows * heads, -(-head_dim // block_p))](
            x.q, x.z, x.dt, x.adt, rates, q_bias, mimo_z, mimo_o, kept.angle,
            dy, answers, last, carry, dfirst, place,
            *(strides[i] for i in (0, 3, 4, 5)), frames, heads,
            BLOCK_P=block_p,
            num_warps=config.carry_warps,
            **sizes,
        )  # fmt: skip
        run_chunks(0, gate=not normed, queries=True, keys=not config.split)
        if config.split:
            run_chunks(1, keys=True)

    # the first frame's share of the initial key and value
    if borders is None:
        begin = torch.arange(rows, device=device) * frames
        end, live = begin + frames, begin.new_ones(rows, dtype=torch.bool)
    else:
        begin, end = borders[:-1].long(), borders[1:].long()
        live = begin < end
    total = batch * frames
    begin, end = begin.clamp(max=total - 1), (end - 1).clamp(min=0)
    lam = torch.sigmoid(x.trap.float())
    dt = x.dt.float()
    share = ((1 - lam) * dt).flatten(0, 1)[begin] * live[:, None]
    key, value = state.k.float().transpose(1, 2), state.v.float().unsqueeze(2)
    weight = mimo_x.float() if mimo else torch.ones(1, 1, 1, device=device)
    toward = key @ dfirst.transpose(-1, -2)  # (rows, H, R, P)
    dshare = torch.zeros_like(dweight).flatten(0, 1)
    dshare[1:] = dweight.flatten(0, 1)[:-1]
    opens = torch.zeros(total, device=device).index_add_(0, begin, live.float())
    dshare *= (opens == 0)[:, None]
    dshare.index_add_(0, begin, (toward * weight * value).sum((2, 3)) * live[:, None])
    dshare = dshare.view_as(dweight)
    toward = toward * share[:, :, None, None]
    first_key = ((weight * value * share[:, :, None, None]) @ dfirst).transpose(1, 2)
    first_value = (toward * weight).sum(2)
    first_angle = dfirst_angle.sum(0)

    # the sums
    dq_all = dq.sum(4, dtype=torch.float32)
    dk_all = dk.sum(4, dtype=torch.float32)
    dk_bias_all = dk_bias.sum(0)
    dmimo_all: list[Tensor | None] = [None] * 3
    if mimo:
        dmimo_x, dmimo_z, dmimo_o = (part.sum(0) for part in dmimo)
        dmimo_all = [dmimo_x + (toward * value).sum(0), dmimo_z, dmimo_o]
    if dkey is not None:
        cos, sin = new_state.angle.cos().unsqueeze(-2), new_state.angle.sin().unsqueeze(-2)
        last_key = rotate(dkey.float().transpose(1, 2), cos, -sin, pairing)
        last_key = last_key * live[:, None, None, None]
        dk_bias_all = dk_bias_all + last_key.sum(0)
        last_key = torch.unflatten(last_key, 1, (groups, -1)).sum(2).transpose(1, 2)
        dk_all.flatten(0, 1).index_add_(0, end, last_key)
    if dvalue is not None:
        last_value = dvalue * live[:, None, None]
        dv.flatten(0, 1).index_add_(0, end, last_value.to(dv.dtype))
    if borders is not None:  # an empty row hands its state on
        gone = ~live[:, None, None]
        if dangle is not None:
            first_angle = first_angle + dangle * gone
        if dkey is not None:
            first_key = first_key + dkey * gone[..., None]
        if dvalue is not None:
            first_value = first_value + dvalue * gone

    drate_all = drate.sum((0, 2)).unsqueeze(1) if rate_heads == 1 else drate.sum(0)
    drate_all = (math.pi * (1 - rates * rates) * drate_all).permute(0, 3, 1, 2)
    ddt = lam * dgamma + (1 - lam) * dshare + dturn.sum(0)
    dtrap = lam * (1 - lam) * dt * (dgamma - dshare)
    dinputs = (
        dq_all, dk_all, dv, dz, ddt, dadt.sum(0), dtrap, drate_all,
    )  # fmt: skip
    dparams = (
        dq_bias.sum(0), dk_bias_all, dd_skip.sum(0), *dmimo_all,
        dout_norm.sum(0) if normed else None,
    )  # fmt: skip
    dfirsts = (first_angle, dfirst, first_key, first_value)
    return (
        SsmInputs._make(d.to(old.dtype) for d, old in zip(dinputs, x, strict=True)),
        SsmParams._make(
            None if old is None or d is None else d.to(old.dtype)
            for d, old in zip(dparams, params, strict=True)
        ),
        SsmState._make(d.to(old.dtype) for d, old in zip(dfirsts, state, strict=True)),
    )
