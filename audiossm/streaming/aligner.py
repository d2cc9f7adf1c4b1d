"""A known text laid over its recording: when each word, and each phone of it, was said."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiossm.audio import open_audio
from audiossm.decoding import align_labels
from audiossm.errors import AlignmentError
from audiossm.lexicon import Lexicon, drop_stress
from audiossm.models import LoadedRecogniser, shipped_sounder
from audiossm.pronouncer import MAX_LETTERS, Pronouncer
from audiossm.streaming.files import transcribe_stream
from audiossm.streaming.listener import Listener
from audiossm.text import normalise_text

__all__ = [
    "AlignedPhone",
    "AlignedWord",
    "Alignment",
    "align_recording",
    "align_samples",
    "find_spikes",
    "split_text",
]

# words closer than this have no pause between them: the edge is in the middle
MAX_GAP_FRAMES = 6
# on 110 utterances of four sets, with a model that gets 64 % of LibriSpeech's words wrong: 1 of the
# right texts lies above (median 0.7), 2 of as many wrong ones lie below (median 5.6)
MAX_MISFIT = 3.0
# a phone is no shorter, if its word has room for all
MIN_PHONE_FRAMES = 0.5
# what a frame costs in which a word that can't be spelled goes on through blanks
UNKNOWN_COST = 0.05

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class AlignedPhone:
    """A phone (IPA, as espeak-ng writes it) and when it was said."""

    phone: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True)
class AlignedWord:
    """A word as it is written in the text, and when it was said.

    ``confidence`` is the geometric mean of its labels' probabilities; a word that can't be spelled,
    such as a number in digits, has none: it is what lies between its neighbours. ``phones`` is None
    without a phone head, and for words of sounds that it doesn't know.
    """

    word: str
    start_s: float
    end_s: float
    confidence: float | None
    phones: tuple[AlignedPhone, ...] | None


@dataclass(frozen=True)
class Alignment:
    """The words of a text over a recording.

    ``misfit`` is by how much a letter of the text is less probable, in nats, than what the model
    would have written by itself: 0 if it is that.
    """

    text: str
    duration_s: float
    model: str
    words: tuple[AlignedWord, ...]
    has_phones: bool
    misfit: float
    is_calibrated: bool

    @property
    def fits(self) -> bool:
        """Whether the text may be what is said."""
        return self.misfit <= MAX_MISFIT


@dataclass(frozen=True)
class WrittenWord:
    """A word as it is written and as plain words, none if it can't be spelled in letters."""

    written: str
    plain: tuple[str, ...]


@dataclass(frozen=True)
class Span:
    """A label or word over label frames; fractions, once offsets are applied."""

    start: float
    end: float
    confidence: float

    def move(self, start: tuple[float, ...], end: tuple[float, ...], choice: int) -> "Span":
        """Apply the offsets of the chosen look-ahead, if they were measured."""
        if not start:
            return self
        return Span(self.start + start[choice], self.end + end[choice], self.confidence)


class Spikes(NamedTuple):
    """What the network put out of a text, a row for each word."""

    letters: list[list[Span]]  # a word that can't be spelled has one
    names: list[tuple[str, ...]]  # of phones; none where they aren't known
    phones: list[list[Span]]
    misfit: float


def align_recording(
    transcriber: LoadedRecogniser,
    source: str | Path | BinaryIO,
    text: str,
    *,
    lookahead_ms: int = 320,
    phones: bool = True,
) -> Alignment:
    """Align a recording, its channels mixed, with ``text``.

    Args:
        transcriber: the model.
        source: a path, ``"-"`` for standard input, or an open binary file.
        text: all that is said in it, as people write.
        lookahead_ms: one of the model's.
        phones: with False, words are timed by their letters alone, as by a model without phones.

    Raises:
        AlignmentError: no words in the text, the audio too short for it, or both too long.
        AudioError: the recording can't be read (to its end).
    """
    written = split_text(text)  # before the work
    listener: Listener | None = None
    with open_audio(source) as reader:

        def make_session() -> Listener:
            nonlocal listener
            listener = Listener(transcriber, reader.sample_rate, lookahead_ms)
            return listener

        for _ in transcribe_stream(reader, make_session):
            pass
    assert listener is not None
    return _align(listener, written, text, phones)


