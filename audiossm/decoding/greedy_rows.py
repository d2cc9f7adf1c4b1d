"""Greedy decoding and endpoints of many streams at once: the two state machines, an array each."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from audiossm.decoding.endpoints import NEVER, PATIENCE, EndpointRules, Marks, SegmentState
from audiossm.decoding.greedy import BLANK_ID, GreedyDecoder, GreedyState
from audiossm.decoding.words import DecodedWord, Rule
from audiossm.text import Vocabulary

__all__ = [
    "RULES",
    "FoundEndpoints",
    "FoundTokens",
    "FoundWords",
    "GreedyRows",
    "RowsFound",
    "join_found",
    "list_words",
]

RULES: tuple[Rule, ...] = ("silence", "pause", "length", "end")
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
F = TypeVar("F", "FoundTokens", "FoundWords", "FoundEndpoints")
MARKS = tuple(Marks.__dataclass_fields__)


class FoundTokens(NamedTuple):
    """New pieces, one an entry."""

    rows: Ints
    ids: Ints
    frames: Ints  # label frames
    scores: NDArray[np.float32]  # log-probabilities


class FoundWords(NamedTuple):
    """Whole words, one an entry."""

    rows: Ints
    pieces: NDArray[np.int32]  # (words, longest)
    lengths: Ints
    starts: Ints  # label frames
    lasts: Ints
    scores: NDArray[np.float64]  # sums of log-probabilities


class FoundEndpoints(NamedTuple):
    """Ends of segments, one an entry."""

    rows: Ints
    rules: Ints  # indices into ``RULES``
    frames: Ints  # the label frame after
    starts: Ints  # of the segment's words, label frames; -1 without any
    ends: Ints


class RowsFound(NamedTuple):
    """What some label frames brought; within a kind, entries are in order of time."""

    tokens: FoundTokens
    words: FoundWords
    endpoints: FoundEndpoints


class GreedyRows:
    """``Segmenter`` over ``GreedyDecoder`` for ``num_rows`` streams, without readings.

    Args:
        decoder: what says how words are made.
        rules: when a segment ends; None is never, but at the end.
        frame_s: seconds in a label frame.
        num_rows: streams.
    """

    def __init__(
        self, decoder: GreedyDecoder, rules: EndpointRules | None, frame_s: float, num_rows: int
    ) -> None:
        never = EndpointRules(silence_s=math.inf, pause_s=math.inf, longest_s=math.inf)
        limits = rules or never
        self.decoder, self.word_break = decoder, decoder.vocabulary.word_break
        self.silence = limits.silence_s / frame_s
        self.pause = limits.pause_s / frame_s
        self.longest = limits.longest_s / frame_s
        self.shortest = min(self.pause, 0.5 / frame_s)
        fresh = decoder.init_state(0)
        # a field of GreedyState, or of Marks, of every row
        self.greedy = {
            name: np.zeros((num_rows, *part.shape), part.dtype)
            for name, part in fresh._asdict().items()
        }
        self.marks = {name: np.zeros(num_rows, np.int64) for name in MARKS}

    def write(self, row: int, state: SegmentState) -> None:
        """Let a row go on from a decoder's state."""
        for name, part in state.decoder._asdict().items():
            self.greedy[name][row] = part
        for name, mark in zip(MARKS, state.marks.tolist(), strict=True):
            self.marks[name][row] = mark

    def read(self, row: int) -> SegmentState:
        """Return a row's state, as a decoder takes it."""
        greedy = GreedyState(
            **{name: np.array(parts[row], parts.dtype) for name, parts in self.greedy.items()}
        )
        marks = [self.marks[name][row] for name in MARKS]
        return SegmentState(greedy, np.array(marks, np.int64))

    def step(
        self,
        rows: Ints,
        labels: NDArray[np.int32],
        scores: NDArray[np.float32],
        fresh: Bools,
        ended: Bools | None = None,
    ) -> RowsFound:
        """Advance some rows by the best labels of some frames.

        Args:
            rows: (rows,), none twice.
            labels: (rows, frames), the likeliest label of each frame.
            scores: (rows, frames), its log-probability.
            fresh: (rows, frames), where a label is no blank and no repeat.
            ended: (rows,), of which rows the frames are those of ``Segmenter.finish``.
        """
        going = np.ones(len(rows), bool) if ended is None else ~ended
        tokens: list[FoundTokens] = []
        words: list[FoundWords] = []
        endpoints: list[FoundEndpoints] = []
        for at in range(labels.shape[1]):
            label, score = labels[:, at].astype(np.int64), scores[:, at]
            self._decode(rows, label, score, fresh[:, at], tokens, words)
            self._hear(rows[going], label[going], words, endpoints)
        return RowsFound(
            _join(FoundTokens, tokens), _join(FoundWords, words), _join(FoundEndpoints, endpoints)
        )

    def finish(self, row: int) -> RowsFound:
        """Tell the word in progress, and the end of the segment if it has words."""
        words: list[FoundWords] = []
        self._close(np.array([row]), words)
        marks = self.marks
        if marks["last_word"][row] == NEVER:
            return RowsFound(
                _join(FoundTokens, []), _join(FoundWords, words), _join(FoundEndpoints, [])
            )
        end = FoundEndpoints(
            np.array([row]),
            np.array([RULES.index("end")]),
            marks["frame"][[row]],
            marks["first_word"][[row]],
            marks["last_word"][[row]],
        )
        return RowsFound(
            _join(FoundTokens, []), _join(FoundWords, words), _join(FoundEndpoints, [end])
        )

    def _decode(
        self,
        rows: Ints,
        label: Ints,
        score: NDArray[np.float32],
        fresh: Bools,
        tokens: list[FoundTokens],
        words: list[FoundWords],
    ) -> None:
        """Do what ``GreedyDecoder.step`` does with one frame of each row."""
        greedy = self.greedy
        frame = greedy["frame"][rows]
        counts = frame >= greedy["emit_from"][rows]
        is_token = fresh & counts
        if is_token.any():
            tokens.append(
                FoundTokens(rows[is_token], label[is_token], frame[is_token], score[is_token])
            )
        is_letter = is_token & (label != self.word_break)
        length = greedy["length"][rows]
        late = frame - greedy["last"][rows] >= self.decoder.pause_frames
        full = is_letter & (length == self.decoder.max_pieces)
        closes = (length > 0) & ((is_token & ~is_letter) | (counts & ~is_token & late) | full)
        if closes.any():
            self._close(rows[closes], words)
        if is_letter.any():
            spelling, at = rows[is_letter], frame[is_letter]
            length = greedy["length"][spelling]
            first = length == 0
            greedy["start"][spelling[first]] = at[first]
            greedy["word"][spelling, length] = label[is_letter]
            greedy["length"][spelling] = length + 1
            greedy["last"][spelling] = at
            greedy["score"][spelling] += score[is_letter]
        heard = frame >= 0
        greedy["previous"][rows[heard]] = label[heard]
        greedy["frame"][rows] = frame + 1

    def _close(self, rows: Ints, words: list[FoundWords]) -> None:
        """End the words in progress of some rows, where there are any."""
        greedy = self.greedy
        rows = rows[greedy["length"][rows] > 0]
        if not len(rows):
            return
        found = FoundWords(
            rows, *(greedy[name][rows] for name in ("word", "length", "start", "last", "score"))
        )
        words.append(found)
        greedy["length"][rows], greedy["score"][rows], greedy["word"][rows] = 0, 0.0, 0
        marks = self.marks
        marks["last_word"][rows] = found.lasts + 1
        first = rows[marks["first_word"][rows] == NEVER]
        marks["first_word"][first] = greedy["start"][first]

    def _hear(
        self, rows: Ints, label: Ints, words: list[FoundWords], endpoints: list[FoundEndpoints]
    ) -> None:
        """Do what ``Segmenter`` does with one frame of each row."""
        marks = self.marks
        frame = marks["frame"][rows]
        marks["frame"][rows] = frame + 1
        counts = frame >= marks["emit_from"][rows]
        spoken = counts & (label != BLANK_ID) & (label != self.word_break)
        at, now = rows[spoken], frame[spoken]
        marks["first"][at] = np.where(marks["first"][at] == NEVER, now, marks["first"][at])
        marks["since"][at], marks["is_broken"][at], marks["is_told"][at] = now + 1, 0, 0
        rest = counts & ~spoken
        marks["is_broken"][rows[rest & (label == self.word_break)]] = 1
        silence = frame + 1 - marks["since"][rows]
        empty = marks["first"][rows] == NEVER
        told = marks["is_told"][rows] != 0
        over = frame - marks["first"][rows] - self.longest
        patience = 1.0 - over / (PATIENCE * self.longest) if self.longest < math.inf else 1.0
        enough = silence >= self.shortest * np.maximum(0.0, patience)
        is_silence = rest & empty & ~told & (silence >= self.silence)
        is_pause = rest & ~empty & (silence >= self.pause)
        is_length = rest & ~empty & ~is_pause & (over >= 0) & enough
        is_length &= marks["is_broken"][rows] != 0
        ends = is_silence | is_pause | is_length
        if not ends.any():
            return
        ended = rows[ends]
        self._close(ended, words)
        rule = np.select([is_silence[ends], is_pause[ends]], [0, 1], 2)
        is_told = (marks["last_word"][ended] != NEVER) | (rule == 0)
        at = ended[is_told]
        endpoints.append(
            FoundEndpoints(
                at,
                rule[is_told],
                marks["frame"][at],
                marks["first_word"][at],
                marks["last_word"][at],
            )
        )
        marks["is_told"][at] = 1
        for name in ("first", "first_word", "last_word"):
            marks[name][ended] = NEVER


