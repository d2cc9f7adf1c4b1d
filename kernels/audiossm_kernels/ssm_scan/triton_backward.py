"""The scan's gradients in Triton: small kernels, each with a few products of one chunk and head.

In order: ``steps_kernel`` writes what all need of angles and decays, ``gate_kernel`` the gradients
behind the state's answers, which the forward kept. ``carry_kernel`` walks each head's chunks from
the last to the first and leaves at every chunk the gradient of the state it hands on. With that and
the state kept by the forward, chunks are independent: ``values_kernel`` finds the gradients of
values and weights, and ``vectors_kernel`` those of queries and of keys. ``heads_kernel`` sums those
of the shared q and k over the heads, and ``ends_kernel`` finishes dt, A dt, trap and angles.
Gradients per chunk of the small parameters are summed by torch. Nothing is added atomically: equal
calls have equal bits.

One kernel for all of a chunk would read its state once instead of three times, but holds more tiles
than a program has registers: at rank 4 it took three times as long.

Sums over all later frames need no walk. Turning, or weakening, everything after a border is the
same as turning or weakening the state S handed over it, so those sums are products of S and its
gradient dS: <dS, S> for the decay and -<dS, J S> for the angle, J a quarter turn of every pair. The
rounding of S and dS then doesn't add up over chunks. Within a chunk they are <dq, q> - <dk, k> and
the same with J; there the terms of two frames cancel exactly, since both frames get them from the
same rounded scores.

Letters as in ``audiossm_kernels``; weight is the folded one of ``chunked``.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from audiossm_kernels.rotary import rotate
from audiossm_kernels.ssm_scan.layout import ScanLayout
from audiossm_kernels.ssm_scan.triton_carry import carry_kernel
from audiossm_kernels.ssm_scan.triton_ends import ends_kernel, heads_kernel, steps_kernel
from audiossm_kernels.ssm_scan.triton_forward import Kept, whole_frames
from audiossm_kernels.ssm_scan.triton_outputs import gate_kernel
from audiossm_kernels.ssm_scan.triton_values import values_kernel
from audiossm_kernels.ssm_scan.triton_vectors import vectors_kernel
from audiossm_kernels.state import Pairing, SsmInputs, SsmParams, SsmState

__all__ = ["CONFIGS", "BackwardConfig", "choose_config", "launch_backward"]

# the walk is cut along the state's rows, as far as it goes, until there are so many programs
CARRY_PROGRAMS = 256
SUM_FRAMES = 32  # of a program that sums over heads
GATE_COLUMNS, GATE_ELEMENTS = 32, 512  # of a program and of a warp of the gate's gradients
END_HEADS = 8  # of a program that finishes steps and angles, at most


class BackwardConfig(NamedTuple):
    """How the kernels are laid out on the card."""

    values_warps: int = 4
    vectors_warps: int = 4
    carry_warps: int = 4
    # elements of a state that a program has at a time: its rows are cut to this
    state_elements: int = 2**13
    carry_elements: int = 2**13
    carry_stages: int = 1
    # of a thread at most, in the order of the warps; by default the compiler's choice
    registers: tuple[int | None, ...] = (None, None, None)


# By bytes of an element; then the first whose rank and d_state are not smaller. All fit 99 KB of
# shared memory, as consumer cards have it.
CONFIGS = {
    2: {
        (1, 128): BackwardConfig(carry_stages=2),
        (8, 128): BackwardConfig(carry_stages=2, registers=(168, 168, None)),
        (8, 256): BackwardConfig(4, 8, 8),
    },
    4: {
        (8, 128): BackwardConfig(state_elements=2**12, carry_elements=2**12),
        (8, 256): BackwardConfig(8, 8, 8, state_elements=2**12, carry_elements=2**12),
    },
}


def choose_config(itemsize: int, rank: int, d_state: int) -> BackwardConfig:
    """Return the layout for operands of ``itemsize`` bytes, from ``CONFIGS``."""
    table = CONFIGS[itemsize]
    return next(config for (r, n), config in table.items() if rank <= r and d_state <= n)


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
        config = choose_config(kept.ssm.element_size(), rank, d_state)
    narrow = kept.ssm.dtype != torch.float32
    rounded = tl.bfloat16 if narrow else tl.float32
    x = SsmInputs._make(even_frames(part) for part in x)
    dy = dy.contiguous()
    given = [None if part is None else part.contiguous() for part in params]
    turns_dtype = kept.ssm.dtype
    if narrow and params.out_norm is not None:  # turned exactly, as in the forward
        turns_dtype = torch.float16
    elif narrow:  # as their sums with vectors, which become operands
        given[:2] = [part.to(torch.bfloat16) for part in params[:2]]
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

    lead, slots, dtype = (batch, frames), (layout.slots, heads), kept.ssm.dtype
    block_s = max(16, triton.next_power_of_2(num_angles))
    rest = d_state - 2 * num_angles
    whole = max(16, triton.next_power_of_2(head_dim))
    width = triton.next_power_of_2(d_state)
    block_p = max(16, min(whole, config.state_elements // width))
    gate_p = whole if normed else min(whole, GATE_COLUMNS)
    carry_p = max(16, min(whole, config.carry_elements // width))
    while carry_p > 16 and rows * heads * (whole // carry_p) < CARRY_PROGRAMS:
        carry_p //= 2

    turns = empty(*slots, chunk, 2 * block_s, dtype=turns_dtype)
    steps, total = empty(*slots, 4, chunk), empty(*slots)
    answers = empty(*lead, heads, rank, head_dim, dtype=dtype)
    carry = empty(*slots, head_dim, d_state, dtype=dtype)
    dfirst, end_ssm = torch.empty_like(last), new_state.ssm.to(dtype)
    q_heads = empty(*lead, heads, rank, d_state, dtype=dtype)
    k_heads = torch.empty_like(q_heads)
    decays, turned = empty(*slots, 2, chunk), empty(*slots, chunk, num_angles)
    end_turns, dtotal = empty(*slots, num_angles), empty(*slots)
    dv, dz = empty(*lead, heads, head_dim, dtype=x.v.dtype), torch.empty_like(dy, dtype=x.z.dtype)
    dgamma, dweight = empty(*lead, heads), empty(*lead, heads)
    dq = empty(*x.q.shape, dtype=x.q.dtype)
    dk = empty(*x.k.shape, dtype=x.k.dtype if dkey is None else torch.float32)
    sums = -(-batch * frames // SUM_FRAMES)
    dq_bias, dk_bias = (empty(sums, heads, rank, d_state) for _ in range(2))
    dd_skip = per_slot()
    dmimo = [per_slot(rank, head_dim) if mimo else nothing for _ in range(3)]
    dout_norm = per_slot(head_dim) if normed else nothing
    ddt, dadt, dtrap, dangles = (empty(*part.shape, dtype=part.dtype) for part in x[4:])
    block_h = max(n for n in range(1, END_HEADS + 1) if heads % n == 0)
    if rate_heads == 1:
        dangles = empty(heads // block_h, *x.angles.shape)
    first_angle = torch.zeros_like(late)

    q_frame, k_frame, v_frame, z_frame, *step_frames = (part.stride(1) for part in x)
    place = nothing if borders is None else borders
    grid = (layout.slots * heads,)
    of_chunks: dict[str, Any] = {"C": chunk, "PACKED": packed, "BLOCK_S": block_s, "S": num_angles}
    of_steps = of_chunks | {"RATE_HEADS": rate_heads}
    of_heads: dict[str, Any] = {
        "P": head_dim,
        "R": rank,
        "C": chunk,
        "MIMO": mimo,
        "PACKED": packed,
        "BLOCK_P": gate_p,
        "num_warps": max(1, min(4, chunk * gate_p // GATE_ELEMENTS)),
    }
    sizes = of_chunks | {
        "G": groups,
        "P": head_dim,
        "N": d_state,
        "R": rank,
        "ADJACENT": pairing == "adjacent",
        "BLOCK_REST": max(16, triton.next_power_of_2(rest)) if rest else 0,
        "ROUND": rounded,
        # the interpreter has no products of bfloat16
        "OPERAND": tl.float32 if triton.knobs.runtime.interpret else rounded,
    }
    with torch.cuda.device_of(x.v):
        steps_kernel[grid](
            *x[4:], kept.angle, place, turns, steps, total, *step_frames, rows, frames, heads,
            ADJACENT=pairing == "adjacent",
            num_warps=4 if chunk * block_s >= 2048 else 1,
            **of_steps,
        )  # fmt: skip
        gate_kernel[(*grid, -(-head_dim // gate_p))](
            x.z, mimo_z, mimo_o, out_norm, dy, place, kept.outputs, answers, dz, *dmimo[1:],
            dout_norm, z_frame, rows, frames, heads,
            NORMED=normed,
            **of_heads,
        )  # fmt: skip
        carry_kernel[(rows * heads, -(-head_dim // carry_p))](
            x.q, q_bias, answers, turns, steps, total, place, last, carry, dfirst,
            q_frame, frames, heads,
            BLOCK_P=carry_p,
            STAGES=config.carry_stages,
            num_warps=config.carry_warps,
            maxnreg=config.registers[2],
            **sizes,
        )  # fmt: skip
        values_kernel[grid](
            *x[:3], q_bias, k_bias, mimo_x, turns, steps, kept.ssm, end_ssm, carry, answers, late,
            place, d_skip, dv, dd_skip, dmimo[0], dgamma, dweight, end_turns, dtotal,
            q_frame, k_frame, v_frame, rows, frames, heads,
            MIMO=mimo,
            BLOCK_P=block_p,
            num_warps=config.values_warps,
            num_stages=1,
            maxnreg=config.registers[0],
            **sizes,
        )  # fmt: skip
        vectors_kernel[grid](
            *x[:3], q_bias, k_bias, mimo_x, turns, steps, kept.ssm, carry, answers, place,
            q_heads, k_heads, decays, turned, q_frame, k_frame, v_frame, rows, frames, heads,
            MIMO=mimo,
            BLOCK_P=block_p,
            num_warps=config.vectors_warps,
            num_stages=1,
            maxnreg=config.registers[1],
            **sizes,
        )  # fmt: skip
        block = min(64, triton.next_power_of_2(rank * d_state))
        for part, summed, bias in ((q_heads, dq, dq_bias), (k_heads, dk, dk_bias)):
            heads_kernel[(sums, groups, -(-rank * d_state // block))](
                part, summed, bias, batch * frames, heads, groups, d_state, rank,
                BLOCK_T=SUM_FRAMES,
                BLOCK=block,
                num_warps=1,  # which needs no barriers
            )  # fmt: skip

    # the first frame's share of the initial key and value
    if borders is None:
        begin = torch.arange(rows, device=device) * frames
        end, live = begin + frames, begin.new_ones(rows, dtype=torch.bool)
    else:
        begin, end = borders[:-1].long(), borders[1:].long()
        live = begin < end
    first = begin.clamp(max=batch * frames - 1)
    end = (end - 1).clamp(min=0)
    share = torch.sigmoid(-x.trap.float().flatten(0, 1)[first])
    share = share * x.dt.float().flatten(0, 1)[first] * live[:, None]
    key, value = state.k.float().transpose(1, 2), state.v.float().unsqueeze(2)
    weight = mimo_x.float() if mimo else torch.ones(1, 1, 1, device=device)
    toward = key @ dfirst.transpose(-1, -2)  # (rows, H, R, P)
    first_share = (toward * weight * value).sum((2, 3))
    with torch.cuda.device_of(x.v):
        ends_kernel[(layout.slots, heads // block_h)](
            *x[4:], place, dgamma, dweight, decays, turned, end_turns, dtotal,
            first_share, ddt, dadt, dtrap, dangles, first_angle,
            *step_frames, rows, frames, batch * frames, heads,
            BLOCK_H=block_h,
            REST=rest > 0,
            num_warps=1,  # which needs no barriers
            **of_steps,
        )  # fmt: skip
    if rate_heads == 1:
        dangles = dangles.sum(0)
    toward = toward * share[:, :, None, None]
    first_key = ((weight * value * share[:, :, None, None]) @ dfirst).transpose(1, 2)
    first_value = (toward * weight).sum(2)

    # the sums
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
        dk.flatten(0, 1).index_add_(0, end, last_key)
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

    dinputs = (dq, dk, dv, dz, ddt, dadt, dtrap, dangles)
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
