"""How sure a word is: from the evidence for it to the probability that it is right."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from audiossm.config import later
from audiossm.errors import ConfigError

__all__ = ["EVIDENCE", "Calibration", "Company"]

# what is known of a word when it becomes final
EVIDENCE = (
    "score",  # mean log-probability of its letters, each in its frame
    "margin",  # mean of what these are below the frame's likeliest label
    "worth",  # of the word to the language model, log-probability and bonus
    "length",  # logarithm of the number of letters
    "single",  # 1 for a word of one letter
    "share",  # least share of all hypotheses' probability that went on from it or its letters
)


LARGEST = 30.0  # log odds
SURELY_WRONG = 1e-13  # about what these are


@dataclass(frozen=True, kw_only=True)
class Company:
    """Weights of a logistic model of words that are told, the table ``confidence.told``.

    A word is more often wrong after words that nobody is sure of: of a voice, say, or a room that
    the model doesn't know.
    """

    bias: float
    alone: float  # of the log odds of the word by its own evidence
    company: float  # of how sure the words before it were, from 0 to 1

    def __post_init__(self) -> None:
        _check("confidence.told", vars(self))


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Weights of a logistic model, which a model's config.toml has as the table ``confidence``.

    ``recipes/transcribe/fit_confidence.py`` fits them; they belong to the weights of the network.
    By ``judge`` it is decided which words are told; ``told`` corrects what is said of those.
    """

    bias: float
    score: float
    margin: float
    worth: float
    length: float
    single: float
    share: float
    told: Company | None = later(None)

    def __post_init__(self) -> None:
        _check("confidence", {name: getattr(self, name) for name in ("bias", *EVIDENCE)})

    def judge(self, evidence: Sequence[float]) -> float:
        """Return the probability that a word with this evidence is right."""
        weights = (getattr(self, name) for name in EVIDENCE)
        total = self.bias + math.fsum(w * e for w, e in zip(weights, evidence, strict=True))
        return _squash(total)

    def tell(self, confidence: float, company: float) -> float:
        """Return the probability that a word is right which is told.

        Args:
            confidence: of its own evidence, as ``judge`` says.
            company: a running mean of that of the words before it.
        """
        if self.told is None:
            return confidence
        confidence = min(max(confidence, SURELY_WRONG), 1 - SURELY_WRONG)
        alone = math.log(confidence / (1 - confidence))
        return _squash(self.told.bias + self.told.alone * alone + self.told.company * company)


def _squash(odds: float) -> float:
    """Turn log odds into a probability."""
    return 1 / (1 + math.exp(-min(max(odds, -LARGEST), LARGEST)))


def _check(table: str, values: dict[str, float]) -> None:
    """Refuse numbers that are none."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise ConfigError(f"{table}.{name} is {value!r}, expected a finite number")