def align_samples(
    transcriber: LoadedRecogniser,
    samples: Floats,
    text: str,
    *,
    sample_rate: int,
    lookahead_ms: int = 320,
    phones: bool = True,
) -> Alignment:
    """Align samples (samples,) float32 in [-1, 1] with ``text``; see ``align_recording``."""
    written = split_text(text)
    listener = Listener(transcriber, sample_rate, lookahead_ms)
    listener.push(samples)
    listener.finish()
    return _align(listener, written, text, phones)


def split_text(text: str) -> list[WrittenWord]:
    """Split a text at its spaces; what has neither letters nor digits is left out.

    Raises:
        AlignmentError: no word of it can be spelled in a-z.
    """
    words = []
    for written in text.split():
        # "3rd" is said as none of its letters
        plain = () if re.search(r"\d", written) else tuple(normalise_text(written).split())
        if plain or any(char.isalnum() for char in written):
            words.append(WrittenWord(written, plain))
    if not any(word.plain for word in words):
        what = "has no words in letters a-z" if words else "is empty"
        raise AlignmentError(f"the text {what}: there is nothing to align")
    return words


def find_spikes(
    listener: Listener, words: Sequence[WrittenWord], with_phones: bool = True
) -> Spikes:
    """Align letters and phones with what a finished ``listener`` heard, no offsets applied.

    Raises:
        AlignmentError: the audio is too short for the text, or both are too long.
    """
    transcriber, heard = listener.transcriber, listener.heard()
    duration_s = listener.samples_received / listener.sample_rate
    needed_s = sum(len("".join(word.plain)) for word in words) * transcriber.label_frame_s
    if duration_s < needed_s:
        raise AlignmentError(
            f"the audio is too short for its text: {duration_s:.2f} s, but the letters alone need "
            f"{needed_s:.2f} s"
        )
    vocabulary = transcriber.vocabulary
    symbols = transcriber.config.phones if with_phones else ()
    letters, misfit = _align_groups(
        heard.letters,
        [vocabulary.encode(" ".join(word.plain)) for word in words],
        vocabulary.word_break,
    )
    names = _pronounce(words, symbols)
    phones: list[list[Span]] = [[]] * len(words)
    if heard.phones is not None and any(names):
        index = {symbol: number for number, symbol in enumerate(symbols, 1)}
        groups = [[index[name] for name in row] for row in names]
        rows = _align_groups(heard.phones, groups, None)[0]
        phones = [row if name else [] for row, name in zip(rows, names, strict=True)]
    return Spikes(letters, names, phones, misfit)


def _align(
    listener: Listener, words: Sequence[WrittenWord], text: str, with_phones: bool
) -> Alignment:
    """Lay words over what was heard."""
    transcriber = listener.transcriber
    offsets, frame_s = transcriber.offsets, transcriber.label_frame_s
    choice = transcriber.lookaheads_ms.index(listener.lookahead_ms)
    duration_s = listener.samples_received / listener.sample_rate
    spikes = find_spikes(listener, words, with_phones)
    spans = []
    for letters, phones in zip(spikes.letters, spikes.phones, strict=True):
        span = _enclose(letters).move(offsets.letters_start, offsets.letters_end, choice)
        if phones:
            other = _enclose(phones).move(offsets.phones_start, offsets.phones_end, choice)
            # two opinions with errors of their own: the middle is better than either
            middle = (span.start + other.start) / 2, (span.end + other.end) / 2
            span = Span(*middle, span.confidence)
        spans.append(span)
    found = []
    inner = offsets.phones_inner[choice] if offsets.phones_inner else 0.0
    for word, span, names, row in zip(
        words, _part(spans, duration_s / frame_s), spikes.names, spikes.phones, strict=True
    ):
        said = tuple(
            AlignedPhone(name, part.start * frame_s, part.end * frame_s, part.confidence)
            for name, part in zip(names, _fill(row, span, inner), strict=True)
        )
        times = span.start * frame_s, span.end * frame_s
        confidence = span.confidence if word.plain else None
        found.append(AlignedWord(word.written, *times, confidence, said or None))
    has_phones = with_phones and bool(transcriber.config.phones)
    return Alignment(
        text=text,
        duration_s=duration_s,
        model=transcriber.name,
        words=tuple(found),
        has_phones=has_phones,
        misfit=spikes.misfit,
        is_calibrated=bool(offsets.letters_start and (offsets.phones_start or not has_phones)),
    )


