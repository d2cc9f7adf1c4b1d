"""Functions inside Triton kernels: exact enough for float32, and without slow library paths."""

import math

import triton
import triton.language as tl

__all__ = ["TURN", "bound", "cos_sin", "halves", "softplus", "tanh"]

TURN = tl.constexpr(2 * math.pi)
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
def halves(x):
    """Return two bfloat16 whose sum has twice their digits."""
    high = x.to(tl.bfloat16)
    return high, (x - high.to(tl.float32)).to(tl.bfloat16)
