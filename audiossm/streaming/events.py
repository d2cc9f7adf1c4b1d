"""What a session tells: tokens as they are heard, words when they are whole, then as written."""

from dataclasses import dataclass

__all__ = ["Event", "Token", "Word", "WrittenWord"]


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

    @property
    def text(self) -> str:
        """The word as it is shown where nobody writes it otherwise."""
        return self.word


@dataclass(frozen=True)
class WrittenWord:
    """A word, or the words of a number, as people write them; it will not change."""

    text: str  # with case and the mark after it: "River." or "23,"
    word: str  # the plain words: "river" or "twenty three"
    start_s: float
    end_s: float
    confidence: float  # geometric mean of the words'


Event = Token | Word | WrittenWord
