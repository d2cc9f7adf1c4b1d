"""The parts that a scan's kernels hold a vector in, and what its passes share.

The N dimensions of a vector are held as three tiles: first halves of the pairs that turn, second
halves, and the rest.
"""

import triton
import triton.language as tl

from audiossm_kernels.triton_math import sigmoid, widen

__all__ = [
    "add_first",
    "find_row",
    "first_state",
    "load_parts",
    "load_rows",
    "load_tiles",
    "load_weights",
    "merge",
    "place_chunk",
    "repeat",
    "rest_index",
    "split_ranks",
    "store_parts",
    "store_rows",
    "store_tiles",
    "turn",
    "unmerge",
]


@triton.jit
def rest_index(N: tl.constexpr, S: tl.constexpr, BLOCK_REST: tl.constexpr, ADJACENT: tl.constexpr):
    """Return the dimensions that don't turn."""
    j = tl.arange(0, BLOCK_REST)
    if ADJACENT:
        return j + 2 * S
    i = j + tl.where(j < N // 2 - S, S, 2 * S)
    if S % 8 == 0 and (N // 2) % 8 == 0:
        i = tl.max_contiguous(tl.multiple_of(i, 8), 8)
    return i


@triton.jit
def load_rows(
    rows,
    inside,
    N: tl.constexpr,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ADJACENT: tl.constexpr,
):
    """Load vectors of N elements at the pointers ``rows``: first halves, second halves, rest.

    Adjacent pairs stay together, in the place of both halves.
    """
    rows, inside = rows[:, None], inside[:, None]
    if ADJACENT:
        j = tl.arange(0, 2 * BLOCK_S)[None, :]
        a = tl.load(rows + j, mask=inside & (j < 2 * S), other=0.0)
        b = a
    else:
        j = tl.arange(0, BLOCK_S)[None, :]
        a = tl.load(rows + j, mask=inside & (j < S), other=0.0)
        b = tl.load(rows + N // 2 + j, mask=inside & (j < S), other=0.0)
    c = a
    if BLOCK_REST > 0:
        i = rest_index(N, S, BLOCK_REST, ADJACENT)[None, :]
        c = tl.load(rows + i, mask=inside & (i < N), other=0.0)
    return a, b, c


@triton.jit
def store_rows(
    rows,
    inside,
    x,
    N: tl.constexpr,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ADJACENT: tl.constexpr,
):
    """Store what ``load_rows`` loads."""
    a, b, c = x
    rows, inside = rows[:, None], inside[:, None]
    dtype = rows.dtype.element_ty
    if ADJACENT:
        j = tl.arange(0, 2 * BLOCK_S)[None, :]
        tl.store(rows + j, a.to(dtype), mask=inside & (j < 2 * S))
    else:
        j = tl.arange(0, BLOCK_S)[None, :]
        tl.store(rows + j, a.to(dtype), mask=inside & (j < S))
        tl.store(rows + N // 2 + j, b.to(dtype), mask=inside & (j < S))
    if BLOCK_REST > 0:
        i = rest_index(N, S, BLOCK_REST, ADJACENT)[None, :]
        tl.store(rows + i, c.to(dtype), mask=inside & (i < N))


@triton.jit
def load_parts(
    rows,
    inside,
    N: tl.constexpr,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ADJACENT: tl.constexpr,
):
    """Load what ``load_rows`` does, pairs taken apart."""
    a, b, c = load_rows(rows, inside, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
    if ADJACENT:
        a, b = tl.split(tl.reshape(a, (a.shape[0], BLOCK_S, 2)))
        if BLOCK_REST == 0:
            c = a
    return a, b, c


@triton.jit
def store_parts(
    rows,
    inside,
    a,
    b,
    c,
    N: tl.constexpr,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ADJACENT: tl.constexpr,
):
    """Store what ``load_parts`` loads."""
    if ADJACENT:
        dtype = rows.dtype.element_ty
        a = tl.reshape(tl.join(a.to(dtype), b.to(dtype)), (a.shape[0], 2 * BLOCK_S))
    store_rows(rows, inside, (a, b, c), N, S, BLOCK_S, BLOCK_REST, ADJACENT)


@triton.jit
def turn(x, bias, cos, sin):
    """Add the bias to the parts of vectors and turn their pairs."""
    a, b, c = x
    a_bias, b_bias, c_bias = bias
    a = widen(a) + a_bias.to(tl.float32)
    b = widen(b) + b_bias.to(tl.float32)
    c = widen(c) + c_bias.to(tl.float32)
    return a * cos - b * sin, a * sin + b * cos, c


@triton.jit
def add_first(a, x, y, next_a, next_x, next_y):
    """Sum the first of three.

    The others go along only to be seen as results of a scan: else the compiler would make them
    anew, loads and all, for each layout that they are needed in, which takes all registers.
    """
    return a + next_a, next_x, next_y


@triton.jit
def repeat(x, R: tl.constexpr):
    """Return every row of a tile R times."""
    if R == 1:
        return x
    else:
        many = tl.broadcast_to(x[:, None, :], (x.shape[0], R, x.shape[1]))
        return tl.reshape(many, (x.shape[0] * R, x.shape[1]))


@triton.jit
def merge(a, b, ADJACENT: tl.constexpr):
    """Return adjacent pairs as one tile (.., 2 S), or the first halves as they are."""
    if not ADJACENT:
        return a
    elif len(a.shape) == 3:
        return tl.reshape(tl.join(a, b), (a.shape[0], a.shape[1], 2 * a.shape[2]))
    else:
        return tl.reshape(tl.join(a, b), (a.shape[0], 2 * a.shape[1]))


@triton.jit
def unmerge(a, b, ADJACENT: tl.constexpr):
    """Return both halves of the pairs of a two-dimensional tile that ``merge`` made."""
    if ADJACENT:
        return tl.split(tl.reshape(a, (a.shape[0], a.shape[1] // 2, 2)))
    else:
        return a, b


@triton.jit
def load_tiles(
    rows,
    on,
    N: tl.constexpr,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ADJACENT: tl.constexpr,
):
    """Load vectors at the pointers ``rows`` (frames, ranks, 1) in parts (frames, ranks, width)."""
    if ADJACENT:
        j = tl.arange(0, 2 * BLOCK_S)[None, None, :]
        mask = on if S == BLOCK_S else on & (j < 2 * S)
        pairs = tl.load(rows + j, mask=mask, other=0.0)
        a, b = tl.split(tl.reshape(pairs, (rows.shape[0], rows.shape[1], BLOCK_S, 2)))
    else:
        j = tl.arange(0, BLOCK_S)[None, None, :]
        mask = on if S == BLOCK_S else on & (j < S)
        a = tl.load(rows + j, mask=mask, other=0.0)
        b = tl.load(rows + N // 2 + j, mask=mask, other=0.0)
    c = a
    if BLOCK_REST > 0:
        i = rest_index(N, S, BLOCK_REST, ADJACENT)[None, None, :]
        mask = on if N - 2 * S == BLOCK_REST else on & (i < N)
        c = tl.load(rows + i, mask=mask, other=0.0)
    return a, b, c


@triton.jit
def store_tiles(
    rows,
    on,
    a,
    b,
    c,
    N: tl.constexpr,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ADJACENT: tl.constexpr,
):
    """Store what ``load_tiles`` loads."""
    dtype = rows.dtype.element_ty
    if ADJACENT:
        j = tl.arange(0, 2 * BLOCK_S)[None, None, :]
        mask = on if S == BLOCK_S else on & (j < 2 * S)
        tl.store(rows + j, merge(a.to(dtype), b.to(dtype), True), mask=mask)
    else:
        j = tl.arange(0, BLOCK_S)[None, None, :]
        mask = on if S == BLOCK_S else on & (j < S)
        tl.store(rows + j, a.to(dtype), mask=mask)
        tl.store(rows + N // 2 + j, b.to(dtype), mask=mask)
    if BLOCK_REST > 0:
        i = rest_index(N, S, BLOCK_REST, ADJACENT)[None, None, :]
        mask = on if N - 2 * S == BLOCK_REST else on & (i < N)
        tl.store(rows + i, c.to(dtype), mask=mask)


@triton.jit
def split_ranks(x, R: tl.constexpr):
    """Return the R tiles (frames, width) of a tile (frames R, width): each thread has all ranks."""
    T: tl.constexpr = x.shape[0] // R
    P: tl.constexpr = x.shape[1]
    if R == 1:
        return (x,)
    elif R == 2:
        return tl.split(tl.permute(tl.reshape(x, (T, 2, P)), (0, 2, 1)))
    elif R == 4:
        low, high = tl.split(tl.permute(tl.reshape(x, (T, 2, 2, P)), (0, 3, 2, 1)))
        x0, x1 = tl.split(low)
        x2, x3 = tl.split(high)
        return x0, x1, x2, x3
    else:
        tl.static_assert(R == 8)
        low, high = tl.split(tl.permute(tl.reshape(x, (T, 2, 2, 2, P)), (0, 4, 3, 2, 1)))
        x01, x23 = tl.split(low)
        x45, x67 = tl.split(high)
        x0, x1 = tl.split(x01)
        x2, x3 = tl.split(x23)
        x4, x5 = tl.split(x45)
        x6, x7 = tl.split(x67)
        return x0, x1, x2, x3, x4, x5, x6, x7


@triton.jit
def load_weights(weights, inside, WHOLE: tl.constexpr):
    """Load a rank's weights as a row (1, width), float32; where WHOLE, ``inside`` is all true."""
    if WHOLE:
        return tl.load(weights).to(tl.float32)[None, :]
    else:
        return tl.load(weights, mask=inside, other=0.0).to(tl.float32)[None, :]


@triton.jit
def first_state(
    ssm_ptr,
    old_k_ptr,
    old_v_ptr,
    dt_ptr,
    trap_ptr,
    mimo_x_ptr,
    any_frame,
    row,
    head,
    heads,
    p,
    P: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
    R: tl.constexpr,
    MIMO: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ADJACENT: tl.constexpr,
):
    """Return the rows ``p`` of the state before a row's first frame, with that frame's share.

    Its parts are those of a walk: adjacent pairs in one tile, which is the first.
    """
    place = row * heads + head
    inside = p < P
    a, b, c = load_parts(
        ssm_ptr + place * (P * N) + p * N, inside, N, S, BLOCK_S, BLOCK_REST, ADJACENT
    )
    dt = tl.load(dt_ptr, mask=any_frame, other=0.0).to(tl.float32)
    share = dt * sigmoid(-tl.load(trap_ptr, mask=any_frame, other=0.0).to(tl.float32))
    old_value = share * tl.load(old_v_ptr + place * P + p, mask=inside, other=0.0)
    one = tl.arange(0, 1)
    for r in tl.static_range(R):
        value = old_value
        if MIMO:
            weight = tl.load(mimo_x_ptr + (head * R + r) * P + p, mask=inside, other=0.0)
            value *= weight.to(tl.float32)
        old_key = old_k_ptr + ((row * R + r) * heads + head) * N + one
        key = load_parts(old_key, one == 0, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
        a += value[:, None] * key[0]
        b += value[:, None] * key[1]
        if BLOCK_REST > 0:
            c += value[:, None] * key[2]
    return merge(a, b, ADJACENT), b, c


@triton.jit
def find_row(borders_ptr, slot, rows, SEGMENT: tl.constexpr):
    """Return the packed row that owns the slot of a segment."""
    low = slot * 0
    high = low + rows
    while high - low > 1:
        middle = (low + high) // 2
        before = tl.load(borders_ptr + middle) // SEGMENT + middle <= slot
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    return low


@triton.jit
def place_chunk(borders_ptr, slot, rows, frames, CHUNK: tl.constexpr, PACKED: tl.constexpr):
    """Return a slot's row, the frame that the row starts at, its length, and the chunk in it."""
    if PACKED:
        row = find_row(borders_ptr, slot, rows, CHUNK)
        start = tl.load(borders_ptr + row).to(tl.int64)
        length = (tl.load(borders_ptr + row + 1) - start).to(tl.int32)
        chunk = (slot - start // CHUNK - row).to(tl.int32)
    else:
        chunks = tl.cdiv(frames, CHUNK)
        row = slot // chunks
        start = row * 0
        length = frames
        chunk = (slot % chunks).to(tl.int32)
    return row, start, length, chunk
