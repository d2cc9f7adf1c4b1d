"""How sure a word is: from the evidence for it to the probability that it is right."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from audiossm.errors import ConfigError

__all__ = ["EVIDENCE", "Calibration"]

# what is known of a word when it becomes final
EVIDENCE = (
    "score",  # mean log-probability of its letters, each in its frame
    "margin",  # mean of what these are below the frame's likeliest label
    "worth",  # of the word to the language model, log-probability and bonus
    "length",  # logarithm of the number of letters
    "single",  # 1 for a word of one letter
    "share",  # least share of all hypotheses' probability that went on from it or its letters
)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Weights of a logistic model, which a model's config.toml has as the table ``confidence``.

    ``recipes/transcribe/fit_confidence.py`` fits them; they belong to the weights of the network.
    """

    bias: float
    score: float
    margin: float
    worth: float
    length: float
    single: float
    share: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not math.isfinite(value):
                raise ConfigError(f"confidence.{name} is {value!r}, expected a finite number")

    def judge(self, evidence: Sequence[float]) -> float:
        """Return the probability that a word with this evidence is right."""
        weights = (getattr(self, name) for name in EVIDENCE)
        total = self.bias + math.fsum(w * e for w, e in zip(weights, evidence, strict=True))
        return 1 / (1 + math.exp(-min(max(total, -30.0), 30.0)))
