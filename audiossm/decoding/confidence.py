"""What a beam search knows of a word that becomes final: the evidence for it."""

import math

import numpy as np
from numpy.typing import NDArray

from audiossm.decoding.history import MARGIN, SCORE, SHARE, WORTH

__all__ = ["weigh_word"]

LEAST = -10.0  # below this, a letter's log-probability says nothing more
LEAST_WORTH = -25.0


def weigh_word(scores: NDArray[np.float32]) -> tuple[float, ...]:
    """Return the evidence for a word, in the order of ``audiossm.models.EVIDENCE``.

    Args:
        scores: (letters + 1, HISTORY_SCORES) float32, of its letters and of the break after it.
    """
    letters = scores[:-1].astype(np.float64)
    return (
        float(np.maximum(letters[:, SCORE], LEAST).mean()),
        float(np.maximum(letters[:, MARGIN], LEAST).mean()),
        max(float(scores[-1, WORTH]), LEAST_WORTH),
        math.log(len(letters)),
        float(len(letters) == 1),
        float(scores[:, SHARE].min()),
    )
