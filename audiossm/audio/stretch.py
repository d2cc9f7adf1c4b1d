"""Speech made faster or slower, its pitch as it was, piece by piece."""

from copy import copy
from typing import Self

import numpy as np
from numpy.typing import NDArray

from audiossm.errors import AudioError

__all__ = ["Stretch"]

WINDOW_S, SEARCH_S = 0.03, 0.01
FASTEST = 4.0  # and as much slower
LEAST_POWER = 1e-10  # of a window in which waves are looked for
HEADER = 4  # numbers of a state before its samples

Samples = NDArray[np.float32]


class Stretch:
    """Overlaps windows of speech where their waves fit (WSOLA: Verhelst and Roelands, 1993).

    Windows stand ``speed`` times as far apart in what comes as in what goes out, but for up to
    10 ms: where one looks most like what would have followed the one before. The result is a
    function of all samples, not of the pieces in which they come.

    Args:
        sample_rate: Hz.
        speed: 0.25 to 4; above 1 it gets shorter.

    Attributes:
        num_out: samples that went out.

    Raises:
        AudioError: a speed that can't be.
    """

    def __init__(self, sample_rate: int, speed: float) -> None:
        if not 1 / FASTEST <= speed <= FASTEST:
            raise AudioError(f"speed is {speed:g}, must be {1 / FASTEST:g} to {FASTEST:g}")
        self.speed = speed
        self.hop = round(WINDOW_S * sample_rate / 2)
        self.search = round(SEARCH_S * sample_rate)
        angles = np.arange(2 * self.hop) * (np.pi / self.hop)
        self.window = (0.5 - 0.5 * np.cos(angles)).astype(np.float32)
        self.num_windows = self.last = 0  # the newest one's first sample
        self.begin = 0  # of the samples that are kept
        self.num_out = 0
        self.kept = np.zeros(0, np.float32)
        self.tail = np.zeros(self.hop, np.float32)  # of the newest window

    def push(self, samples: Samples, *, last: bool = False) -> Samples:
        """Take samples (samples,); return what is made of all so far, or at the ``last`` of all."""
        self.kept = np.concatenate([self.kept, samples])
        made = [np.zeros(0, np.float32)]
        while (place := self._place(self.num_windows)) is not None:
            made.append(self._add(place))
        keep = min(self.last + self.hop, self._earliest(self.num_windows)) - self.begin
        if keep > 0:
            self.kept, self.begin = self.kept[keep:], self.begin + min(keep, len(self.kept))
        result = np.concatenate(made)
        self.num_out += len(result)
        return np.concatenate([result, self.finish()]) if last else result

    def finish(self) -> Samples:
        """Return the rest: in all a ``speed``-th of the samples that came."""
        missing = round((self.begin + len(self.kept)) / self.speed) - self.num_out
        before, reach = self.num_out, 3 * self.hop + 2 * self.search
        silence = np.zeros(round((missing + 2 * self.hop) * self.speed) + reach, np.float32)
        rest = self.push(silence)[: max(missing, 0)]
        self.num_out = before + len(rest)
        return rest

    def fork(self) -> Self:
        """Return a second one that goes on from here; arrays are made anew, never written into."""
        return copy(self)

    def state(self) -> NDArray[np.float64]:
        """Return what ``load`` goes on from."""
        counts = [self.num_windows, self.last, self.begin, self.num_out]
        return np.concatenate([np.array(counts, np.float64), self.tail, self.kept])

    def load(self, state: NDArray[np.generic]) -> None:
        """Go on from another one's ``state``.

        Raises:
            ValueError: it isn't one.
        """
        values = np.asarray(state, np.float64)
        if values.ndim != 1 or len(values) < HEADER + self.hop:
            raise ValueError(f"a state of a stretch has other sizes than {values.shape}")
        counts = values[:HEADER]
        if not (counts >= 0).all() or not np.isfinite(values).all():
            raise ValueError("a state of a stretch has numbers that can't be")
        self.num_windows, self.last, self.begin, self.num_out = (int(count) for count in counts)
        self.tail, self.kept = np.split(values[HEADER:].astype(np.float32), [self.hop])

    def _earliest(self, number: int) -> int:
        return max(int(number * self.hop * self.speed) - self.search, 0)

    def _place(self, number: int) -> int | None:
        """Return where the next window begins; None if that isn't known yet."""
        nominal, width = int(number * self.hop * self.speed), 2 * self.hop
        follows = self.last + self.hop if number else 0
        known = self.begin + len(self.kept)
        # no more goes out than what came is long
        due = int((number + 1) * self.hop * self.speed)
        if max(nominal + self.search + width, follows + width, due) > known:
            return None
        if not number:
            return 0
        first = self._earliest(number)
        wanted = self._cut(follows, follows + width)
        heard = self._cut(first, nominal + self.search + width)
        powers = np.convolve(heard * heard, np.ones(width), "valid")
        likeness = np.correlate(heard, wanted, "valid") / np.sqrt(powers + LEAST_POWER)
        if float(wanted @ wanted) < LEAST_POWER:
            return nominal
        return first + int(likeness.argmax())

    def _cut(self, begin: int, end: int) -> NDArray[np.float64]:
        return self.kept[begin - self.begin : end - self.begin].astype(np.float64)

    def _add(self, place: int) -> Samples:
        window = self.kept[place - self.begin : place - self.begin + 2 * self.hop]
        shaped = window * self.window
        made: Samples = self.tail + shaped[: self.hop] if self.num_windows else window[: self.hop]
        self.tail, self.last = shaped[self.hop :], place
        self.num_windows += 1
        return made.copy()
