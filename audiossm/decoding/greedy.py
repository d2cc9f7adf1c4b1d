"""Greedy CTC decoding, a label frame at a time."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from audiossm.decoding.words import DecodedToken, DecodedWord, Reading, make_word
from audiossm.errors import ConfigError
from audiossm.hotwords import HotWord
from audiossm.text import Vocabulary

__all__ = ["GreedyDecoder", "GreedyState", "best_labels"]

BLANK_ID = 0


class GreedyState(NamedTuple):
    """What the decoder remembers; arrays of fixed size, so that it can be stored.

    ``emit_from`` is the first frame whose tokens count: frames before it are the look-ahead's
    warm-up, or were already given out by a flush.
    """

    previous: NDArray[np.int32]  # (): label of the newest frame
    frame: NDArray[np.int64]  # (): frames seen, from minus the look-ahead
    emit_from: NDArray[np.int64]  # ()
    word: NDArray[np.int32]  # (max_pieces,): pieces of the word in progress
    length: NDArray[np.int64]  # (): how many of them are set
    start: NDArray[np.int64]  # (): frame of the word's first token
    last: NDArray[np.int64]  # (): frame of its newest token
    score: NDArray[np.float64]  # (): sum of the tokens' log-probabilities


def best_labels(log_probs: Tensor) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Reduce (label frames, pieces) to each frame's best label and its log-probability."""
    scores, labels = log_probs.max(dim=-1)
    return (
        labels.to("cpu").numpy().astype(np.int32),
        scores.to("cpu").numpy().astype(np.float32),
    )


class GreedyDecoder:
    """Best label of each frame, repeats and blanks removed (Graves et al., 2006).

    A word ends at a word break, after ``pause_frames`` frames without a token, or when it has
    ``max_pieces`` pieces.

    Args:
        vocabulary: the model's pieces.
        pause_frames: label frames of silence that end a word.
        max_pieces: longest word.
    """

    hash = ""  # nothing but the vocabulary counts

    def __init__(
        self, vocabulary: Vocabulary, pause_frames: int = 30, max_pieces: int = 64
    ) -> None:
        self.vocabulary = vocabulary
        self.pause_frames = pause_frames
        self.max_pieces = max_pieces

    @property
    def symbols(self) -> tuple[str, ...]:
        """The pieces."""
        return self.vocabulary.pieces

    def with_hotwords(self, hotwords: Sequence[HotWord]) -> Self:
        """Return itself: it has no hot words.

        Raises:
            ConfigError: there are some.
        """
        if hotwords:
            raise ConfigError(
                "greedy decoding takes each frame's best label and can't weigh hot words: decode "
                "with 'beam' (a model that spells in letters has it)"
            )
        return self

    def adopt(self, state: GreedyState) -> GreedyState:
        """Return the state as it is."""
        return state

    def init_state(self, late_frames: int) -> GreedyState:
        """Return the state before the first frame of a network whose output is late."""
        return GreedyState(
            previous=np.array(BLANK_ID, np.int32),
            frame=np.array(-late_frames, np.int64),
            emit_from=np.array(0, np.int64),
            word=np.zeros(self.max_pieces, np.int32),
            length=np.array(0, np.int64),
            start=np.array(0, np.int64),
            last=np.array(0, np.int64),
            score=np.array(0.0, np.float64),
        )

    def decode(
        self, log_probs: Tensor, state: GreedyState
    ) -> tuple[list[DecodedToken | DecodedWord], GreedyState]:
        """Advance by some frames, (label frames, symbols), of which the first are pieces."""
        return self.step(*best_labels(log_probs[:, : len(self.vocabulary)]), state)

    def step(
        self, labels: NDArray[np.int32], scores: NDArray[np.float32], state: GreedyState
    ) -> tuple[list[DecodedToken | DecodedWord], GreedyState]:
        """Advance by the best labels of some frames; tokens and words come in order of time."""
        found: list[DecodedToken | DecodedWord] = []
        draft = WordDraft(self, state)
        previous, frame = int(state.previous), int(state.frame)
        emit_from = int(state.emit_from)
        for label, score in zip(labels.tolist(), scores.tolist(), strict=True):
            if frame >= emit_from:
                if label != BLANK_ID and label != previous:
                    found.append(DecodedToken(label, frame, math.exp(score)))
                    if label == self.vocabulary.word_break:
                        found.extend(draft.close())
                    else:
                        found.extend(draft.add(label, frame, score))
                elif draft.pieces and frame - draft.last >= self.pause_frames:
                    found.extend(draft.close())
            if frame >= 0:
                previous = label
            frame += 1
        new_state = state._replace(
            previous=np.array(previous, np.int32), frame=np.array(frame, np.int64)
        )
        return found, draft.store(new_state)

    def close(self, state: GreedyState) -> tuple[list[DecodedToken | DecodedWord], GreedyState]:
        """Close the word in progress and go on."""
        draft = WordDraft(self, state)
        found: list[DecodedToken | DecodedWord] = [*draft.close()]
        return found, draft.store(state)

    def readings(self, state: GreedyState, number: int) -> list[Reading]:
        """Return the one reading that there is."""
        return [Reading(self.partial(state), 0.0)][:number]

    def finish(self, state: GreedyState) -> list[DecodedToken | DecodedWord]:
        """Close the word in progress."""
        return list(WordDraft(self, state).close())

    def skip_to(self, frame: int, state: GreedyState) -> GreedyState:
        """Leave out all tokens before ``frame``: a flush has given them out already."""
        draft = WordDraft(self, state)
        draft.close()
        return draft.store(state._replace(emit_from=np.array(frame, np.int64)))

    def partial(self, state: GreedyState) -> str:
        """Return the word in progress."""
        return self.vocabulary.decode(state.word[: int(state.length)].tolist())


class WordDraft:
    """The word in progress while a step runs."""

    def __init__(self, decoder: GreedyDecoder, state: GreedyState) -> None:
        self.decoder = decoder
        self.pieces: list[int] = state.word[: int(state.length)].tolist()
        self.start, self.last = int(state.start), int(state.last)
        self.score = float(state.score)

    def add(self, label: int, frame: int, score: float) -> list[DecodedWord]:
        """Add a piece; a word that is full is closed first."""
        closed = self.close() if len(self.pieces) == self.decoder.max_pieces else []
        if not self.pieces:
            self.start = frame
        self.pieces.append(label)
        self.last = frame
        self.score += score
        return closed

    def close(self) -> list[DecodedWord]:
        """Return the word, if there is one, and begin another."""
        if not self.pieces:
            return []
        vocabulary = self.decoder.vocabulary
        word = make_word(vocabulary, self.pieces, self.start, self.last, self.score)
        self.pieces, self.score = [], 0.0
        return [word]

    def store(self, state: GreedyState) -> GreedyState:
        """Write the draft into a state."""
        word = np.zeros(self.decoder.max_pieces, np.int32)
        word[: len(self.pieces)] = self.pieces
        return state._replace(
            word=word,
            length=np.array(len(self.pieces), np.int64),
            start=np.array(self.start, np.int64),
            last=np.array(self.last, np.int64),
            score=np.array(self.score, np.float64),
        )
