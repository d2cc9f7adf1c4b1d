"""What decoders tell: pieces in their frames, and whole words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from audiossm.text import Vocabulary

__all__ = ["DecodedToken", "DecodedWord", "make_word"]


@dataclass(frozen=True)
class DecodedToken:
    """A piece and the label frame it was first seen in."""

    id: int
    frame: int
    confidence: float


@dataclass(frozen=True)
class DecodedWord:
    """A whole word over label frames ``start`` to ``end`` (exclusive)."""

    word: str
    start: int
    end: int
    confidence: float


def make_word(
    vocabulary: Vocabulary, pieces: Sequence[int], start: int, last: int, score: float
) -> DecodedWord:
    """Return the word of these pieces.

    Args:
        vocabulary: the model's pieces.
        pieces: at least one.
        start: frame of the first.
        last: frame of the last.
        score: sum of the pieces' log-probabilities.
    """
    confidence = math.exp(score / len(pieces))
    return DecodedWord(vocabulary.decode(pieces), start, last + 1, confidence)
