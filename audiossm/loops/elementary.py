"""Functions of one float32, compiled: of sums and products alone, so that loops vectorise."""

import math

import numpy as np
from numpy.typing import NDArray

from audiossm.compiled import compiled, summing

__all__ = ["exponential", "gate", "gelu", "log_softmax", "sigmoid", "silu", "softplus"]

ONE, HALF = np.float32(1), np.float32(0.5)
# where float32 still has a power of two for it
LEAST, MOST = np.float32(-87.0), np.float32(88.0)
PER_LOG2 = np.float32(1 / math.log(2))
# log 2 in two parts; the first has few bits, so its multiples are exact
LOG2_HIGH = np.float32(0.693359375)
LOG2_LOW = np.float32(math.log(2) - 0.693359375)
INVERSE = [np.float32(1 / math.factorial(k)) for k in range(7)]
E0, E1, E2, E3, E4, E5, E6 = INVERSE

# erf(t) as t P(t^2) / Q(t^2) up to 3.95, where float32 has 1: fitted to the double function by
# weighted least squares, again and again with more weight where the error is large (Lawson)
ROOT_HALF, FAR = np.float32(math.sqrt(0.5)), np.float32(3.95)
P0, P1, P2, P3, P4, P5, P6 = (
    np.float32(1.1283787488937378),
    np.float32(0.20899707078933716),
    np.float32(0.05177752301096916),
    np.float32(0.004090273752808571),
    np.float32(0.0001513458410045132),
    np.float32(-1.9915706807785e-06),
    np.float32(1.9641548831828004e-08),
)
Q1, Q2, Q3, Q4 = (
    np.float32(0.5185471773147583),
    np.float32(0.11875443160533905),
    np.float32(0.01513215247541666),
    np.float32(0.0010510956635698676),
)


@compiled
def exponential(x: np.float32) -> np.float32:
    """Return ``exp(x)`` within 3e-7 of it, for any ``x`` whose exponential float32 has."""
    bounded = min(max(x, LEAST), MOST)
    whole = np.floor(bounded * PER_LOG2 + HALF)
    rest = (bounded - whole * LOG2_HIGH) - whole * LOG2_LOW
    power = E0 + rest * (E1 + rest * (E2 + rest * (E3 + rest * (E4 + rest * (E5 + rest * E6)))))
    # the exponent's bits alone are a power of two
    two = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
    return power * two  # type: ignore[no-any-return]  # a scalar's view


@compiled
def sigmoid(x: np.float32) -> np.float32:
    """Return ``1 / (1 + exp(-x))``."""
    return ONE / (ONE + exponential(-x))


@compiled
def softplus(x: np.float32) -> np.float32:
    """Return ``log(1 + exp(x))``, which doesn't overflow."""
    return max(x, np.float32(0)) + np.float32(math.log1p(math.exp(-abs(x))))


@summing
def gelu(x: NDArray[np.float32]) -> None:
    """Replace each of (n,) by its product with how likely a normal number is below it."""
    for i in range(len(x)):
        t = min(max(x[i] * ROOT_HALF, -FAR), FAR)
        u = t * t
        p = P0 + u * (P1 + u * (P2 + u * (P3 + u * (P4 + u * (P5 + u * P6)))))
        q = ONE + u * (Q1 + u * (Q2 + u * (Q3 + u * Q4)))
        # rounding would leave a little of what is far below zero
        x[i] *= HALF * (ONE + t * p / q) if t > -FAR else np.float32(0)


@summing
def silu(x: NDArray[np.float32]) -> None:
    """Replace each of (n,) by its product with its sigmoid."""
    for i in range(len(x)):
        x[i] *= sigmoid(x[i])


@summing
def gate(x: NDArray[np.float32], y: NDArray[np.float32], silu: int) -> None:
    """Write to y (rows, n) the first n of x (rows, 2 n) times the sigmoid, or silu, of the rest."""
    width = y.shape[1]
    for r in range(len(y)):
        if silu:
            for i in range(width):
                y[r, i] = x[r, i] * x[r, width + i] * sigmoid(x[r, width + i])
        else:
            for i in range(width):
                y[r, i] = x[r, i] * sigmoid(x[r, width + i])


@summing
def log_softmax(x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
    """Write the log-probabilities of x (rows, n) to y, and the probabilities to x."""
    width = x.shape[1]
    for r in range(len(x)):
        top = x[r, 0]
        for i in range(1, width):
            top = max(top, x[r, i])
        total = np.float32(0)
        for i in range(width):
            total += exponential(x[r, i] - top)
        size = top + np.float32(math.log(total))
        for i in range(width):
            y[r, i] = x[r, i] - size
            x[r, i] = exponential(y[r, i])
