"""The pitch that a decoder reads and the pulses at it, as compiled loops; all numbers are whole."""

import math

import numpy as np
from numpy.typing import NDArray

from audiossm.compiled import compiled
from audiossm.loops.elementary import sigmoid
from audiossm.loops.layers import copy
from audiossm.loops.tables import Tables, row

__all__ = ["choose", "gather", "make_whole", "sound"]

ZERO, ONE = np.float32(0), np.float32(1)


@compiled
def gather(tail: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
    """Write the newest frames and this one, x, to y; ``tail`` are the frames before the next."""
    copy(tail, y)
    copy(x, y[len(tail) :])
    copy(y[len(x) :], tail)


@compiled
def make_whole(x: NDArray[np.float32], y: NDArray[np.float32], limits: NDArray[np.float32]) -> None:
    """Round x (n,) to whole numbers in y; ``limits``: what it is multiplied by, least and most."""
    for i in range(len(x)):
        y[i] = min(max(np.rint(limits[0] * x[i]), limits[1]), limits[2])


@compiled
def choose(logits: NDArray[np.float32], steps: int) -> int:
    """Return the likeliest position of (bins,); as ``PitchReader.choose``."""
    top = 0
    for i in range(1, len(logits)):
        if logits[i] > logits[top]:
            top = i
    if not 0 < top < len(logits) - 1:
        return steps * top
    left, middle, right = logits[top - 1], logits[top], logits[top + 1]
    bend = max(np.float32(2) * middle - left - right, np.float32(2.0**-10))
    half = np.float32(steps / 2)
    shift = min(max(np.rint(half * (right - left) / bend), -half), half)
    return steps * top + int(shift)


@compiled
def sound(
    tables: Tables,
    at: int,
    phase: NDArray[np.float32],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    steps: int,
    turn: int,
) -> None:
    """Write samples at the pitches of logits; as ``Source.sound``.

    Args:
        tables: hold by position what a sample adds to the phase, and how many harmonics there are;
            and the level.
        at: where they are there.
        phase: (1,), of the stream; overwritten.
        x: logits (hops, bins + 1), those of a voice last.
        y: (samples,).
        steps: positions in a bin.
        turn: whole numbers in a turn.
    """
    speeds, harmonics, level = row(tables, at), row(tables, at + 1), row(tables, at + 2)
    hops, bins = x.shape[0], x.shape[1] - 1
    hop = len(y) // hops
    end, anew = np.int64(phase[0]), np.int64(0)
    angle = np.float32(math.pi / turn)
    for h in range(hops):
        position = choose(x[h, :bins], steps)
        voicing = sigmoid(x[h, bins])
        speed, many = np.int64(speeds[position]), np.int64(harmonics[position])
        size = level[0] * voicing * (ONE / np.sqrt(np.float32(2 * many)))
        begin = end - anew
        for i in range(hop):
            place = (begin + speed * (i + 1)) % turn
            place = max(min(place, turn - place), np.int64(1))
            turned = (place * (2 * many + 1) + turn) % (2 * turn) - turn
            above = np.float32(math.sin(np.float32(turned) * angle))
            below = np.float32(math.sin(np.float32(place) * angle))
            y[h * hop + i] = size * (above / below - ONE)
        end += speed * hop
        if x[h, bins] < ZERO:
            anew = end
    phase[0] = np.float32((end - anew) % turn)
