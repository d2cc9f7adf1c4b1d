"""What the kernels of the scan's backward share: operands, sums and loads."""

import triton
import triton.language as tl

from audiossm_kernels.ssm_scan.triton_marks import LEAST_DECAY
from audiossm_kernels.ssm_scan.triton_parts import (
    load_parts,
    repeat,
    store_parts,
    turn,
)
from audiossm_kernels.triton_math import (
    LOG2_E,
    fast_cos_sin,
    sigmoid,
)

__all__ = [
    "add_mix",
    "inner",
    "load_answers",
    "load_decay",
    "load_turns",
    "load_vectors",
    "mix",
    "operand",
    "operands",
    "over_frames",
    "over_ranks",
    "store_back",
]


@triton.jit
def operand(x, ROUND: tl.constexpr, OPERAND: tl.constexpr):
    """Round to what the products take; the interpreter has no products of bfloat16."""
    return x.to(ROUND).to(OPERAND)


@triton.jit
def operands(x, ROUND: tl.constexpr, OPERAND: tl.constexpr):
    """Round the parts of vectors."""
    a, b, c = x
    return (
        operand(a, ROUND, OPERAND),
        operand(b, ROUND, OPERAND),
        operand(c, ROUND, OPERAND),
    )


@triton.jit
def inner(x, y, BLOCK_REST: tl.constexpr):
    """Return all inner products (X, Y) of the vectors x (X, N) and y (Y, N), in parts."""
    z = tl.dot(x[0], tl.trans(y[0]), input_precision="ieee")
    z = tl.dot(x[1], tl.trans(y[1]), acc=z, input_precision="ieee")
    if BLOCK_REST > 0:
        z = tl.dot(x[2], tl.trans(y[2]), acc=z, input_precision="ieee")
    return z


@triton.jit
def mix(weights, x, BLOCK_REST: tl.constexpr):
    """Return weighted sums of the vectors x, in parts."""
    a = tl.dot(weights, x[0], input_precision="ieee")
    b = tl.dot(weights, x[1], input_precision="ieee")
    c = a
    if BLOCK_REST > 0:
        c = tl.dot(weights, x[2], input_precision="ieee")
    return a, b, c


@triton.jit
def add_mix(sums, scale, weights, x, BLOCK_REST: tl.constexpr):
    """Return ``scale`` times ``sums``, plus weighted sums of the vectors x, in parts."""
    a, b, c = sums
    a = tl.dot(weights, x[0], acc=a * scale, input_precision="ieee")
    b = tl.dot(weights, x[1], acc=b * scale, input_precision="ieee")
    if BLOCK_REST > 0:
        c = tl.dot(weights, x[2], acc=c * scale, input_precision="ieee")
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
def store_back(
    x,
    bias_rows,
    cos,
    sin,
    C: tl.constexpr,
    R: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ADJACENT: tl.constexpr,
):
    """Turn gradients of vectors back, store their sum over the frames and return them."""
    a = x[0] * cos + x[1] * sin
    b = x[1] * cos - x[0] * sin
    c = x[2]
    bias_a, bias_b = over_frames(a, C, R, BLOCK_S), over_frames(b, C, R, BLOCK_S)
    bias_c = bias_a
    if BLOCK_REST > 0:
        bias_c = over_frames(c, C, R, BLOCK_REST)
    store_parts(
        bias_rows, tl.arange(0, R) >= 0, bias_a, bias_b, bias_c, N, S, BLOCK_S, BLOCK_REST, ADJACENT
    )
    return a, b, c


@triton.jit
def load_decay(a_ptr, a_frame, time, inside, rank):
    """Return the log2 of what fades in each frame; rows of further ranks add nothing."""
    a = tl.load(a_ptr + time * a_frame, mask=inside & (rank == 0), other=0.0).to(tl.float32)
    return tl.minimum(tl.maximum(a * LOG2_E, LEAST_DECAY), 0.0)


@triton.jit
def load_turns(
    phi_ptr, rates_ptr, half_dt, frames, on, S: tl.constexpr, BLOCK_S: tl.constexpr, R: tl.constexpr
):
    """Return the rates (S, C) of a chunk, and cosine and sine (C * R, S) of its angles."""
    s = tl.arange(0, BLOCK_S)
    t = tl.arange(0, half_dt.shape[0])
    at = rates_ptr + (s.to(tl.int64) * frames)[:, None] + t[None, :]
    rate = tl.load(at, mask=(s < S)[:, None] & on[None, :], other=0.0)
    step = rate * half_dt[None, :]
    step -= tl.floor(step + 0.5)
    start = tl.load(phi_ptr + s, mask=s < S, other=0.0)
    cos, sin = fast_cos_sin(start[:, None] + tl.cumsum(step, axis=1))
    return rate, repeat(tl.trans(cos), R), repeat(tl.trans(sin), R)


@triton.jit
def load_vectors(
    rows,
    inside,
    bias_rows,
    bias_inside,
    cos,
    sin,
    N: tl.constexpr,
    S: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    ADJACENT: tl.constexpr,
    ROUND: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """Load the queries or keys of a head: with their biases, turned, as operands."""
    x = load_parts(rows, inside, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
    bias = load_parts(bias_rows, bias_inside, N, S, BLOCK_S, BLOCK_REST, ADJACENT)
    return operands(turn(x, bias, cos, sin), ROUND, OPERAND)


@triton.jit
def load_answers(
    answers_ptr,
    dy_ptr,
    z_ptr,
    mimo_z_ptr,
    mimo_o_ptr,
    z_frame,
    y_frame,
    time,
    rank,
    p,
    inside,
    P: tl.constexpr,
    R: tl.constexpr,
    MIMO: tl.constexpr,
    STORED: tl.constexpr,
):
    """Return the gradient (C * R, P) of what the state answers: as stored, or through the gate."""
    if STORED:
        at = (time * y_frame * R + rank * P)[:, None] + p[None, :]
        return tl.load(answers_ptr + at, mask=inside, other=0.0).to(tl.float32)
    else:
        gate = tl.load(z_ptr + (time * z_frame)[:, None] + p[None, :], mask=inside, other=0.0).to(
            tl.float32
        )
        out = tl.load(dy_ptr + (time * y_frame)[:, None] + p[None, :], mask=inside, other=0.0)
        out = out.to(tl.float32)
        if MIMO:
            weights = (rank * P)[:, None] + p[None, :]
            gate *= tl.load(mimo_z_ptr + weights, mask=inside, other=0.0).to(tl.float32)
            out *= tl.load(mimo_o_ptr + weights, mask=inside, other=0.0).to(tl.float32)
        return out * gate * sigmoid(gate)
