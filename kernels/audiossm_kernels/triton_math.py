"""Functions inside Triton kernels: exact enough for float32, and without slow library paths."""

import math

import triton
import triton.language as tl

from audiossm_kernels.triton_assembler import choose_assembler

__all__ = [
    "INTERPRETED",
    "LOG2_E",
    "TURN",
    "add_pairs",
    "bound",
    "cos_sin",
    "exp2",
    "fast_cos_sin",
    "fast_tanh",
    "halves",
    "nearest",
    "settle",
    "sigmoid",
    "softplus",
    "tanh",
    "turn_pairs",
    "whole_turns",
    "widen",
]

choose_assembler()  # before any kernel is compiled

TURN = tl.constexpr(2 * math.pi)
LOG2_E = tl.constexpr(1 / math.log(2))
INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def bound(x):
    """Return a scalar that ``tl.range`` takes."""
    if INTERPRETED:  # there a scalar is an array, which numpy 2.4 doesn't take for an index
        return x.handle.data.item()
    else:
        return x


@triton.jit
def tanh(x):
    # the sigmoid alone would lose the leading digits of small rates, which add up over frames
    square = x * x
    small = x * (1 - square * (1 / 3 - square * (2 / 15 - square * (17 / 315))))
    return tl.where(square < 0.04, small, 2 * tl.sigmoid(2 * x) - 1)


@triton.jit
def softplus(x):
    e = tl.exp(tl.minimum(x, 20.0))
    u = 1 + e
    # log(u) corrected for what 1 + e rounded away
    small = tl.where(u == 1, e, tl.log(u) * (e / tl.where(u == 1, 1.0, u - 1)))
    return tl.where(x > 20, x, small)


@triton.jit
def cos_sin(turns):
    """Return cosine and sine of an angle in [0, 1) turns, without the library's slow path."""
    quarter = (4 * turns + 0.5).to(tl.int32)
    x = (turns - 0.25 * quarter.to(tl.float32)) * TURN
    square = x * x
    sin = 1 / 120 + square * (-1 / 5040 + square * (1 / 362880))
    sin = x + x * square * (-1 / 6 + square * sin)
    cos = 1 / 24 + square * (-1 / 720 + square * (1 / 40320))
    cos = 1 + square * (-1 / 2 + square * cos)
    odd = quarter % 2 == 1
    cos, sin = tl.where(odd, sin, cos), tl.where(odd, cos, sin)
    return (
        tl.where((quarter + 1) % 4 >= 2, -cos, cos),
        tl.where(quarter % 4 >= 2, -sin, sin),
    )


@triton.jit
def whole_turns(turns):
    """Return the nearest whole number, of more than 2^22 turns a whole number not far from them.

    By two sums, for the card rounds in the unit that makes its sines, an eighth as fast.
    """
    return (turns + 1.5 * 2**23) - 1.5 * 2**23