def list_words(vocabulary: Vocabulary, words: FoundWords) -> Iterator[tuple[int, DecodedWord]]:
    """Spell words out, with their rows."""
    if not len(words.rows):
        return
    texts = spell(vocabulary, words.pieces, words.lengths)
    columns = (words.rows, words.starts, words.lasts + 1, words.scores / words.lengths)
    for text, row, start, end, mean in zip(texts, *(c.tolist() for c in columns), strict=True):
        yield row, DecodedWord(text, start, end, math.exp(mean))


def spell(vocabulary: Vocabulary, pieces: NDArray[np.int32], lengths: Ints) -> list[str]:
    """Join the first ``lengths`` pieces of each row (words, longest): many at once if letters."""
    if any(len(piece) > 1 for piece in vocabulary.pieces[1:]):
        return [
            vocabulary.decode(row[:length])
            for row, length in zip(pieces.tolist(), lengths.tolist(), strict=True)
        ]
    letters = np.array([0, *map(ord, vocabulary.pieces[1:])], np.uint32)
    # the blank is no part of a word, and zeros at its end are none of a text
    texts: list[str] = letters[pieces].view(f"<U{pieces.shape[1]}")[:, 0].tolist()
    return texts


def join_found(parts: Sequence[RowsFound]) -> RowsFound:
    """Put what several rows found one after the other."""
    tokens, words, endpoints = zip(*parts, strict=True)
    return RowsFound(
        _join(FoundTokens, [part for part in tokens if len(part.rows)]),
        _join(FoundWords, [part for part in words if len(part.rows)]),
        _join(FoundEndpoints, [part for part in endpoints if len(part.rows)]),
    )


def _join(kind: type[F], parts: list[F]) -> F:
    """Put entries one after the other; of none, an empty table."""
    if len(parts) == 1:
        return parts[0]
    columns = zip(*parts, strict=True) if parts else ([np.zeros(0, np.int64)],) * len(kind._fields)
    return kind._make(map(np.concatenate, columns))
