"""Layers of one stream as compiled loops: products of bytes, norms, depthwise convolutions.

At one frame, a matrix product takes as long as its weights to come in: they stay bytes, and become
float32 in a register. All arrays are of rows, one for each frame or spectrum.
"""

import numpy as np
from numpy.typing import NDArray

from audiossm.compiled import summing
from audiossm.loops.tables import Tables, matrix, numbers, row

__all__ = [
    "add",
    "convolve",
    "copy",
    "layer_norm",
    "look_ahead",
    "multiply",
    "product",
    "rms_norm",
]

ZERO, ONE, EPSILON = np.float32(0), np.float32(1), np.float32(1e-5)

# what numpy does with whole arrays takes ten times as long to compile


@summing
def copy(x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
    """Write x (n,) to the beginning of y (n or more,)."""
    for i in range(len(x)):
        y[i] = x[i]


@summing
def add(x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
    """Add x (n,) to the beginning of y (n or more,)."""
    for i in range(len(x)):
        y[i] += x[i]


@summing
def multiply(
    weight: NDArray[np.float32 | np.int8], x: NDArray[np.float32], y: NDArray[np.float32]
) -> None:
    """Write to y (rows, out) the product of x (rows, in) and weight (out, in), bytes or float32."""
    rows, width = x.shape
    at = 0
    while rows - at >= 4:  # a weight is brought in once for four rows
        for i in range(len(weight)):
            a = b = c = d = ZERO
            for j in range(width):
                w = np.float32(weight[i, j])
                a += w * x[at, j]
                b += w * x[at + 1, j]
                c += w * x[at + 2, j]
                d += w * x[at + 3, j]
            y[at, i], y[at + 1, i], y[at + 2, i], y[at + 3, i] = a, b, c, d
        at += 4
    while rows - at >= 2:
        for i in range(len(weight)):
            a = b = ZERO
            for j in range(width):
                w = np.float32(weight[i, j])
                a += w * x[at, j]
                b += w * x[at + 1, j]
            y[at, i], y[at + 1, i] = a, b
        at += 2
    if at < rows:
        for i in range(len(weight)):
            a = ZERO
            for j in range(width):
                a += np.float32(weight[i, j]) * x[at, j]
            y[at, i] = a


@summing
def product(tables: Tables, at: int, x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
    """Write a layer's result for x (rows, in) to y (rows, out).

    ``at`` are the three tables of ``TablesWriter.add_product``.
    """
    scale, bias = row(tables, at + 1), row(tables, at + 2)
    multiply(numbers(tables, at), x, y)
    for r in range(len(y)):
        for i in range(len(scale)):
            y[r, i] = y[r, i] * scale[i] + bias[i]


@summing
def layer_norm(tables: Tables, at: int, x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
    """Norm the rows of x (rows, n) to y, which may be x; tables: scale and shift."""
    scale, shift = row(tables, at), row(tables, at + 1)
    width = np.float32(len(scale))
    for r in range(len(x)):
        total = ZERO
        for i in range(len(scale)):
            total += x[r, i]
        mean = total / width
        power = ZERO
        for i in range(len(scale)):
            power += (x[r, i] - mean) * (x[r, i] - mean)
        size = ONE / np.sqrt(power / width + EPSILON)
        for i in range(len(scale)):
            y[r, i] = (x[r, i] - mean) * size * scale[i] + shift[i]


@summing
def look_ahead(
    tables: Tables,
    at: int,
    tail: NDArray[np.float32],
    option: int,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
) -> None:
    """Convolve a frame x (channels,) by the kernel of one option; as ``LookAheadConv``.

    Args:
        tables: hold the kernels (options * channels, taps).
        at: where they are there.
        tail: (channels, taps - 1), the newest frames; overwritten.
        option: which of the kernels.
        x: the frame.
        y: as x, the result.
    """
    kernels, past = matrix(tables, at), tail.shape[1]
    for i in range(len(x)):
        kernel = kernels[option * len(x) + i]
        total = x[i] * kernel[past]
        for k in range(past):
            total += tail[i, k] * kernel[k]
        y[i] = total
        for k in range(past - 1):
            tail[i, k] = tail[i, k + 1]
        tail[i, past - 1] = x[i]


@summing
def rms_norm(x: NDArray[np.float32], scale: NDArray[np.float32], y: NDArray[np.float32]) -> None:
    """Norm x (n,) to y, which may be x, by the root of its mean square."""
    power = ZERO
    for i in range(len(scale)):
        power += x[i] * x[i]
    size = ONE / np.sqrt(power / np.float32(len(scale)) + EPSILON)
    for i in range(len(scale)):
        y[i] = x[i] * size * scale[i]


@summing
def convolve(
    tables: Tables,
    at: int,
    tail: NDArray[np.float32],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
) -> None:
    """Convolve the rows of x (rows, channels) with the past in front, channel by channel.

    Args:
        tables: hold the kernel (taps, channels) and the bias.
        at: where they are there.
        tail: (taps - 1, channels), the newest rows before; those after, in the end.
        x: next rows.
        y: as x, the result.
    """
    kernel, bias = matrix(tables, at), row(tables, at + 1)
    past = len(tail)
    for r in range(len(x)):
        for i in range(len(bias)):
            y[r, i] = x[r, i] * kernel[past, i] + bias[i]
        for k in range(past):
            for i in range(len(bias)):
                y[r, i] += tail[k, i] * kernel[k, i]
        for k in range(past - 1):
            for i in range(len(bias)):
                tail[k, i] = tail[k + 1, i]
        for i in range(len(bias)):
            tail[past - 1, i] = x[r, i]
