"""What a session tells: tokens as they are heard, words when they are whole, then as written.

An endpoint closes a segment of them.
"""

from dataclasses import dataclass

from audiossm.decoding import Reading, Rule

__all__ = ["Endpoint", "Event", "Token", "Word", "WrittenWord"]


@dataclass(frozen=True)
class Token:
    """A piece of text, or a phone where these are decoded, that will not change."""

    id: int
    piece: str  # "▁" stands between words of letters
    frame: int  # label frame (20 ms) it was first seen in, from the start of the session
    confidence: float  # probability, 0 to 1


@dataclass(frozen=True)
class Word:
    """A whole word that will not change."""

    word: str
    start_s: float
    end_s: float
    # the probability that it is right, by beam search with a calibrated model; otherwise the
    # geometric mean of its tokens' probabilities
    confidence: float

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


@dataclass(frozen=True)
class Endpoint:
    """The end of a segment: all words before it are final, and written if there is a writer.

    ``rule`` is ``pause``, ``length``, ``silence`` (nothing was said for long, told once for each
    silence; the segment may have no words) or ``end`` (a flush, or the stream's end).
    """

    rule: Rule
    time_s: float  # where the stream is cut: nothing that follows was said before it
    start_s: float | None  # of the segment's first word; None without words
    end_s: float | None  # of its last word: the end of speech
    readings: tuple[Reading, ...] = ()  # of what wasn't final before, best first, if asked for


Event = Token | Word | WrittenWord | Endpoint
