"""What is kept of a recording: its words, in segments, and other ways to read them."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from audiossm.decoding import Reading, Rule
from audiossm.streaming.events import Endpoint, Event, Word, WrittenWord

__all__ = ["Segment", "Transcript", "TranscriptDraft"]


@dataclass(frozen=True)
class Segment:
    """The words between two endpoints."""

    start_s: float
    end_s: float
    text: str
    confidence: float  # mean of the words'
    rule: Rule
    alternatives: tuple[Reading, ...] = ()  # plain words, best first; none unless asked for


@dataclass(frozen=True)
class Transcript:
    """The words of a recording, plain or as people write them."""

    text: str
    duration_s: float
    model: str
    words: tuple[Word | WrittenWord, ...]
    segments: tuple[Segment, ...] = ()
    alternatives: tuple[Reading, ...] = ()  # plain words, best first; none unless asked for


class TranscriptDraft:
    """Takes a session's events and makes a transcript of them.

    Args:
        readable: whether the words that count are the written ones.
        nbest: how many alternatives there are.
    """

    def __init__(self, readable: bool, nbest: int = 0) -> None:
        self.kind: type[Word | WrittenWord] = WrittenWord if readable else Word
        self.nbest = nbest
        self.words: list[Word | WrittenWord] = []
        self.segments: list[Segment] = []
        self.alternatives = [Reading("", 0.0)]
        self.first = 0  # word of the segment in progress
        self.plain: list[str] = []  # the segment's words that were final before its end

    def add(self, event: Event) -> None:
        """Take the next event."""
        if isinstance(event, Word):
            self.plain.append(event.word)
        if isinstance(event, self.kind):
            self.words.append(event)
        elif isinstance(event, Endpoint):
            self._end_segment(event)

    def build(self, duration_s: float, model: str) -> Transcript:
        """Return what there is so far; words without an endpoint are a segment, too."""
        if self.first < len(self.words):
            self._end_segment(Endpoint("end", duration_s, None, None))
        text = " ".join(word.text for word in self.words)
        alternatives = tuple(self.alternatives) if self.nbest else ()
        return Transcript(
            text, duration_s, model, tuple(self.words), tuple(self.segments), alternatives
        )

    def _end_segment(self, end: Endpoint) -> None:
        words, plain = self.words[self.first :], self.plain
        self.first, self.plain = len(self.words), []
        if not words:
            return
        readings: tuple[Reading, ...] = ()
        if self.nbest:
            readings = extend_readings(plain, end.readings)[: self.nbest]
            self.alternatives = join_readings(self.alternatives, readings, self.nbest)
        self.segments.append(
            Segment(
                words[0].start_s,
                words[-1].end_s,
                " ".join(word.text for word in words),
                math.fsum(word.confidence for word in words) / len(words),
                end.rule,
                readings,
            )
        )


def extend_readings(words: Sequence[str], readings: Sequence[Reading]) -> tuple[Reading, ...]:
    """Put before each reading the words of a segment that were final; its best one ends them."""
    if not readings:
        return (Reading(" ".join(words), 0.0),)
    num_open = len(readings[0].text.split())
    final = list(words[: len(words) - num_open])
    return tuple(Reading(" ".join([*final, *r.text.split()]), r.score) for r in readings)


def join_readings(
    before: Sequence[Reading], after: Sequence[Reading], number: int
) -> list[Reading]:
    """Return the best readings of two segments together; scores add up."""
    pairs = ((a.score + b.score, f"{a.text} {b.text}".strip()) for a in before for b in after)
    best = heapq.nlargest(number, pairs, key=lambda pair: pair[0])
    return [Reading(text, score) for score, text in best]
