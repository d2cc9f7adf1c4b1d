"""How far chance moves word error rates: bootstrap intervals (Bisani and Ney, ICASSP 2004)."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiossm.evaluate.wer import WordErrors

__all__ = ["Interval", "Unit", "change_interval", "rate_interval"]

DRAWS = 2000
INSIDE = 0.95  # of the draws
MIN_SPEAKERS = 10  # of fewer, utterances are drawn

Unit = Literal["speakers", "utterances"]


class Interval(NamedTuple):
    """A 95 % confidence interval: as many draws lie below as above; ``size`` units are drawn."""

    low: float
    high: float
    size: int
    unit: Unit

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as a JSON object; ``drawn`` says how many of what."""
        return {"low": self.low, "high": self.high, "drawn": f"{self.size} {self.unit}"}


def rate_interval(speakers: Sequence[str], errors: Sequence[WordErrors]) -> Interval | None:
    """Return between what word error rates other recordings of this kind would have.

    All that a speaker says is drawn together, since it is alike; where fewer than ten speakers are
    named, each utterance by itself, and then new speakers may differ by more.

    Args:
        speakers: of each utterance, "" if that isn't known.
        errors: of each utterance.

    Returns:
        fractions, or None of fewer than two utterances.
    """
    drawn = draw(speakers, np.array([(each.wrong, each.words) for each in errors]))
    if drawn is None:
        return None
    sums, size, unit = drawn
    return interval(sums[:, 0] / np.maximum(sums[:, 1], 1), size, unit)


def change_interval(
    speakers: Sequence[str], before: Sequence[WordErrors], now: Sequence[WordErrors]
) -> Interval | None:
    """Return between what shares of errors a change would take from other recordings, too.

    Both are of the same utterances, which are drawn together, so this is narrower than two rates'
    intervals look; the rest is as ``rate_interval`` has it.

    Returns:
        fractions, 0.2 for a fifth fewer errors, negative for more; or None of fewer than two
        utterances.
    """
    counts = [(a.wrong, b.wrong) for a, b in zip(before, now, strict=True)]
    drawn = draw(speakers, np.array(counts))
    if drawn is None:
        return None
    sums, size, unit = drawn
    gone = sums[:, 0] - sums[:, 1]
    return interval(gone / np.maximum(sums[:, 0], 1), size, unit)


def draw(
    speakers: Sequence[str], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int, Unit] | None:
    """Draw as many units as there are, again and again, with replacement, and add up counts.

    Args:
        speakers: of each utterance.
        counts: (utterances, n).

    Returns:
        sums (draws, n), how many units there are and what they are; None if there is but one.
    """
    named = len(set(filter(None, speakers))) >= MIN_SPEAKERS
    units: dict[str | int, int] = {}  # whoever isn't named is one by himself
    at = [
        units.setdefault(name if named and name else i, len(units))
        for i, name in enumerate(speakers)
    ]
    if len(units) < 2:
        return None
    sums = np.zeros((len(units), counts.shape[1]), dtype=np.int64)
    np.add.at(sums, at, counts)
    rng = np.random.default_rng(0)
    picks = (rng.integers(len(units), size=len(units)) for _ in range(DRAWS))
    drawn = np.array([sums[pick].sum(0) for pick in picks])
    return drawn, len(units), "speakers" if named else "utterances"


def interval(rates: NDArray[np.float64], size: int, unit: Unit) -> Interval:
    """Return where the middle ones of the draws' rates lie."""
    low, high = np.quantile(rates, [(1 - INSIDE) / 2, (1 + INSIDE) / 2])
    return Interval(float(low), float(high), size, unit)