def _pronounce(words: Sequence[WrittenWord], symbols: Sequence[str]) -> list[tuple[str, ...]]:
    """Return each word's phones, none where a word or the recogniser lacks them."""
    if not symbols:
        return [()] * len(words)
    lexicon, known = Lexicon.load(), set(symbols)
    plain = {part for word in words for part in word.plain if len(part) <= MAX_LETTERS}
    if shipped_sounder() is None:
        plain = {part for part in plain if lexicon.pronounce(part)}
    said = Pronouncer(lexicon).pronounce_words(sorted(plain))
    phones = {item.word: drop_stress(item.phones) for item in said}
    rows = []
    for word in words:
        parts = [phones.get(part, ()) for part in word.plain]
        row = tuple(phone for part in parts for phone in part)
        rows.append(row if all(parts) and known.issuperset(row) else ())
    return rows


def _align_groups(
    log_probs: Floats, groups: Sequence[Sequence[int]], separator: int | None
) -> tuple[list[list[Span]], float]:
    """Align groups of labels, ``separator`` between two.

    An empty group is a label of its own that is as good as whatever is best in each frame.

    Returns:
        the spans of each group's labels, and the misfit.
    """
    best = log_probs.max(axis=1, keepdims=True)
    unknown = log_probs.shape[1]
    ids: list[int] = []
    starts = []
    for group in groups:
        if ids and separator is not None:
            ids.append(separator)
        starts.append(len(ids))
        ids += group or [unknown]
    found = align_labels(
        np.concatenate([log_probs, best - UNKNOWN_COST], axis=1), np.array(ids, np.int64)
    )
    rows = [
        [
            Span(float(found.first[i]), float(found.last[i]) + 1, math.exp(found.scores[i]))
            for i in range(start, start + max(1, len(group)))
        ]
        for start, group in zip(starts, groups, strict=True)
    ]
    return rows, (float(best.sum(dtype=np.float64)) - found.total) / len(ids)


def _enclose(row: list[Span]) -> Span:
    """Return the span of a word from those of its letters or phones."""
    mean = math.fsum(math.log(span.confidence or 1e-300) for span in row) / len(row)
    return Span(row[0].start, row[-1].end, math.exp(mean))


def _part(spans: list[Span], num_frames: float) -> list[Span]:
    """Let neighbours touch where no pause parts them, and keep all within the recording."""
    edges = np.array([(span.start, span.end) for span in spans])
    ends, starts = edges[:-1, 1], edges[1:, 0]
    near = starts - ends < MAX_GAP_FRAMES
    ends[near] = starts[near] = (ends[near] + starts[near]) / 2
    edges = np.maximum.accumulate(edges.ravel().clip(0, num_frames)).reshape(-1, 2)
    return [
        replace(span, start=float(start), end=float(end))
        for span, (start, end) in zip(spans, edges, strict=True)
    ]


def _fill(row: list[Span], word: Span, inner: float) -> list[Span]:
    """Part a word's span among its phones: each ends where the next one begins."""
    if not row:
        return []
    edges = [word.start, *(span.start + inner for span in row[1:]), word.end]
    least = min(MIN_PHONE_FRAMES, (word.end - word.start) / len(row))
    for i in range(1, len(row)):
        edges[i] = max(edges[i], edges[i - 1] + least)
    for i in reversed(range(1, len(row))):
        edges[i] = min(edges[i], edges[i + 1] - least)
    return [
        Span(start, end, span.confidence)
        for span, start, end in zip(row, edges, edges[1:], strict=False)
    ]
