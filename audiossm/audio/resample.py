"""A resampler whose state is a value: windowed-sinc, polyphase, for files and streams."""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from audiossm.errors import AudioError, ShapeError

__all__ = ["Resampler", "ResamplerState", "resample"]

_ZERO_CROSSINGS = 6  # of the sinc, on each side of the centre
_ROLLOFF = 0.99  # cut-off as a fraction of the lower Nyquist frequency
_MIN_RATE, _MAX_RATE = 1000, 768000  # Hz
# Windows gathered at a time: a block stays in the cache, and memory doesn't grow with the input.
_BLOCK_ELEMENTS = 1 << 18


class ResamplerState(NamedTuple):
    """Where a stream stands between two samples of either rate."""

    tail: Tensor  # (batch, num_taps - 1) float32: the newest source samples
    phase: Tensor  # (batch,) int64: the next output's place after a source sample, in 1/new samples
    skip: Tensor  # (batch,) int64: source samples to pass over before the next output's window


class Resampler:
    """Change the sample rate of a stream, in pieces of any size.

    The filter is a sinc under a Hann window that spans six zero crossings to each side, cut off at
    0.99 of the lower Nyquist frequency; that is the default of ``torchaudio.functional.resample``,
    and the results are equal. An output needs ``width`` source samples after its own time, so a
    stream lags by those; ``finish`` gives the rest, as if zeros followed.

    Args:
        source_rate: Hz, a whole number in 1000..768000.
        target_rate: Hz, likewise.

    Raises:
        AudioError: a rate is out of range or not a whole number.
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        for rate in (source_rate, target_rate):
            if isinstance(rate, bool) or not isinstance(rate, int):
                raise AudioError(f"sample rate {rate!r} is not a whole number of Hz")
            if not _MIN_RATE <= rate <= _MAX_RATE:
                raise AudioError(f"sample rate {rate} Hz is outside {_MIN_RATE}..{_MAX_RATE} Hz")
        self.source_rate = source_rate
        self.target_rate = target_rate
        divisor = math.gcd(source_rate, target_rate)
        self._old = source_rate // divisor
        self._new = target_rate // divisor
        self._identity = self._old == self._new
        self._weights = torch.ones(1, 1) if self._identity else _make_weights(self._old, self._new)
        self.num_taps = self._weights.shape[1]
        self.width = self.num_taps // 2

    def init_state(self, batch: int) -> ResamplerState:
        """Return the state before the first sample of ``batch`` streams."""
        return ResamplerState(
            tail=torch.zeros(batch, self.num_taps - 1),
            phase=torch.zeros(batch, dtype=torch.int64),
            skip=torch.full((batch,), self.width, dtype=torch.int64),
        )

    def step(self, x: Tensor, state: ResamplerState) -> tuple[Tensor, ResamplerState]:
        """Take source samples and give the target samples that they complete.

        Args:
            x: (batch, samples) float32 at ``source_rate``, any number of samples, none included.
            state: what the previous call returned, or ``init_state(batch)``.

        Returns:
            (batch, m) float32 at ``target_rate``, m >= 0; and the state after ``x``.

        Raises:
            ShapeError: ``x`` is not (batch, samples) float32, or the rows of the state stand at
                different places.
        """
        batch = state.tail.shape[0]
        if x.dim() != 2 or x.shape[0] != batch or x.dtype != torch.float32:
            raise ShapeError(
                f"x is {tuple(x.shape)} {x.dtype}, but expected ({batch}, samples) torch.float32"
            )
        if self._identity:
            return x, state
        phase, skip = _read_place(state)
        joined = torch.cat([state.tail, x], dim=1)
        # Output j has its window at skip + (phase + j * old) // new, and that is inside `joined`
        # as long as it is below the number of new samples.
        room = (x.shape[1] - skip) * self._new - phase
        count = max(0, -(-room // self._old))
        y = self._filter(joined, phase, skip, count)
        end = phase + count * self._old
        return y, ResamplerState(
            tail=joined[:, x.shape[1] :].clone(),
            phase=torch.full_like(state.phase, end % self._new),
            skip=torch.full_like(state.skip, skip + end // self._new - x.shape[1]),
        )

    def finish(self, state: ResamplerState) -> Tensor:
        """Give the last target samples: (batch, m) float32, as if zeros followed."""
        if self._identity:
            return state.tail
        return self.step(torch.zeros(state.tail.shape[0], self.width), state)[0]

    def __call__(self, x: Tensor) -> Tensor:
        """Resample ``x`` (batch, samples) without its end: one ``step`` from the start."""
        return self.step(x, self.init_state(x.shape[0]))[0]

    def _filter(self, joined: Tensor, phase: int, skip: int, count: int) -> Tensor:
        y = joined.new_empty(joined.shape[0], count)
        if count == 0:
            return y
        windows = joined.unfold(1, self.num_taps, 1)
        # A block of whole periods has the same weights and relative places each time.
        size = max(1, _BLOCK_ELEMENTS // self.num_taps)
        if self._new < size:
            size -= size % self._new
        size = min(size, count)
        place = phase + torch.arange(size) * self._old
        offsets = place // self._new
        weights = self._weights[place % self._new]
        periodic = size % self._new == 0
        for first in range(0, count, size):
            n = min(size, count - first)
            start = skip
            if first and periodic:
                start += first // self._new * self._old
            elif first:
                place = phase + torch.arange(first, first + n) * self._old
                offsets, weights = place // self._new, self._weights[place % self._new]
            for row in range(joined.shape[0]):
                gathered = windows[row].index_select(0, offsets[:n] + start)
                torch.sum(gathered.mul_(weights[:n]), dim=1, out=y[row, first : first + n])
        return y


def resample(x: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """Resample a whole signal: ``step`` and ``finish`` of a ``Resampler``.

    Args:
        x: (batch, samples) float32.
        source_rate: Hz, a whole number in 1000..768000.
        target_rate: Hz, likewise.

    Returns:
        (batch, ceil(samples * target_rate / source_rate)) float32.
    """
    resampler = Resampler(source_rate, target_rate)
    y, state = resampler.step(x, resampler.init_state(x.shape[0]))
    return torch.cat([y, resampler.finish(state)], dim=1)


def _read_place(state: ResamplerState) -> tuple[int, int]:
    places = set(zip(state.phase.tolist(), state.skip.tolist(), strict=True))
    if len(places) > 1:
        raise ShapeError(
            "the rows of a resampler stand at different places, but one call needs them equal: "
            "step such streams one by one"
        )
    return places.pop() if places else (0, 0)


@lru_cache(maxsize=8)
def _make_weights(old: int, new: int) -> Tensor:
    """Compute the filter: (new, num_taps) float32, a row per phase.

    An output ``phase / new`` source samples after sample c takes samples c - width + 1 to
    c + width; outside these the window is zero for every phase.
    """
    cutoff = min(old, new) * _ROLLOFF / old  # of the source's Nyquist frequency
    width = math.ceil(_ZERO_CROSSINGS / cutoff)
    phases = torch.arange(new, dtype=torch.float64)[:, None] / new
    taps = torch.arange(1 - width, width + 1, dtype=torch.float64)
    t = ((taps - phases) * cutoff).clamp(-_ZERO_CROSSINGS, _ZERO_CROSSINGS)
    window = torch.cos(t * (math.pi / _ZERO_CROSSINGS / 2)).square()
    return (torch.sinc(t) * window * cutoff).float()
