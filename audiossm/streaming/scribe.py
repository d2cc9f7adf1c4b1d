"""Words on their way to written text: the state is a value, and what is written stays."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from audiossm.errors import SnapshotError
from audiossm.marks import MARKS, STOP, MarkedWord, spell
from audiossm.models import BORDER, LoadedWriter, WriterState, choose_forms
from audiossm.numbers import Piece, write_number
from audiossm.streaming.events import Word, WrittenWord

__all__ = ["Scribe", "ScribeState", "pack_words", "unpack_words"]


PAUSE_S = 0.8  # so long a silence between two words is a place where speech was cut


class ScribeState(NamedTuple):
    """A text that is being written."""

    network: WriterState
    waiting: tuple[Word, ...]  # how they are written is not known yet: ``lookahead`` at most
    marked: tuple[tuple[Word, MarkedWord], ...]  # it is, but a number may go on
    before: MarkedWord | None  # the last one written


class Scribe:
    """Writes words with a writer, each once it has seen ``lookahead`` words more, or a border.

    A border is a flush, or a pause before the next word. The written words are a function of the
    words, their times and the places of flushes alone.
    """

    def __init__(self, writer: LoadedWriter) -> None:
        self.writer = writer

    def init_state(self) -> ScribeState:
        """Return the state before the first word."""
        return ScribeState(self.writer.init_state(), (), (), None)

    def write(self, word: Word, state: ScribeState) -> tuple[list[WrittenWord], ScribeState]:
        """Take the next word and tell what can be written now; ``state`` stays as it was."""
        written: list[WrittenWord] = []
        if state.waiting and word.start_s - state.waiting[-1].end_s >= PAUSE_S:
            written, state = self.flush(state)
        logits, network = self.writer.step(word.word, state.network)
        state = state._replace(network=network, waiting=(*state.waiting, word))
        if len(state.waiting) > self.writer.lookahead:
            state = _mark(state, logits)
        more, state = _write(state, ended=False)
        return written + more, state

    def flush(self, state: ScribeState) -> tuple[list[WrittenWord], ScribeState]:
        """Write all words now. The next one may begin a sentence or go on with this one."""
        if not state.waiting and not state.marked:
            return [], state
        behind = self.writer.lookahead - len(state.waiting)
        for turn in range(self.writer.lookahead):
            logits, network = self.writer.step(BORDER, state.network)
            state = state._replace(network=network)
            if turn >= behind:
                state = _mark(state, logits)
        return _write(state, ended=True)


def _mark(state: ScribeState, logits: Any) -> ScribeState:
    """Choose how the word that waited longest is written."""
    last = state.marked[-1][1] if state.marked else state.before
    forms = choose_forms(logits, STOP if last is None else last.mark)
    word = state.waiting[0]
    marked = MarkedWord(word.word, int(forms.cases), int(forms.marks))
    return state._replace(waiting=state.waiting[1:], marked=(*state.marked, (word, marked)))


def _write(state: ScribeState, ended: bool) -> tuple[list[WrittenWord], ScribeState]:
    """Write what no later word can change."""
    written: list[WrittenWord] = []
    while state.marked:
        marked = [item for _, item in state.marked]
        pieces = write_number(marked, state.before, ended)
        if pieces is None:
            break
        first = marked[0]
        for piece in pieces or [Piece(spell(first.word, first.case) + MARKS[first.mark], 1)]:
            written.append(_join(piece.text, [word for word, _ in state.marked[: piece.num_words]]))
            before = state.marked[piece.num_words - 1][1]
            state = state._replace(marked=state.marked[piece.num_words :], before=before)
    return written, state


def _join(text: str, words: Sequence[Word]) -> WrittenWord:
    plain = " ".join(word.word for word in words)
    confidence = words[0].confidence
    if len(words) > 1:
        # log() knows no 0, which a probability can round to
        logs = [math.log(max(word.confidence, 1e-30)) for word in words]
        confidence = math.exp(sum(logs) / len(logs))
    return WrittenWord(text, plain, words[0].start_s, words[-1].end_s, confidence)


def pack_words(state: ScribeState) -> list[Any]:
    """Return a state's words, without the network's tensors, as what JSON can hold."""
    return [
        [_fields(word) for word in state.waiting],
        [[_fields(word), list(marked)] for word, marked in state.marked],
        None if state.before is None else list(state.before),
    ]


def unpack_words(packed: Any, network: WriterState) -> ScribeState:
    """Return the state that ``pack_words`` took apart.

    Raises:
        SnapshotError: it isn't one.
    """
    try:
        waiting, marked, before = packed
        return ScribeState(
            network,
            tuple(Word(*fields) for fields in waiting),
            tuple((Word(*fields), MarkedWord(*item)) for fields, item in marked),
            None if before is None else MarkedWord(*before),
        )
    except (TypeError, ValueError) as exc:
        raise SnapshotError(f"the snapshot's words are damaged ({exc})") from exc


def _fields(word: Word) -> list[Any]:
    return [word.word, word.start_s, word.end_s, word.confidence]
