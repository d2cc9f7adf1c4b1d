"""What a session tells: tokens as they are heard, words when they are whole."""

from dataclasses import dataclass

__all__ = ["Event", "Token", "Word"]


@dataclass(frozen=True)
class Token:
    """A piece of text that will not change."""

    id: int
    piece: str  # "▁" stands between words
    frame: int  # label frame (20 ms) it was first seen in, from the start of the session
    confidence: float  # probability, 0 to 1


@dataclass(frozen=True)
class Word:
    """A whole word that will not change."""

    word: str
    start_s: float
    end_s: float
    confidence: float  # geometric mean of its tokens' probabilities


Event = Token | Word
