"""What the kernels of the scan's backward share: places, vectors, products and sums.

Vectors of N elements are held in parts, as products take them: adjacent pairs that turn in one
tile, or all first and all second halves in two, and the rest in one more. A frame's row stands
once per rank: row t R + r of a chunk.
"""

import triton
import triton.language as tl

from audiossm_kernels.ssm_scan.triton_parts import (
    load_rows,
    load_tiles,
    merge,
    place_chunk,
    rest_index,
    store_tiles,
    turn,
    unmerge,
)
from audiossm_kernels.triton_math import add_pairs, nearest, settle, turn_pairs, widen

__all__ = [
    "add_mix",
    "find_chunk",
    "inner",
    "load_ranks",
    "load_state",
    "load_turns",
    "load_values",
    "load_vectors",
    "operand",
    "over_frames",
    "over_ranks",
    "store_back",
    "zero_rows",
]


@triton.jit
def find_chunk(borders_ptr, slot, rows, frames, C: tl.constexpr, PACKED: tl.constexpr):
    """Return a slot's row, its first frame among those of all rows, its chunk, and frames left."""
    row, start, length, chunk = place_chunk(borders_ptr, slot, rows, frames, C, PACKED)
    if not PACKED:
        start = row * frames
    return row, start + chunk * C, chunk, length - chunk * C


@triton.jit
def operand(x, ROUND: tl.constexpr, OPERAND: tl.constexpr):
    """Round to what the products take; the interpreter has no products of bfloat16."""
    return x.to(ROUND).to(OPERAND)


@triton.jit
def zero_rows(
    COUNT: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_REST: tl.constexpr, ADJACENT: tl.constexpr
):
    """Return COUNT vectors of zeros, float32, in parts."""
    a = tl.zeros([COUNT, 2 * BLOCK_S if ADJACENT else BLOCK_S], tl.float32)
    c = a
    if BLOCK_REST > 0:
        c = tl.zeros([COUNT, BLOCK_REST], tl.float32)
    return a, a, c


@triton.jit
def inner(x, y, BLOCK_REST: tl.constexpr, ADJACENT: tl.constexpr):
    """Return all inner products (X, Y) of the vectors x (X, N) and y (Y, N), in parts."""
    z = tl.dot(x[0], tl.trans(y[0]), input_precision="ieee")
    if not ADJACENT:
        z = tl.dot(x[1], tl.trans(y[1]), acc=z, input_precision="ieee")
    if BLOCK_REST > 0:
        z = tl.dot(x[2], tl.trans(y[2]), acc=z, input_precision="ieee")
    return z


@triton.jit
def add_mix(sums, weights, x, BLOCK_REST: tl.constexpr, ADJACENT: tl.constexpr):
    """Return ``sums`` plus weighted sums of the vectors x, in parts."""
    a, b, c = sums
    a = tl.dot(weights, x[0], acc=a, input_precision="ieee")
    if not ADJACENT:
        b = tl.dot(weights, x[1], acc=b, input_precision="ieee")
    if BLOCK_REST > 0:
        c = tl.dot(weights, x[2], acc=c, input_precision="ieee")
    return a, b, c


@triton.jit
def over_ranks(x, C: tl.constexpr, R: tl.constexpr, WIDTH: tl.constexpr):
    """(C * R, WIDTH) -> (C, WIDTH): sum."""
    if R == 1:
        return x
    else:
        return tl.sum(tl.reshape(x, (C, R, WIDTH)), axis=1)


@triton.jit
def over_frames(x, C: tl.constexpr, R: tl.constexpr, WIDTH: tl.constexpr):
    """(C * R, WIDTH) -> (R, WIDTH): sum."""
    if R == 1:
        return tl.sum(x, axis=0)[None, :]
    else:
        return tl.sum(tl.reshape(x, (C, R, WIDTH)), axis=0)


@triton.jit
def load_turns(rows, BLOCK_S: tl.constexpr, ADJACENT: tl.constexpr):
    """Return cosine and sine (rows, S') of the angles at the pointers ``rows``."""
    if ADJACENT:  # laid out as the pairs are, so that nothing changes threads
        pairs = tl.load(rows[:, None] + tl.arange(0, 2 * BLOCK_S)[None, :])
        cos, sin = tl.split(tl.reshape(pairs, (pairs.shape[0], BLOCK_S, 2)))
    else:
        s = tl.arange(0, BLOCK_S)[None, :]
        cos, sin = tl.load(rows[:, None] + s), tl.load(rows[:, None] + BLOCK_S + s)
    return cos, sin


