"""What the kernels of the scan's backward share: frames, turns and vectors of one chunk.

A chunk of C frames is a matrix of C * R rows: row i is rank i % R of frame i // R. State dimensions
that rotate together stand in two matrices, the first members of all J pairs and the second ones, so
that a turn is plain arithmetic for both pairings. Sizes that aren't powers of two are padded with
zeros: BLOCK_C frames of BLOCK_R ranks, J of N / 2 pairs.
"""

import triton
import triton.language as tl

from audiossm_kernels.triton_math import cos_sin

__all__ = [
    "chunk_factors",
    "chunk_place",
    "chunk_turns",
    "load_pairs",
    "load_turned",
    "operand",
    "over_frames",
    "over_ranks",
    "product",
    "spread",
    "store_pairs",
]

# Beyond e^-28 a frame has forgotten all; larger sums would blur the weak decays after them.
LEAST_DECAY = tl.constexpr(-28.0)


@triton.jit
def operand(x, ROUND: tl.constexpr, OPERAND: tl.constexpr):
    """Round to what the products take; the interpreter has no products of bfloat16."""
    return x.to(ROUND).to(OPERAND)


@triton.jit
def product(a, b, acc, EXACT: tl.constexpr):
    """Return ``acc + a b``, sums in float32; EXACT for float32 operands on a card."""
    if EXACT:
        return tl.dot(a, b, acc=acc, input_precision="ieee")
    return tl.dot(a, b, acc=acc)


@triton.jit
def load_pairs(ptr, rows, inside, N: tl.constexpr, J: tl.constexpr, ADJACENT: tl.constexpr):
    """Load vectors of N elements at offsets ``rows``: two tensors (len(rows), J), pairs apart."""
    if ADJACENT:
        n = tl.arange(0, 2 * J)
        x = tl.load(
            ptr + rows[:, None] + n[None, :], mask=inside[:, None] & (n < N)[None, :], other=0.0
        )
        return tl.split(tl.reshape(x, (rows.shape[0], J, 2)))
    j = tl.arange(0, J)
    mask = inside[:, None] & (j < N // 2)[None, :]
    at = ptr + rows[:, None] + j[None, :]
    return tl.load(at, mask=mask, other=0.0), tl.load(at + N // 2, mask=mask, other=0.0)


@triton.jit
def store_pairs(
    ptr, rows, inside, first, second, N: tl.constexpr, J: tl.constexpr, ADJACENT: tl.constexpr
):
    """Store what ``load_pairs`` loads."""
    if ADJACENT:
        n = tl.arange(0, 2 * J)
        x = tl.reshape(tl.join(first, second), (rows.shape[0], 2 * J))
        tl.store(
            ptr + rows[:, None] + n[None, :],
            x.to(ptr.dtype.element_ty),
            mask=inside[:, None] & (n < N)[None, :],
        )
    else:
        j = tl.arange(0, J)
        mask = inside[:, None] & (j < N // 2)[None, :]
        at = ptr + rows[:, None] + j[None, :]
        tl.store(at, first.to(ptr.dtype.element_ty), mask=mask)
        tl.store(at + N // 2, second.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def spread(x, BLOCK_C: tl.constexpr, BLOCK_R: tl.constexpr, J: tl.constexpr):
    """(C, J) -> (C * R, J): every rank gets its frame's."""
    if BLOCK_R == 1:
        return x
    wide = tl.broadcast_to(x[:, None, :], (BLOCK_C, BLOCK_R, J))
    return tl.reshape(wide, (BLOCK_C * BLOCK_R, J))


@triton.jit
def over_ranks(x, BLOCK_C: tl.constexpr, BLOCK_R: tl.constexpr, J: tl.constexpr):
    """(C * R, J) -> (C, J): sum."""
    if BLOCK_R == 1:
        return x
    return tl.sum(tl.reshape(x, (BLOCK_C, BLOCK_R, J)), axis=1)


@triton.jit
def over_frames(x, BLOCK_C: tl.constexpr, BLOCK_R: tl.constexpr, J: tl.constexpr):
    """(C * R, J) -> (R, J): sum."""
    return tl.sum(tl.reshape(x, (BLOCK_C, BLOCK_R, J)), axis=0)


@triton.jit
def chunk_place(slot, row_ptr, borders_ptr, L, C: tl.constexpr, PACKED: tl.constexpr):
    """Return the row of a slot, its chunk there, and the first frame of the chunk and past the row.

    Frames count through all rows; a free slot's chunk starts past its row.
    """
    if PACKED:
        row = tl.load(row_ptr + slot).to(tl.int64)
        begin = tl.load(borders_ptr + row).to(tl.int64)
        end = tl.load(borders_ptr + row + 1).to(tl.int64)
        chunk = slot - (begin // C + row)
    else:
        per_row = tl.cdiv(L, C)
        row, chunk = slot // per_row, slot % per_row
        begin, end = row * L, row * L + L
    return row, chunk, begin + chunk * C, end


@triton.jit
def chunk_factors(
    adt_ptr, dt_ptr, trap_ptr, frame, inside, end, head, r, adt_frame, dt_frame, trap_frame
):
    """Return the log decay since the chunk began, its total, gamma and weight of every row."""
    adt = tl.load(adt_ptr + frame * adt_frame + head, mask=inside, other=0.0).to(tl.float32)
    adt = tl.where(r == 0, tl.minimum(tl.maximum(adt, LEAST_DECAY), 0.0), 0.0)
    decay = tl.cumsum(adt, axis=0)
    dt = tl.load(dt_ptr + frame * dt_frame + head, mask=inside, other=0.0).to(tl.float32)
    trap = tl.load(trap_ptr + frame * trap_frame + head, mask=inside, other=0.0).to(tl.float32)
    after = inside & (frame + 1 < end)
    next_dt = tl.load(dt_ptr + (frame + 1) * dt_frame + head, mask=after, other=0.0)
    next_trap = tl.load(trap_ptr + (frame + 1) * trap_frame + head, mask=after, other=0.0)
    gamma = dt * tl.sigmoid(trap)
    share = next_dt.to(tl.float32) * tl.sigmoid(-next_trap.to(tl.float32))
    return decay, tl.sum(adt, axis=0), gamma, gamma + share


@triton.jit
def chunk_turns(start_ptr, rate, dt, S: tl.constexpr, J: tl.constexpr):
    """Return cosine and sine (C, J) of the angles in a chunk, given ``rate`` in turns."""
    j = tl.arange(0, J)
    start = tl.load(start_ptr + j, mask=j < S, other=0.0).to(tl.float32)
    turns = tl.cumsum(rate * dt[:, None], axis=0) + start[None, :]
    turns -= tl.floor(turns)
    turns = tl.where(turns >= 1, 0.0, turns)  # a tiny negative angle rounds up to a full turn
    return cos_sin(turns)


@triton.jit
def load_turned(
    x_ptr,
    rows,
    inside,
    bias_ptr,
    bias_rows,
    bias_inside,
    cos,
    sin,
    N: tl.constexpr,
    J: tl.constexpr,
    ADJACENT: tl.constexpr,
    ROUND: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """Load vectors, add the biases of their ranks and turn them."""
    a, b = load_pairs(x_ptr, rows, inside, N, J, ADJACENT)
    bias_a, bias_b = load_pairs(bias_ptr, bias_rows, bias_inside, N, J, ADJACENT)
    a, b = a.to(tl.float32) + bias_a.to(tl.float32), b.to(tl.float32) + bias_b.to(tl.float32)
    first, second = a * cos - b * sin, a * sin + b * cos
    return operand(first, ROUND, OPERAND), operand(second, ROUND, OPERAND)
