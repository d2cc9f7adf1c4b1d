"""Where a stream is cut into segments: three rules about silence, and the decoder between them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from audiossm.decoding.decoder import Decoder
from audiossm.decoding.greedy import BLANK_ID
from audiossm.decoding.words import DecodedEndpoint, DecodedToken, DecodedWord, Reading, Rule
from audiossm.errors import ConfigError
from audiossm.hotwords import HotWord
from audiossm.text import Vocabulary

__all__ = ["EndpointRules", "SegmentState", "Segmenter"]

NEVER = -1
# how much longer than ``longest_s`` a segment must be until any word break will do
PATIENCE = 0.5

Found = list[DecodedToken | DecodedWord | DecodedEndpoint]


@dataclass(frozen=True, kw_only=True)
class EndpointRules:
    """When a segment ends, in seconds; ``math.inf`` turns a rule off.

    Silence is frames whose likeliest label is no letter. Letters come late after sounds, and those
    of the next word even later: a silence seems some 0.1 s longer than it is.

    Raises:
        ConfigError: a number isn't above 0.
    """

    silence_s: float = 2.4  # rule "silence": nothing was said for so long; told once
    pause_s: float = 0.7  # rule "pause": words, then so long a silence
    # rule "length": a segment of so many seconds ends at a shorter pause between words, ever
    # shorter ones will do, and half as many seconds later at any word break
    longest_s: float = 20.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (isinstance(value, int | float) and value > 0):
                raise ConfigError(f"endpoints.{name} is {value!r}, expected seconds above 0")


class SegmentState(NamedTuple):
    """A segment in progress; arrays of fixed size, so that it can be stored."""

    decoder: Any
    marks: NDArray[np.int64]  # see ``Marks``


@dataclass
class Marks:
    """What ``SegmentState.marks`` means, while a step runs; frames are label frames."""

    frame: int  # of the next label
    emit_from: int  # labels before it don't count
    since: int  # where silence began that no letter has ended
    first: int = NEVER  # the segment's first letter
    is_broken: int = 0  # a word break was heard after the newest letter
    is_told: int = 0  # rule "silence" was told, or the silence follows another endpoint
    first_word: int = NEVER  # where the segment's first final word begins
    last_word: int = NEVER  # where its last one ends

    def pack(self) -> NDArray[np.int64]:
        """Return them as an array."""
        return np.array(list(vars(self).values()), np.int64)

    @staticmethod
    def unpack(marks: NDArray[np.int64]) -> "Marks":
        """Read what ``pack`` returned."""
        return Marks(*marks.tolist())


class Segmenter:
    """A decoder whose words are final where a segment ends; it is a decoder itself.

    Where a segment ends depends on the label frames alone, not on how they come.

    Args:
        decoder: from frames to words.
        rules: when a segment ends; with None it does at the end and at flushes only.
        frame_s: seconds in a label frame.
        vocabulary: the model's pieces, which the first columns of frames are of.
        nbest: how many readings of a segment's end are told with it; 0 is none.

    Raises:
        ConfigError: ``nbest`` is below 0.
    """

    def __init__(
        self,
        decoder: Decoder[Any],
        rules: EndpointRules | None,
        frame_s: float,
        vocabulary: Vocabulary,
        nbest: int = 0,
    ) -> None:
        if nbest < 0:
            raise ConfigError(f"nbest is {nbest}, expected 0 or more")
        self.decoder, self.rules, self.frame_s = decoder, rules, frame_s
        self.vocabulary, self.nbest = vocabulary, nbest
        never = EndpointRules(silence_s=math.inf, pause_s=math.inf, longest_s=math.inf)
        limits = rules or never
        self.silence = limits.silence_s / frame_s
        self.pause = limits.pause_s / frame_s
        self.longest = limits.longest_s / frame_s

    @property
    def hash(self) -> str:
        """The decoder's."""
        return self.decoder.hash

    @property
    def symbols(self) -> tuple[str, ...]:
        """The decoder's."""
        return self.decoder.symbols

    def with_hotwords(self, hotwords: Sequence[HotWord]) -> Self:
        """Return one like this with these hot words instead."""
        decoder = self.decoder.with_hotwords(hotwords)
        return type(self)(decoder, self.rules, self.frame_s, self.vocabulary, self.nbest)

    def adopt(self, state: SegmentState) -> SegmentState:
        """Return a state of other hot words' decoder as one to go on from."""
        return state._replace(decoder=self.decoder.adopt(state.decoder))

    def init_state(self, late_frames: int) -> SegmentState:
        """Return the state before the first frame of a network whose output is late."""
        marks = Marks(-late_frames, 0, 0)
        return SegmentState(self.decoder.init_state(late_frames), marks.pack())

    def decode(self, log_probs: Tensor, state: SegmentState) -> tuple[Found, SegmentState]:
        """Advance by some frames, (label frames, symbols); tell what became final by them."""
        decoder, marks = state.decoder, Marks.unpack(state.marks)
        found: Found = []
        done = 0

        def decode_to(end: int) -> None:
            nonlocal decoder, done
            items, decoder = self.decoder.decode(log_probs[done:end], decoder)
            found.extend(self._count(items, marks))
            done = end

        letters = log_probs[:, : len(self.vocabulary)]
        for at, label in enumerate(letters.argmax(dim=-1).tolist(), 1):
            rule = self._hear(label, marks)
            if rule is None:
                continue
            decode_to(at)
            readings = self.decoder.readings(decoder, self.nbest)
            items, decoder = self.decoder.close(decoder)
            found.extend(self._count(items, marks))
            if marks.last_word != NEVER or rule == "silence":
                found.append(_make_endpoint(marks, rule, readings))
                marks.is_told = 1
            marks.first = marks.first_word = marks.last_word = NEVER
        if done < len(log_probs):
            decode_to(len(log_probs))
        return found, SegmentState(decoder, marks.pack())

    def finish(self, state: SegmentState, tail: Tensor | None = None) -> Found:
        """Tell the rest, and the end of the segment if it has words.

        Args:
            state: after the last frame.
            tail: frames of silence after it, (label frames, symbols): the decoder hears them, for
                words that were said before, but no segment ends there. Where a flush has told all
                before it, it isn't heard again.
        """
        marks, decoder = Marks.unpack(state.marks), state.decoder
        found: Found = []
        if tail is not None and len(tail) and marks.frame > marks.emit_from:
            items, decoder = self.decoder.decode(tail, decoder)
            found += self._count(items, marks)
        readings = self.decoder.readings(decoder, self.nbest)
        found += self._count(self.decoder.finish(decoder), marks)
        if marks.last_word != NEVER:
            found.append(_make_endpoint(marks, "end", readings))
        return found

    def skip_to(self, frame: int, state: SegmentState) -> SegmentState:
        """Leave out all labels before ``frame``: a flush has told them, and begins a segment.

        Where later ones are left out already, that stays so.
        """
        marks = Marks.unpack(state.marks)
        if frame <= marks.emit_from:
            return state
        marks = Marks(marks.frame, frame, frame)
        return SegmentState(self.decoder.skip_to(frame, state.decoder), marks.pack())

    def partial(self, state: SegmentState) -> str:
        """Return what was heard and may still change."""
        return self.decoder.partial(state.decoder)

    def _hear(self, label: int, marks: Marks) -> Rule | None:
        """Take the next frame's likeliest label; return the rule by which a segment ends there."""
        frame = marks.frame
        marks.frame += 1
        if frame < marks.emit_from:
            return None
        word_break = self.vocabulary.word_break
        if label not in (BLANK_ID, word_break):
            marks.first = frame if marks.first == NEVER else marks.first
            marks.since, marks.is_broken, marks.is_told = frame + 1, 0, 0
            return None
        marks.is_broken |= label == word_break
        silence = frame + 1 - marks.since
        if marks.first == NEVER:
            return "silence" if silence >= self.silence and not marks.is_told else None
        if silence >= self.pause:
            return "pause"
        over = frame - marks.first - self.longest
        if over >= 0 and marks.is_broken:
            wanted = min(self.pause, 0.5 / self.frame_s)
            wanted *= max(0.0, 1.0 - over / (PATIENCE * self.longest))
            if silence >= wanted:
                return "length"
        return None

    def _count(
        self, items: Sequence[DecodedToken | DecodedWord], marks: Marks
    ) -> Sequence[DecodedToken | DecodedWord]:
        for item in items:
            if isinstance(item, DecodedWord):
                marks.last_word = item.end
                if marks.first_word == NEVER:
                    marks.first_word = item.start
        return items


def _make_endpoint(marks: Marks, rule: Rule, readings: Sequence[Reading]) -> DecodedEndpoint:
    return DecodedEndpoint(rule, marks.frame, marks.first_word, marks.last_word, tuple(readings))