@triton.jit
def load_state(
    states_ptr, place, p, P: tl.constexpr, N: tl.constexpr, S: tl.constexpr, BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr, ADJACENT: tl.constexpr, OPERAND: tl.constexpr,
):  # fmt: skip
    """Load the rows ``p`` of the state at ``place`` as operands in parts."""
    rows = states_ptr + place * (P * N) + p * N
    a, b, c = load_rows(rows, p < P, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
    return a.to(OPERAND), b.to(OPERAND), c.to(OPERAND)


@triton.jit
def load_vectors(
    rows,
    inside,
    bias_ptr,
    cos,
    sin,
    rank,
    R: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ADJACENT: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """Load the queries or keys of a head: with their biases, turned, as operands in parts.

    They are turned in bfloat16 where ``cos`` and ``sin`` are that, as the forward did it.
    """
    a, b, c = load_rows(rows, inside, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
    if cos.dtype == tl.bfloat16:
        a, b, c = nearest(a), nearest(b), nearest(c)
    if R == 1:  # one vector for all frames
        one = tl.arange(0, 1)
        bias = load_rows(bias_ptr + one, one == 0, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
    else:
        bias = load_rows(bias_ptr + rank * N, rank >= 0, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
    a, b = unmerge(a, b, ADJACENT)
    bias_a, bias_b = unmerge(bias[0], bias[1], ADJACENT)
    if cos.dtype == tl.bfloat16:
        a, b, c = add_pairs(a, bias_a), add_pairs(b, bias_b), add_pairs(c, bias[2])
        a, b = turn_pairs(a, b, cos, sin)
    else:
        a, b, c = turn((a, b, c), (bias_a, bias_b, bias[2]), cos, sin)
    return merge(a, b, ADJACENT).to(OPERAND), b.to(OPERAND), c.to(OPERAND)


@triton.jit
def load_ranks(
    mimo_x_ptr, p, C: tl.constexpr, R: tl.constexpr, P: tl.constexpr, BLOCK_P: tl.constexpr
):  # fmt: skip
    """Return the weights (C * R, P) of the ranks of every frame, float32, loaded once."""
    at = (tl.arange(0, R) * P)[:, None] + p[None, :]
    weight = tl.load(mimo_x_ptr + at, mask=(p < P)[None, :], other=0.0).to(tl.float32)
    return tl.reshape(tl.broadcast_to(weight[None, :, :], (C, R, BLOCK_P)), (C * R, BLOCK_P))


@triton.jit
def load_values(
    v_rows, mimo_x_ptr, p, inside, C: tl.constexpr, R: tl.constexpr, P: tl.constexpr,
    BLOCK_P: tl.constexpr, MIMO: tl.constexpr, ROUND: tl.constexpr, OPERAND: tl.constexpr,
):  # fmt: skip
    """Return the values (rows, P) of a head, as they are and, as operands, times the weights."""
    x = tl.load(v_rows[:, None] + p[None, :], mask=inside, other=0.0)
    value = x
    if MIMO:
        value = widen(x) * load_ranks(mimo_x_ptr, p, C, R, P, BLOCK_P)
    return x, settle(operand(value, ROUND, OPERAND))


@triton.jit
def store_back(
    own_ptr,
    own_frame,
    bias_ptr,
    turns_ptr,
    back_ptr,
    back_frame,
    left,
    x,
    C: tl.constexpr,
    G: tl.constexpr,
    R: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ADJACENT: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """Turn the gradients x of vectors back and store them.

    Returns the gradients (C, S') of the angles of each frame, and the sums (C) of <x, vectors> over
    the pairs, and over the rest, if there is one.
    """
    # ranks first: so they lie in one warp, which sums over them without shared memory
    r, c = tl.arange(0, R)[:, None, None], tl.arange(0, C)[None, :, None]
    inside = (c < left) & (r >= 0)
    own = own_ptr + c * own_frame + r * (G * N)
    bias = bias_ptr + (0 * c + r) * N
    back = back_ptr + c * back_frame + r * N
    a, b, _ = load_tiles(own, inside, N, S, BLOCK_S, 0, ADJACENT)
    bias_a, bias_b, _ = load_tiles(bias, inside, N, S, BLOCK_S, 0, ADJACENT)
    turns = turns_ptr + (c + 0 * r) * (2 * BLOCK_S)
    if ADJACENT:  # laid out as the pairs are, so that nothing changes threads
        pairs = tl.load(turns + tl.arange(0, 2 * BLOCK_S)[None, None, :])
        cos, sin = tl.split(tl.reshape(pairs, (R, C, BLOCK_S, 2)))
    else:
        s = tl.arange(0, BLOCK_S)[None, None, :]
        cos, sin = tl.load(turns + s), tl.load(turns + BLOCK_S + s)
    if cos.dtype == tl.bfloat16:
        a, b = add_pairs(nearest(a), bias_a), add_pairs(nearest(b), bias_b)
        a, b = turn_pairs(a, b, cos, sin)
    else:
        a, b, _ = turn((a, b, a), (bias_a, bias_b, bias_a), cos, sin)
        a, b = a.to(OPERAND), b.to(OPERAND)
    first, second = a.to(tl.float32), b.to(tl.float32)
    cos, sin = cos.to(tl.float32), sin.to(tl.float32)
    a, b = unmerge(x[0], x[1], ADJACENT)
    a, b = by_ranks(a, C, R, BLOCK_S), by_ranks(b, C, R, BLOCK_S)
    turned = tl.sum(b * first - a * second, axis=0)
    product = tl.sum(tl.sum(a * first + b * second, axis=2), axis=0)
    a, b = a * cos + b * sin, b * cos - a * sin
    store_tiles(back, inside, a, b, a, N, S, BLOCK_S, 0, ADJACENT)
    rest = product
    if BLOCK_REST > 0:
        tl.debug_barrier()  # so that fewer tiles are held at a time
        j = rest_index(N, S, BLOCK_REST, ADJACENT)[None, None, :]
        inside &= j < N
        a = tl.load(own + j, mask=inside, other=0.0)
        bias_a = tl.load(bias + j, mask=inside, other=0.0)
        if turns_ptr.dtype.element_ty == tl.bfloat16:
            a = add_pairs(nearest(a), bias_a)
        else:
            a = (a.to(tl.float32) + bias_a).to(OPERAND)
        b = by_ranks(x[2], C, R, BLOCK_REST)
        rest = tl.sum(tl.sum(a.to(tl.float32) * b, axis=2), axis=0)
        tl.store(back + j, b.to(back_ptr.dtype.element_ty), mask=inside)
    return turned, product, rest


@triton.jit
def by_ranks(x, C: tl.constexpr, R: tl.constexpr, WIDTH: tl.constexpr):
    """(C * R, WIDTH) -> (R, C, WIDTH)."""
    return tl.permute(tl.reshape(x, (C, R, WIDTH)), (1, 0, 2))
