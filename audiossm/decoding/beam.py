"""Beam search decoding: words of a lexicon, weighed by a language model, some frames at a time."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from audiossm.decoding.confidence import weigh_word
from audiossm.decoding.costs import Weights
from audiossm.decoding.entries import add_words, make_knowledge
from audiossm.decoding.history import (
    BEFORE,
    FRAME,
    HISTORY_COLUMNS,
    HISTORY_SCORES,
    LABEL,
    NO_FRAME,
    SCORE,
    WORD,
    History,
    Told,
)
from audiossm.decoding.hypotheses import (
    BEAM_COLUMNS,
    BLANK,
    CONTEXT,
    DEAD,
    IN_BLANK,
    IN_LABEL,
    LAST,
    LENGTH,
    NODE,
    PHRASE,
    ROOT,
    TAIL,
    Beam,
    best_row,
)
from audiossm.decoding.knowledge import NOTHING, likeliest_word
from audiossm.decoding.ngram import MARKS, SENTENCE_START, UNKNOWN, NgramModel
from audiossm.decoding.phrases import make_phrases
from audiossm.decoding.search import close_words, match_words, rank_endings, search
from audiossm.decoding.units import Spelling, Units, spell_parts
from audiossm.decoding.words import DecodedToken, DecodedWord, Reading
from audiossm.hotwords import HotWord
from audiossm.models import Calibration

__all__ = ["BeamConfig", "BeamDecoder", "BeamState"]


@dataclass(frozen=True, kw_only=True)
class BeamConfig:
    """Weights of the search, as natural log-probabilities; tuned on the development set."""

    width: int = 128  # hypotheses
    beam: float = 16.0  # worse than the best by more, one is given up
    least: float = -8.0  # labels below this are not tried
    lm_weight: float = 1.0
    word_bonus: float = 0.25
    spelled: float = -18.0  # a word that isn't in the lexicon
    letter: float = -1.0  # each of its letters or phones
    new_word: float = -15.0  # but if it is of a hot word's phrase
    hot: float = 3.0  # each rare word of a phrase that is written
    hot_letter: float = 0.7  # each of its letters or phones
    blank: float = -0.7  # each frame without a label, where one could be
    join: float = -6.0  # a word begins, but no break was heard
    split: float = -3.0  # a break was heard, but the word goes on
    said: float = 1.0  # times the log-probability of a pronunciation
    # not told, where confidence is calibrated:
    least_sure: float = 0.0  # words of less
    sure_alone: float = 0.0  # words of less in poor company
    sure_company: float = 0.0  # it is poor if the mean of the words so far is less
    newest_share: float = 0.6  # which takes so much of each, told or not,
    sure_at_first: float = 0.6  # and begins so
    pause_frames: int = 40  # without a label, after which words are final
    longest_wait: int = 250  # frames after which words are final in any case
    history: int = 8192  # labels of all hypotheses that aren't final


# a grammar of words makes words of rain and engines, too, but none of them is sure
BY_PHONES = BeamConfig(
    lm_weight=1.4,
    word_bonus=0.0,
    said=0.5,
    hot_letter=1.3,
    new_word=-21.0,
    least_sure=0.15,
    sure_alone=0.75,
    sure_company=0.5,
)


class BeamState(NamedTuple):
    """What the decoder remembers; arrays of fixed size, so that it can be stored."""

    frame: NDArray[np.int32]  # (1,): frames seen, from minus the look-ahead
    emit_from: NDArray[np.int32]  # (1,): first frame whose labels count
    beam_size: NDArray[np.int32]  # the fields of ``hypotheses.Beam``
    beam_ints: NDArray[np.int32]
    beam_floats: NDArray[np.float32]
    history_size: NDArray[np.int32]  # the fields of ``history.History``
    history_entries: NDArray[np.int32]
    history_scores: NDArray[np.float32]
    company: NDArray[np.float32]  # (1,): how sure the newest words were, told or not

    def duplicate(self) -> "BeamState":
        """Return a state that may be written into."""
        return BeamState._make(array.copy() for array in self)

    @property
    def beam(self) -> Beam:
        """The hypotheses."""
        return Beam(self.beam_size, self.beam_ints, self.beam_floats)

    @property
    def history(self) -> History:
        """What they have heard."""
        return History(self.history_size, self.history_entries, self.history_scores)


class BeamDecoder:
    """Words of a language model's lexicon, or spelled ones at a price, by prefix beam search.

    What becomes final is what all hypotheses share, and everything at a pause or after
    ``longest_wait`` frames. What is told depends on the frames alone, not on how they come.

    Args:
        units: what the model's labels are, letters or phones.
        ngrams: language model and lexicon.
        config: weights.
        hotwords: what is written more readily, as ``check_hotwords`` returns it.
        calibration: tells how sure a word is; without, it is its labels' geometric mean.
    """

    def __init__(
        self,
        units: Units,
        ngrams: NgramModel,
        config: BeamConfig | None = None,
        hotwords: Sequence[HotWord] = (),
        calibration: Calibration | None = None,
    ) -> None:
        config = config or BeamConfig()
        self.units, self.ngrams, self.config = units, ngrams, config
        self.calibration = calibration
        self.hash = hashlib.sha256(f"{units.name} {ngrams.hash} {config}".encode()).hexdigest()
        self.words: tuple[str, ...] = (*MARKS, *ngrams.lexicon)
        self.known = make_knowledge(units, ngrams, lm_weight=config.lm_weight, said=config.said)
        ways, numbers = spell_parts(units, hotwords), {}
        if hotwords and not units.spells:
            # new is what isn't in the first tree
            known = zip(ways, units.spell([*ways]), strict=True)
            new = {word for word, row in known if not row} | (ways.keys() - set(self.words))
            numbers = {word: number for number, word in enumerate((*self.words, *sorted(new)))}
            self._add_words({word: ways[word] for word in sorted(new)})
        self.phrases = make_phrases(
            hotwords,
            units,
            ngrams,
            ways,
            numbers,
            lm_weight=config.lm_weight,
            new_word=config.new_word,
            bonus=config.hot,
            letter_bonus=config.hot_letter,
        )
        self.weights = Weights(
            lm=np.float32(config.lm_weight),
            word=np.float32(config.word_bonus),
            spelled=np.float32(config.spelled),
            letter=np.float32(config.letter),
            new_word=np.float32(config.new_word),
            blank=np.float32(config.blank),
            join=np.float32(config.join if units.spells else 0.0),
            split=np.float32(config.split),
            beam=np.float32(config.beam),
            least=np.float32(config.least),
            word_break=np.int32(units.word_break),
            unknown=np.int32(UNKNOWN),
            spells=np.int32(units.spells),
            pause=np.int32(config.pause_frames),
            longest_wait=np.int32(config.longest_wait),
        )

    def _add_words(self, ways: Mapping[str, Sequence[Spelling]]) -> None:
        """Have these words, too."""
        if ways:
            self.words += tuple(ways)
            self.known = add_words(
                self.known,
                self.units,
                ways,
                lm_weight=self.config.lm_weight,
                new_word=self.config.new_word,
                said=self.config.said,
            )

    @property
    def symbols(self) -> tuple[str, ...]:
        """The names of its labels."""
        return self.units.symbols

    def with_hotwords(self, hotwords: Sequence[HotWord]) -> Self:
        """Return a decoder like this one that has these hot words instead."""
        return type(self)(self.units, self.ngrams, self.config, hotwords, self.calibration)

    def adopt(self, state: BeamState) -> BeamState:
        """Return a state of other hot words' decoder as one to go on from.

        A phrase may begin with the word in progress, but not before it.
        """
        state = state.duplicate()
        match_words(self.known, self.phrases, self.weights, state.beam, state.history)
        return state

    def init_state(self, late_frames: int) -> BeamState:
        """Return the state before the first frame of a network whose output is late."""
        return self._begin(-late_frames, 0, BLANK, np.array([self.config.sure_at_first]))

    def _begin(
        self, frame: int, emit_from: int, previous: int, company: NDArray[np.floating]
    ) -> BeamState:
        """Return the state of a sentence's start; ``previous`` is the label that may go on."""
        width, capacity = self.config.width, self.config.history
        state = BeamState(
            frame=np.array([frame], np.int32),
            emit_from=np.array([emit_from], np.int32),
            beam_size=np.ones(1, np.int32),
            beam_ints=np.zeros((width, BEAM_COLUMNS), np.int32),
            beam_floats=np.full((width, 2), DEAD, np.float32),
            history_size=np.zeros(1, np.int32),
            history_entries=np.zeros((capacity, HISTORY_COLUMNS), np.int32),
            history_scores=np.zeros((capacity, HISTORY_SCORES), np.float32),
            company=company.astype(np.float32),
        )
        first = state.beam_ints[0]
        first[CONTEXT : CONTEXT + 3] = SENTENCE_START, NOTHING, NOTHING
        first[PHRASE], first[LAST], first[TAIL] = ROOT, previous, NOTHING
        state.beam_floats[0, IN_BLANK if previous == BLANK else IN_LABEL] = 0.0
        return state

    def decode(
        self, log_probs: Tensor, state: BeamState
    ) -> tuple[list[DecodedToken | DecodedWord], BeamState]:
        """Advance by some frames, (label frames, symbols); tell what became final by them."""
        first = self.units.first_column
        heard = log_probs[:, first : first + len(self.units.symbols)]
        rows = np.ascontiguousarray(heard.to("cpu").numpy(), np.float32)
        frame, emit_from = int(state.frame[0]), int(state.emit_from[0])
        end = frame + len(rows)
        skipped = min(max(emit_from - frame, 0), len(rows))
        if skipped:
            previous = int(rows[skipped - 1].argmax()) if frame + skipped > 0 else BLANK
            state = self._begin(frame + skipped, emit_from, previous, state.company)
            rows = rows[skipped:]
        state = state.duplicate()
        told = self._prepare(len(rows))
        begin = end - len(rows)
        search(self.known, self.phrases, self.weights, rows, begin, state.beam, state.history, told)
        state.frame[0] = end
        return self._tell(told, state), state

    def close(self, state: BeamState) -> tuple[list[DecodedToken | DecodedWord], BeamState]:
        """Tell the rest; what follows begins a sentence: that is right more often."""
        state, told = state.duplicate(), self._prepare(0)
        close_words(self.known, self.phrases, self.weights, state.beam, state.history, told)
        state.beam_ints[0, CONTEXT : CONTEXT + 3] = SENTENCE_START, NOTHING, NOTHING
        return self._tell(told, state), state

    def readings(self, state: BeamState, number: int) -> list[Reading]:
        """Return the best ways to read what is not final yet, the best first."""
        if number == 0:
            return []
        shape = int(state.beam_size[0]), int(self.known.most_words)
        ranks, words = np.empty(shape, np.float64), np.empty(shape, np.int32)
        rank_endings(self.known, self.phrases, self.weights, state.beam, ranks, words)
        best: dict[str, float] = {}
        # the first one is what ``close`` tells
        for at in np.argsort(-ranks, axis=None, kind="stable").tolist():
            if ranks.flat[at] == -math.inf:
                break
            row = at // shape[1]
            text = self._write(state, int(state.beam_ints[row, TAIL]), int(words.flat[at]))
            best.setdefault(text.strip(), float(ranks.flat[at]))
        total = float(np.logaddexp.reduce(list(best.values())))
        return [Reading(text, rank - total) for text, rank in best.items()][:number]

    def finish(self, state: BeamState) -> list[DecodedToken | DecodedWord]:
        """Tell the rest."""
        return self.close(state)[0]

    def skip_to(self, frame: int, state: BeamState) -> BeamState:
        """Leave out all labels before ``frame``: a flush has told them, and begins a sentence."""
        if frame <= int(state.emit_from[0]):
            return state
        return self._begin(int(state.frame[0]), frame, BLANK, state.company)

    def partial(self, state: BeamState) -> str:
        """Return what is not final yet of the best hypothesis; of phones the likeliest word.

        Words that would not be told are left out, and one in progress in such company.
        """
        row, word = best_row(state.beam), NOTHING
        if not self.units.spells and state.beam_ints[row, LENGTH]:
            word = likeliest_word(self.known, int(state.beam_ints[row, NODE]))
        return self._write(state, int(state.beam_ints[row, TAIL]), word, careful=True)

    def _write(self, state: BeamState, at: int, word: int, careful: bool = False) -> str:
        """Return the text of an entry of the history, those before it, and a word after it."""
        path: list[int] = []
        while at != NOTHING:
            path.append(at)
            at = int(state.history_entries[at, BEFORE])
        path.reverse()
        entries, scores = state.history_entries[path].tolist(), state.history_scores[path]
        texts, begin, company = [], 0, state.company[0]
        careful = careful and self.calibration is not None
        for end, entry in enumerate(entries):
            if entry[LABEL] == self.units.word_break:
                is_told, num = True, sum(row[FRAME] != NO_FRAME for row in entries[begin:end])
                if careful and num:
                    confidence = self._weigh(scores[begin : end + 1], num)
                    is_told, company = self._judge(confidence, company)
                if is_told:
                    texts.append(self._name(entries[begin:end], entry[WORD]))
                begin = end + 1
        if not careful or company >= self.config.sure_company:
            texts.append(self._name(entries[begin:], word))
        return " ".join(text for text in texts if text)

    def _name(self, entries: Sequence[Sequence[int]], word: int) -> str:
        """Return a word by its labels, or by its number, or by its letters if none has it."""
        vocabulary, word_break = self.units.vocabulary, self.units.word_break
        if self.units.spells:
            return vocabulary.decode(entry[LABEL] for entry in entries)
        if word != NOTHING:
            return self.words[word]
        letters = [entry[LABEL] - word_break - 1 for entry in entries if entry[FRAME] == NO_FRAME]
        return vocabulary.decode(letters)

    def _prepare(self, num_frames: int) -> Told:
        # a label takes a frame, and perhaps a break that was not heard stands before it
        capacity = 2 * (self.config.history + num_frames)
        return Told(
            np.zeros(1, np.int32),
            np.zeros((capacity, HISTORY_COLUMNS), np.int32),
            np.zeros((capacity, HISTORY_SCORES), np.float32),
        )

    def _tell(self, told: Told, state: BeamState) -> list[DecodedToken | DecodedWord]:
        found: list[DecodedToken | DecodedWord] = []
        begin, num = 0, int(told.size[0])
        entries, scores = told.entries[:num].tolist(), told.scores[:num]
        for at, entry in enumerate(entries):
            if entry[FRAME] != NO_FRAME:
                confidence = math.exp(scores[at, SCORE])
                found.append(DecodedToken(entry[LABEL], entry[FRAME], confidence))
            if entry[LABEL] != self.units.word_break:
                continue
            frames = [row[FRAME] for row in entries[begin:at] if row[FRAME] != NO_FRAME]
            if frames:
                confidence = self._weigh(scores[begin : at + 1], len(frames))
                before = state.company[0]
                is_told, state.company[0] = self._judge(confidence, before)
                if is_told:
                    if self.calibration is not None:
                        confidence = self.calibration.tell(confidence, float(before))
                    word = self._name(entries[begin:at], entry[WORD])
                    found.append(DecodedWord(word, frames[0], frames[-1] + 1, confidence))
            begin = at + 1
        return found

    def _weigh(self, scores: NDArray[np.float32], num_heard: int) -> float:
        """Return how sure a word is, from the scores of its labels and of the break after it."""
        evidence = np.concatenate([scores[:num_heard], scores[-1:]])
        if self.calibration is not None:
            return self.calibration.judge(weigh_word(evidence))
        return math.exp(evidence[:-1, SCORE].mean(dtype=np.float64))

    def _judge(self, confidence: float, company: np.float32) -> tuple[bool, np.float32]:
        """Say whether a word is told, after words of such a mean, and what mean there is then."""
        config = self.config
        if self.calibration is None:
            return True, company
        before = float(company)
        company = np.float32(before + config.newest_share * (confidence - before))
        is_alone = confidence < config.sure_alone and company < config.sure_company
        return confidence >= config.least_sure and not is_alone, company
