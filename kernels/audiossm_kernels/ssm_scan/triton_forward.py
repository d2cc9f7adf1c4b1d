"""Many frames of the Mamba-3 mixer core in Triton: one program walks the chunks of a segment.

A program holds a head's state in registers and takes its frames chunk by chunk, each in four
products: scores = q k', out = scores v + q state', state = decay state + (weight v)' k. Keys and
queries of a head are made on the way from the groups' normed vectors and never written; their
angles and the weights of the frames come from ``triton_marks``.

Where rows and heads are too few for the card, a row is cut into segments. A first walk finds what
each segment adds to a state of zero; ``join_kernel`` hands the state from segment to segment; the
second walk starts every segment from there.

A frame's row stands once per rank: row t R + r of a chunk. What differs by rank only, or by frame
only, is loaded so and repeated within threads.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from audiossm_kernels.ssm_scan.layout import ScanLayout, chunk_frames
from audiossm_kernels.ssm_scan.triton_marks import make_marks
from audiossm_kernels.ssm_scan.triton_walk import join_kernel, walk_kernel
from audiossm_kernels.state import Pairing, SsmInputs, SsmParams, SsmState

__all__ = ["CONFIGS", "Kept", "ScanConfig", "choose_config", "launch_forward", "whole_frames"]


class ScanConfig(NamedTuple):
    """How a walk is laid out on the card."""

    rows: int  # of a product: frames of a chunk times the rank
    num_warps: int
    num_stages: int = 1  # chunks that are loaded at a time
    block_p: int = 64  # rows of the state in one program
    # frames of a segment for each head: no batch size in it, so that a row's bits don't depend on
    # how many rows there are
    segment: int = 32
    registers: int | None = None  # of a thread at most; the compiler's choice by default
    first_registers: int | None = None  # the same for the walk that has no outputs
    # keys and queries are turned in bfloat16: half the work, twice the error; not with out_norm
    pairs: bool = False
    again: bool = False  # biases are read for every chunk, not held in registers
    ahead: bool = False  # the next chunk is called into the L2 cache


class Kept(NamedTuple):
    """What the backward needs of the walk: the state carried into every chunk, in its slot."""

    ssm: Tensor  # (slots, H, P, N): look-ahead share included, angles as they are
    angle: Tensor  # (slots, H, S) float32: turns before the chunk's first frame, in [0, 1)
    outputs: Tensor  # (B, L, H, R, P): the state's answers and the skip, before norm and gate


# A row of so many segments gets half as many, which fill the card still. The walk without outputs
# takes them in four parts: few long programs would leave processors idle at its end.
LONG = 8

# By bytes of an operand; then the first whose rank and d_state are not smaller.
CONFIGS = {
    2: {
        (1, 128): ScanConfig(64, 4, 2, first_registers=168, pairs=True),
        (1, 256): ScanConfig(64, 4, block_p=32, pairs=True, again=True, ahead=True),
        (8, 128): ScanConfig(64, 4, 2, first_registers=168, pairs=True),
        (8, 256): ScanConfig(64, 4, block_p=32, pairs=True, ahead=True),
    },
    4: {(8, 128): ScanConfig(32, 8, block_p=32), (8, 256): ScanConfig(32, 8, block_p=16)},
}


def choose_config(itemsize: int, rank: int, d_state: int) -> ScanConfig:
    """Return the layout for operands of ``itemsize`` bytes, from ``CONFIGS``."""
    table = CONFIGS[itemsize]
    return next(config for (r, n), config in table.items() if rank <= r and d_state <= n)


def whole_chunks(frames: int, chunk: int) -> int:
    """Return ``frames``, at least a chunk, rounded up to whole ones."""
    return -(-max(frames, chunk) // chunk) * chunk


def whole_frames(x: Tensor) -> Tensor:
    """Return ``x`` with every frame contiguous; frames may lie apart, as slices do."""
    return x if x[:1, :1].is_contiguous() else x.contiguous()


def launch_forward(
    x: SsmInputs,
    params: SsmParams,
    state: SsmState,
    pairing: Pairing,
    *,
    borders: Tensor | None = None,
    keep: bool = False,
    config: ScanConfig | None = None,
) -> tuple[Tensor, SsmState, Kept | None]:
    """Run the scan; shapes as in ``ssm_scan``.

    Args:
        x: frames, of float32, bfloat16 or float16.
        params: small parameters.
        state: float32, a row per sequence.
        pairing: pairs that rotate.
        borders: (n + 1,) int64, of sequences packed in one row.
        keep: whether the state before every chunk of ``ScanLayout`` is wanted.
        config: a layout other than the shipped one.
    Returns:
        y: (B, L, H, P), dtype of ``v``; the state after the last frame, float32; and what was kept.
    """
    batch, frames, rank, groups, d_state = x.q.shape
    heads, head_dim = x.v.shape[2:]
    num_angles, device = state.angle.shape[-1], x.v.device
    rows = batch if borders is None else len(borders) - 1
    narrow = torch.float32 not in (x.q.dtype, x.k.dtype, x.v.dtype)
    itemsize = 2 if narrow else 4
    if config is None:
        config = choose_config(itemsize, rank, d_state)
    chunk = chunk_frames(rank, itemsize) if keep else max(1, config.rows // rank)
    layout = ScanLayout(rows, frames, chunk, borders is not None)
    # half turns per unit of dt, once for all heads, time along the last axis
    turned = x.angles.permute(0, 2, 3, 1)
    rates = torch.empty(turned.shape, device=device).copy_(turned).tanh_()
    x = SsmInputs._make(whole_frames(part) for part in x)
    params = SsmParams._make(None if part is None else part.contiguous() for part in params)
    state = SsmState._make(part.contiguous() for part in state)

    y = torch.empty(x.v.shape, dtype=x.v.dtype, device=device)
    new_state = SsmState._make(torch.empty_like(part) for part in state)
    kept_ssm = kept_outputs = nothing = params.d_skip  # stands for what the variant hasn't
    if keep:
        kept_ssm, kept_outputs = (
            torch.empty(size, dtype=torch.bfloat16 if narrow else torch.float32, device=device)
            for size in (
                (layout.slots, heads, head_dim, d_state),
                (batch, frames, heads, rank, head_dim),
            )
        )
    if rows == 0:
        return y, new_state, Kept(kept_ssm, state.angle, kept_outputs) if keep else None

    block_s = max(16, triton.next_power_of_2(num_angles))
    rest = d_state - 2 * num_angles
    block_rest = max(16, triton.next_power_of_2(rest)) if rest else 0
    whole = max(16, triton.next_power_of_2(head_dim))
    block_p = whole if params.out_norm is not None else min(config.block_p, whole)
    segment = part = whole_chunks(config.segment * heads, chunk)
    # a packed row's bits must not depend on how many there are
    if borders is None and frames >= LONG * segment:
        part = whole_chunks(config.segment * heads // 2, chunk)
        segment = 4 * part
    segments, parts = (
        ScanLayout(rows, frames, size, borders is not None) for size in (segment, part)
    )
    cut = frames > segment
    borders_or_not = nothing if borders is None else borders
    sizes = {
        "P": head_dim,
        "N": d_state,
        "S": num_angles,
        "R": rank,
        "ADJACENT": pairing == "adjacent",
        "MIMO": params.mimo_x is not None,
        "PACKED": borders is not None,
        "SEGMENT": segment,
        "PART": part,
        "BLOCK_S": block_s,
        "BLOCK_REST": block_rest,
    }
    walked = (*x[:5], x.trap)
    distances = {
        f"{label}_FRAME": part.stride(1)
        for label, part in zip(("Q", "K", "V", "Z", "DT", "TRAP"), walked, strict=True)
    }
    # the interpreter has no products of bfloat16
    operand = tl.bfloat16 if narrow and not triton.knobs.runtime.interpret else tl.float32

    # a norm magnifies the rounding of frames with small answers, which have most of its gradient
    pairs = config.pairs and narrow and params.out_norm is None

    def walk(part_ssm: Tensor, part_decay: Tensor, *, outputs: bool) -> None:
        slots = (segments if outputs else parts).slots
        walk_kernel[(slots * heads, triton.cdiv(head_dim, block_p))](
            *walked,
            borders_or_not,
            *(nothing if part is None else part for part in params),
            *marks[:3],
            *state[1:],
            *new_state,
            part_ssm,
            part_decay,
            kept_ssm,
            kept_outputs,
            y,
            *(part.stride(0) for part in walked),
            rows,
            frames,
            **sizes,
            **distances,
            H=heads,
            G=groups,
            OUT_NORM=params.out_norm is not None,
            CHUNK=chunk,
            CUT=cut,
            OUTPUTS=outputs,
            KEEP=keep and outputs,
            BLOCK_P=block_p,
            OPERAND=operand,
            PAIRS=pairs,
            AGAIN=config.again,
            AHEAD=config.ahead,
            STAGES=config.num_stages,
            num_warps=config.num_warps,
            maxnreg=config.registers if outputs else config.first_registers,
        )

    if narrow:
        turns_dtype = torch.bfloat16 if pairs else torch.float16
    else:
        turns_dtype = torch.float32
    with torch.cuda.device_of(y):
        marks = make_marks(
            x,
            rates,
            state.angle,
            new_state.angle,
            layout,
            borders_or_not,
            block_s,
            adjacent=pairing == "adjacent",
            dtype=turns_dtype,
        )
        kept = Kept(kept_ssm, marks.angle, kept_outputs) if keep else None
        if not cut:
            walk(nothing, nothing, outputs=True)
            return y, new_state, kept
        width = 2 * block_s + block_rest
        part_ssm, start_ssm = torch.empty(
            2, parts.slots, heads, head_dim, width, device=device
        ).unbind()
        part_decay = torch.empty(parts.slots, heads, device=device)
        walk(part_ssm, part_decay, outputs=False)
        block_p_joined = 16
        join_kernel[(rows * heads, triton.cdiv(head_dim, block_p_joined))](
            x.dt,
            x.trap,
            borders_or_not,
            nothing if params.mimo_x is None else params.mimo_x,
            *state[1:],
            part_ssm,
            part_decay,
            start_ssm,
            x.dt.stride(0),
            x.trap.stride(0),
            x.dt.stride(1),
            x.trap.stride(1),
            frames,
            parts.chunks_per_row,
            heads,
            **sizes,
            STAGES=3,
            BLOCK_P=block_p_joined,
            num_warps=4,
        )
        walk(start_ssm, part_decay, outputs=True)
    return y, new_state, kept
