"""A text in sentences of units, as they become known: what slots are given to say."""

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np

from audiossm.decoding.sampling import ENDS, Sampling, draw, end_threshold
from audiossm.models import LoadedGenerator, Voice
from audiossm.pronouncer import Pronouncer
from audiossm.script import Script, ScriptReader, cut_word
from audiossm.streaming.speech import (
    LONGEST_LEAD,
    LONGEST_PAUSE,
    LONGEST_PHONE,
    SENTENCE_ENDS,
)
from audiossm.streaming.speech_slots import SlotScript
from audiossm.units import Unit

__all__ = ["Sentence", "SpeechPlan"]


@dataclass
class Sentence:
    """A sentence, as far as it is known; who reads it and who says it may be two threads.

    Attributes:
        at: the unit that is being said, or is next.
        is_whole: whether no more units follow; set after the last one was put in.
    """

    units: list[Unit] = field(default_factory=list)
    rows: list[tuple[int, int, int]] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    at: int = 0
    is_whole: bool = False

    def num_ready(self, units_after: int) -> int:
        """Return how many of its units can be said, if each is shaped by so many behind it."""
        whole = self.is_whole  # before the units are counted
        return len(self.units) - (0 if whole else max(units_after, 1))

    def script(self, blank: SlotScript, units_before: int, max_units: int) -> SlotScript:
        """Return what is known from ``at`` on, as much of it as fits."""
        first, whole = max(0, self.at - units_before), self.is_whole
        end = min(self.at + max_units, len(self.units))
        units = self.units[first:end]
        return replace(
            blank,
            units=np.array(self.rows[first:end], np.int64),
            longest=np.array([_longest(unit) for unit in units], np.int64),
            thresholds=np.array(self.thresholds[first:end]),
            first=self.at - first,
            is_whole=whole and end == len(self.units),
        )


class SpeechPlan:
    """Reads a text in pieces, no farther than somebody asks for.

    Args:
        generator: that is to say it.
        pronouncer: says how words are said.
        voice: who speaks.
        pace: the logarithm of how much longer than usual phones are to be.
        sampling: how freely it is drawn.
        seed: of all that is drawn.

    Attributes:
        sentences: that were begun, in their order; whoever says them takes them out.
        words: by their number, as they were written; whoever tells them takes them out.
        skipped: what of the text can't be said; the same.
        is_over: whether all of a finished text was read.
    """

    def __init__(
        self,
        generator: LoadedGenerator,
        pronouncer: Pronouncer,
        voice: Voice,
        *,
        pace: float,
        sampling: Sampling,
        seed: int,
    ) -> None:
        self.generator, self.sampling = generator, sampling
        none = np.zeros((0, 3), np.int64)
        self.blank = SlotScript(
            none, none[:, 0], voice.vector, pace, seed, voice.state, sampling=sampling
        )
        self.reader = ScriptReader(pronouncer)
        self.text, self.at = "", 0
        self.finished = self.is_over = False
        self.sentences: deque[Sentence] = deque()
        self.newest: Sentence | None = None  # the one that isn't whole
        self.words: dict[int, str] = {}
        self.skipped: deque[str] = deque()
        self.num_units = 0

    def push(self, text: str) -> None:
        """Take more text."""
        self.text, self.at = self.text[self.at :] + text, 0

    def finish(self) -> None:
        """Take note that the text ends here."""
        self.finished = True

    def read(self, num_ahead: int) -> bool:
        """Read until so many units of a sentence wait, or the next one; tell if any came."""
        before = self.num_units, self.is_over
        while not self.is_over and not self._knows(num_ahead):
            word, self.text, self.at = cut_word(self.text, self.at)
            if word:
                self._know(self.reader.push(word))
                continue
            if not self.finished:
                break
            self._know(self.reader.push(self.text[self.at :]))
            self._know(self.reader.finish())
            if self.newest is not None:
                self._end_sentence()
            self.text, self.at, self.is_over = "", 0, True
        return (self.num_units, self.is_over) != before

    def _knows(self, num_ahead: int) -> bool:
        if len(self.sentences) > 1:
            return True
        sentence = self.newest
        return sentence is not None and len(sentence.units) - sentence.at >= num_ahead

    def _know(self, script: Script) -> None:
        first = self.reader.num_words - len(script.words)
        said = {unit.word for unit in script.units if not unit.is_pause}
        for number, word in enumerate(script.words, first):
            if number in said:
                self.words[number] = word
            else:  # the pronouncer finds it silent
                self.skipped.append(word)
        self.skipped += script.skipped
        for unit in script.units:
            if self.newest is None:
                self.newest = Sentence()
                if unit.symbol != "_":
                    self._add(Unit("_", 0, 0, unit.word))
                self.sentences.append(self.newest)
            self._add(unit)
            if unit.symbol in SENTENCE_ENDS:
                self._end_sentence()

    def _add(self, unit: Unit) -> None:
        assert self.newest is not None
        uniform = float(draw(self.blank.seed, ENDS, self.num_units, 1)[0])
        self.newest.thresholds.append(end_threshold(uniform, self.sampling.spread))
        self.newest.rows.append(self.generator.row(unit))
        self.newest.units.append(unit)  # the last: they are counted by it
        self.num_units += 1

    def _end_sentence(self) -> None:
        assert self.newest is not None
        self.newest.is_whole, self.newest = True, None


def _longest(unit: Unit) -> int:
    if unit.symbol == "_":
        return LONGEST_LEAD
    return LONGEST_PAUSE if unit.is_pause else LONGEST_PHONE
