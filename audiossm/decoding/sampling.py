"""Drawing codes and the ends of units: pure functions of numbers, so that a run is a value."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audiossm.errors import ConfigError

__all__ = ["Sampling", "choose_codes", "draw", "end_threshold", "outlive"]

CODES, ENDS = 0, 1  # what a draw is for
# of a group that is drawn, as a share of the first one's: 0.5 beside 0.7
LATER_SHARE = 5 / 7

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How freely speech is drawn.

    Attributes:
        temperature: of the first group of codes; 0 takes the likeliest code.
        later_temperature: of the others; by default less than the first one's.
        top_k: how many of the likeliest codes are drawn from.
        spread: how much lengths vary: 0 gives each unit its median, 1 draws from all there is.
    """

    temperature: float = 0.7
    later_temperature: float | None = None
    top_k: int = 40
    spread: float = 0.5

    def __post_init__(self) -> None:
        for name, value in (
            ("temperature", self.temperature),
            ("later_temperature", self.later_temperature),
        ):
            if value is not None and not 0 <= value <= 10:
                raise ConfigError(f"{name} is {value}, must be 0 to 10")
        if self.top_k < 1:
            raise ConfigError(f"top_k is {self.top_k}, must be 1 or more")
        if not 0 <= self.spread <= 1:
            raise ConfigError(f"spread is {self.spread}, must be 0 to 1")

    def temperatures(self, num_groups: int) -> Floats:
        """Return the temperature of each group, (groups,)."""
        later = self.later_temperature
        if later is None:
            later = LATER_SHARE * self.temperature
        return np.array([self.temperature, *[later] * (num_groups - 1)], np.float32)


def draw(seed: int, kind: int, step: int, count: int) -> NDArray[np.float64]:
    """Return ``count`` numbers in [0, 1): the i-th is a function of (seed, kind, step, i) alone.

    They are Philox's (Salmon et al., 2011), which counts instead of remembering.
    """
    bits = np.random.Philox(counter=[0, 0, step, kind], key=[seed, 0])
    whole = bits.random_raw(count) >> np.uint64(11)
    return np.asarray(whole * 2.0**-53, np.float64)


def choose_codes(
    logits: Floats, uniforms: NDArray[np.float64], temperatures: Floats, top_k: int
) -> NDArray[np.int64]:
    """Draw a code for each group.

    Args:
        logits: (groups, codes).
        uniforms: (groups,) in [0, 1): the same ones choose the same codes.
        temperatures: (groups,); 0 takes the likeliest code.
        top_k: only so many of the likeliest codes of each group are drawn from.

    Returns:
        (groups,).
    """
    k = min(top_k, logits.shape[1])
    likely = np.argpartition(logits, -k, axis=1)[:, -k:]
    likely.sort(axis=1)  # the order that a partition leaves is nobody's promise
    values = np.take_along_axis(logits, likely, axis=1).astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    cold = temperatures == 0
    sums = np.exp(values / np.where(cold, 1.0, temperatures)[:, np.newaxis]).cumsum(axis=1)
    chosen = (sums <= (uniforms * sums[:, -1])[:, np.newaxis]).sum(axis=1)
    chosen = np.where(cold, values.argmax(axis=1), np.minimum(chosen, k - 1))
    codes: NDArray[np.int64] = likely[np.arange(len(likely)), chosen].astype(np.int64)
    return codes


def end_threshold(uniform: float, spread: float) -> float:
    """Return the share of a unit's possible lengths at which it ends, about a half."""
    return 0.5 + spread * (uniform - 0.5)


def outlive(survival: float, logit: float) -> float:
    """Return the probability that a unit goes on after one more frame.

    Args:
        survival: the one before the frame; 1 before a unit's first one.
        logit: of the hazard: that the unit ends with this frame, if it lasted until then.
    """
    tail = math.exp(-abs(logit))  # never overflows
    return survival * (tail if logit > 0 else 1.0) / (1.0 + tail)
