"""What decoders tell: pieces in their frames, whole words, and where a segment ends."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from audiossm.text import Vocabulary

__all__ = ["DecodedEndpoint", "DecodedToken", "DecodedWord", "Reading", "Rule", "make_word"]

Rule = Literal["silence", "pause", "length", "end"]


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


@dataclass(frozen=True)
class Reading:
    """One way to read what wasn't final; ``score`` is its log-probability among all ways."""

    text: str
    score: float


@dataclass(frozen=True)
class DecodedEndpoint:
    """A segment's end before label frame ``frame``: all words so far are final.

    ``start`` and ``end`` (exclusive) are the label frames of its words, -1 if it has none.
    ``readings``, the best first, are of the words that were not final before.
    """

    rule: Rule
    frame: int
    start: int
    end: int
    readings: tuple[Reading, ...]


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
