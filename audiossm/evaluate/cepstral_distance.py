"""Mel-cepstral distance: how far the spectral envelopes of two recordings of a text are apart."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiossm.errors import ShapeError
from audiossm.evaluate.mel_distance import get_filters

__all__ = ["cepstral_distance", "mel_cepstra", "warp"]

WINDOW, HOP, BANDS, ORDER = 512, 160, 40, 24  # samples, at 16 kHz
FLOOR = 1e-4
QUIET = 40.0  # dB below the loudest frame: pauses aren't compared
DECIBELS = 10 / math.log(10) * math.sqrt(2)

Floats = NDArray[np.float64]


def cepstral_distance(a: Tensor, b: Tensor, sample_rate: int) -> float:
    """Return the mel-cepstral distance in dB (Kubichek 1993), along the best path through time.

    Of frames of 32 ms, 10 ms apart at 16 kHz, that are at most 40 dB quieter than the loudest one:
    40 mel bands, their cepstra 1 to 24, so that loudness doesn't count; the mean over the path of
    ``10 / ln 10 * sqrt(2 * sum((a - b)^2))``.

    Args:
        a: (samples,) in [-1, 1].
        b: likewise; of another length, as a rule.
        sample_rate: Hz, of both.

    Raises:
        ShapeError: not (samples,), or one is empty or silent.
    """
    rows = [mel_cepstra(signal, sample_rate) for signal in (a, b)]
    squares = [np.square(row).sum(axis=1) for row in rows]
    square = squares[0][:, np.newaxis] + squares[1] - 2 * rows[0] @ rows[1].T
    return DECIBELS * warp(np.sqrt(square.clip(min=0)))


def mel_cepstra(signal: Tensor, sample_rate: int) -> Floats:
    """Return the cepstra of the frames in which there is sound, (frames, 24)."""
    if signal.dim() != 1 or not len(signal):
        raise ShapeError(f"cepstra are of (samples,), at least one, not of {(*signal.shape,)}")
    spectrum = torch.stft(
        signal.float(),
        WINDOW,
        HOP,
        window=torch.hann_window(WINDOW),
        pad_mode="constant",
        normalized=True,
        return_complex=True,
    ).abs()
    bands = spectrum.T @ get_filters(BANDS, WINDOW, sample_rate)
    levels = 10 * spectrum.square().sum(0).clamp(min=1e-20).log10()
    loud = levels > max(levels.max().item() - QUIET, -100)
    if not loud.any():
        raise ShapeError("cepstra of silence: there is nothing to compare")
    middle = torch.arange(BANDS, dtype=torch.float64) + 0.5
    order = torch.arange(1, ORDER + 1, dtype=torch.float64)
    cosines = torch.cos(torch.pi / BANDS * torch.outer(middle, order)) * 2 / BANDS
    found: Floats = (bands[loud].clamp(min=FLOOR).log().double() @ cosines).numpy()
    return found


def warp(distances: Floats) -> float:
    """Return the mean distance along the cheapest path (Sakoe and Chiba 1978).

    Args:
        distances: (m, n), between each frame of one recording and each of the other. Steps go to
            the next frame of either, or of both.
    """
    rows, columns = distances.shape
    # each anti-diagonal follows from the two before it
    before = np.full(rows + 1, np.inf)
    newest = np.full(rows + 1, np.inf)
    counts_before, counts = np.zeros(rows + 1, np.int64), np.zeros(rows + 1, np.int64)
    before[0] = 0.0  # what the first cell comes from
    for diagonal in range(rows + columns - 1):
        row = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        # at place i + 1 of a diagonal stands row i
        choices = np.stack([before[row], newest[row], newest[row + 1]])
        lengths = np.stack([counts_before[row], counts[row], counts[row + 1]])
        chosen = choices.argmin(axis=0)
        sums, steps = np.full(rows + 1, np.inf), np.zeros(rows + 1, np.int64)
        at = np.arange(len(row))
        sums[row + 1] = choices[chosen, at] + distances[row, diagonal - row]
        steps[row + 1] = lengths[chosen, at] + 1
        before, newest, counts_before, counts = newest, sums, counts, steps
    return float(newest[rows] / counts[rows])