@triton.jit
def fast_cos_sin(turns):
    """Return cosine and sine of any few turns by the card's own units, off by 1e-6 at most."""
    turns -= whole_turns(turns)
    if INTERPRETED:
        return tl.cos(turns * TURN), tl.sin(turns * TURN)
    else:
        x = turns * TURN
        cos = tl.inline_asm_elementwise(
            "cos.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
        sin = tl.inline_asm_elementwise(
            "sin.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
        return cos, sin


@triton.jit
def fast_tanh(x):
    """Return the card's own tanh, off by 2^-11 at most."""
    if INTERPRETED:
        return 2 * tl.sigmoid(2 * x) - 1
    else:
        return tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
def exp2(x):
    """Return 2^x, 0 where that is below 2^-126: the exact form takes three times as long."""
    if INTERPRETED:
        return tl.exp2(x)
    else:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
def sigmoid(x):
    """Return the sigmoid, off by 3e-7 at most of its value."""
    if INTERPRETED:
        return tl.sigmoid(x)
    else:
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;",
            "=f,f",
            [1 + exp2(-LOG2_E * x)],
            dtype=tl.float32,
            is_pure=True,
            pack=1,
        )


@triton.jit
def halves(x):
    """Return two bfloat16 whose sum has twice their digits."""
    # a small tile may leave a thread one element, which is no pair
    if INTERPRETED or x.numel < 512:
        high = x.to(tl.bfloat16)
        return high, (x - high.to(tl.float32)).to(tl.bfloat16)
    else:  # two at a time: one by one they take twice the conversions, and more registers
        return tl.inline_asm_elementwise(
            "{.reg .b32 h, a, b; cvt.rn.bf16x2.f32 h, $3, $2; shl.b32 a, h, 16;"
            " and.b32 b, h, 0xffff0000; sub.f32 a, $2, a; sub.f32 b, $3, b;"
            " mov.b32 $0, h; cvt.rn.bf16x2.f32 $1, b, a;}",
            "=r,=r,f,f",
            [x],
            dtype=(tl.bfloat16, tl.bfloat16),
            is_pure=True,
            pack=2,
        )


@triton.jit
def widen(x):
    """Return ``x`` as float32, two bfloat16 at a time, without moving each to a register first."""
    # a small tile may leave a thread one element, which is no pair
    if INTERPRETED or x.dtype != tl.bfloat16 or x.numel < 512:
        return x.to(tl.float32)
    else:
        return tl.inline_asm_elementwise(
            "{.reg .b32 l, h; shl.b32 l, $2, 16; and.b32 h, $2, 0xffff0000;"
            " mov.b32 $0, l; mov.b32 $1, h;}",
            "=f,=f,r",
            [x],
            dtype=tl.float32,
            is_pure=True,
            pack=2,
        )


@triton.jit
def nearest(x):
    """Return ``x`` rounded to bfloat16 as the card does it: the interpreter cuts digits off."""
    if INTERPRETED:
        bits = x.to(tl.float32).to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536
        return bits.to(tl.float32, bitcast=True).to(tl.bfloat16)
    else:
        return x.to(tl.bfloat16)


@triton.jit
def settle(x):
    """Return an operand ``x`` as it is, in the threads that made it.

    Else the compiler has what it is made of brought, through shared memory, to the threads that the
    product wants it in: more bytes, and wider ones.
    """
    if INTERPRETED:
        return x
    elif x.dtype == tl.bfloat16:
        return tl.inline_asm_elementwise(
            "mov.b32 $0, $1;", "=r,r", [x], dtype=tl.bfloat16, is_pure=False, pack=2
        )
    else:
        return tl.inline_asm_elementwise(
            "mov.b32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=False, pack=1
        )


@triton.jit
def add_pairs(x, y):
    """Return the sum of two tiles of bfloat16, two elements at a time."""
    x, y = tl.broadcast(x, y)
    if INTERPRETED:
        return nearest(x.to(tl.float32) + y.to(tl.float32))
    else:
        return tl.inline_asm_elementwise(
            "add.rn.bf16x2 $0, $1, $2;", "=r,r,r", [x, y], dtype=tl.bfloat16, is_pure=True, pack=2
        )


@triton.jit
def turn_pairs(a, b, cos, sin):
    """Turn the pairs of two tiles of bfloat16, two elements at a time, rounding twice."""
    if INTERPRETED:
        cos, sin = cos.to(tl.float32), sin.to(tl.float32)
        a, b = a.to(tl.float32), b.to(tl.float32)
        first = a * cos - nearest(b * sin).to(tl.float32)
        second = b * cos + nearest(a * sin).to(tl.float32)
        return nearest(first), nearest(second)
    else:
        # b sin is rounded, a cos is not: second has a sin in its place and no minus
        first = tl.inline_asm_elementwise(
            "{.reg .b32 t; mul.rn.bf16x2 t, $2, $4; neg.bf16x2 t, t; fma.rn.bf16x2 $0, $1, $3, t;}",
            "=r,r,r,r,r",
            [a, b, cos, sin],
            dtype=tl.bfloat16,
            is_pure=True,
            pack=2,
        )
        second = tl.inline_asm_elementwise(
            "{.reg .b32 t; mul.rn.bf16x2 t, $1, $4; fma.rn.bf16x2 $0, $2, $3, t;}",
            "=r,r,r,r,r",
            [a, b, cos, sin],
            dtype=tl.bfloat16,
            is_pure=True,
            pack=2,
        )
        return first, second
