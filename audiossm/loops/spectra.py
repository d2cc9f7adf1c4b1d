"""What lies between samples and a network's layers, as compiled loops."""

import math

import numpy as np
from numpy.typing import NDArray

from audiossm.compiled import compiled, summing
from audiossm.loops.elementary import exponential, sigmoid
from audiossm.loops.layers import add, copy
from audiossm.loops.tables import Tables, row

__all__ = [
    "add_squares",
    "compress",
    "cut_windows",
    "flatten",
    "make_spectra",
    "overlap",
    "quantise",
]

ZERO, ONE = np.float32(0), np.float32(1)


@compiled
def cut_windows(tail: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
    """Write the windows that end in x (samples,) to the rows of y, evenly apart.

    ``tail`` is (window - hop,): the newest samples before x; those after, in the end.
    """
    hop, past = len(x) // len(y), len(tail)
    for i in range(len(y)):
        end = (i + 1) * hop
        held = max(past - i * hop, 0)
        copy(tail[past - held :], y[i])
        copy(x[max(i * hop - past, 0) : end], y[i, held:])
    kept = max(past - len(x), 0)
    copy(tail[past - kept :], tail)
    copy(x[len(x) - past + kept :], tail[kept:])


@summing
def add_squares(x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
    """Write the power of spectra (rows, 2 * bins), real parts first, to (rows, bins)."""
    bins = y.shape[1]
    for r in range(len(y)):
        for i in range(bins):
            y[r, i] = x[r, i] * x[r, i] + x[r, bins + i] * x[r, bins + i]


@compiled
def compress(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    column: int,
    limits: NDArray[np.float32],
) -> None:
    """Write the logarithms of x (rows, n) to y (rows, m), from a column on, as far as it goes.

    ``limits`` are what is added to x, what is added to its logarithm, and the factor of the sum.
    """
    count = min(x.shape[1], y.shape[1] - column)
    for r in range(len(x)):
        for i in range(count):
            y[r, column + i] = (np.float32(math.log(x[r, i] + limits[0])) + limits[1]) * limits[2]


@summing
def flatten(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    used: NDArray[np.float32],
    limits: NDArray[np.float32],
) -> None:
    """Write the magnitudes of powers x (rows, n) to y (rows, m), whose used ones add up to one.

    ``limits`` are what is added to x, and a factor of the result.
    """
    for r in range(len(y)):
        size = ZERO
        for i in range(len(used)):
            y[r, i] = np.sqrt(x[r, i] + limits[0])
            size += y[r, i] * used[i]
        for i in range(len(used)):
            y[r, i] *= limits[1] / size


@compiled
def quantise(tables: Tables, at: int, x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
    """Write the codes of (latent_dim,) to (groups,); as ``Quantiser.encode``."""
    shift, half_width, offset = row(tables, at), row(tables, at + 1), row(tables, at + 2)
    scale, bases = row(tables, at + 3), row(tables, at + 4)
    for g in range(len(y)):
        code = ZERO
        for d in range(len(bases)):
            i = g * len(bases) + d
            bound = np.float32(math.tanh(x[i] + shift[i])) * half_width[i] - offset[i]
            code += (np.rint(bound) + scale[i]) * bases[d]
        y[g] = code


@compiled
def make_spectra(
    x: NDArray[np.float32], y: NDArray[np.float32], limits: NDArray[np.float32]
) -> None:
    """Write spectra (rows, 2 * bins) to y; as ``audiossm.codec.decoder.make_spectra``.

    Args:
        x: one after the other: the head's log-magnitudes and phases (rows, 2 * bins), the voice's
            spectra (rows, 2 * bins), its power (rows, bins) and the raw gates (rows, bins).
        y: the result.
        limits: the largest log-magnitude.
    """
    rows, bins = len(y), y.shape[1] // 2
    size = rows * bins
    for r in range(rows):
        head, voice = x[2 * r * bins :], x[2 * (size + r * bins) :]
        power, gate = x[4 * size + r * bins :], x[5 * size + r * bins :]
        total = ZERO
        for i in range(bins):
            total += power[i]
        voiced = np.sqrt(min(total / np.float32(bins), ONE))
        for i in range(bins):
            magnitude = exponential(min(head[i], limits[0]))
            phase = head[bins + i]
            real, imaginary = np.float32(math.cos(phase)), np.float32(math.sin(phase))
            share = voiced * sigmoid(gate[i])
            y[r, i] = magnitude * (real + share * (voice[i] - real))
            y[r, bins + i] = magnitude * (imaginary + share * (voice[bins + i] - imaginary))


@compiled
def overlap(tail: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
    """Add windows x (rows, window) up, evenly apart, and write what is done to y (samples,).

    ``tail`` is (window - hop,): what later windows will be added to, before and after.
    """
    rows, window = x.shape
    hop = len(y) // rows
    for r in range(rows):
        add(x[r, : window - hop], tail)
        copy(tail[:hop], y[r * hop :])
        copy(tail[hop:], tail)
        copy(x[r, window - hop :], tail[window - 2 * hop :])
