"""Words with times become cues: what stands on a screen together, and for how long."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Cue", "CueShape", "TimedWord", "make_cues"]

MAX_GAP_S = 0.8  # so long a silence is no place within a cue
MIN_CUE_S = 1.0
MAX_CUE_S = 7.0
PAUSE_S = 0.25  # a silence that listeners take for a break
MAX_CHARS_S = 20.0  # more characters a second can't be read

# what a border between two cues, or two lines, costs: a cue more is worth avoiding a bad border
_PER_CUE = 2.0
_AT_SENTENCE, _AT_CLAUSE, _AT_PAUSE, _ELSEWHERE, _TORN = 0.0, 1.0, 1.5, 3.0, 6.0
_SENTENCE_INSIDE = 0.8
_TOO_SHORT = 6.0  # a second
_TOO_FAST = 0.15  # a character a second above what can be read
_UNEVEN = 2.0  # lines, times the share of a line by which they differ

_SENTENCE_ENDS = (".", "?", "!", "…")
_CLAUSE_ENDS = (",", ";", ":", "-", "–", "—")
_OPENERS, _CLOSERS = "\"'([{“‘«", "\"')]}”’»"
# words that begin a phrase: a border before them is a good one
_BEGINNING = frozenset(
    "and or but nor so if because as than that when while where which who whose until "
    "of in on at to for from with by about into over under between through during without "
    "after before".split()
)
# words that lean on the next one: a border behind them tears a phrase
_LEANING = _BEGINNING | frozenset(
    "a an the this these those my your his her its our their some any no every each whom what how "
    "i you he she it we they is are was were be been am has have had do does did "
    "will would shall should can could may might must not very too more most "
    "mr. mrs. ms. dr. st. i'm i've i'll you're he's she's it's we're they're".split()
)


class TimedWord(Protocol):
    """A word as it is shown and when it was said, in seconds from the start of the audio."""

    @property
    def text(self) -> str: ...
    @property
    def start_s(self) -> float: ...
    @property
    def end_s(self) -> float: ...


@dataclass(frozen=True)
class Cue:
    """What stands on the screen from ``start_s`` to ``end_s``: one or more lines."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CueShape:
    """How large a cue may be."""

    line_length: int = 42  # characters
    num_lines: int = 2


def make_cues(words: Iterable[TimedWord], shape: CueShape | None = None) -> Iterator[Cue]:
    """Group words into cues that can be read.

    A cue ends before a pause of 0.8 s or more, before it would last longer than 7 s and before it
    would need more lines, or longer ones, than ``shape`` allows; a single word longer than a line
    keeps a line of its own, whole. Within these limits the borders of cues and lines are those
    that cost least: the ends of sentences, then of clauses, then pauses, hardly ever between
    words that lean on each other ("the | river").

    A cue stands for as long as its words are said and, if the next one leaves room, until it stood
    1 s and its characters could be read at 20 a second. Cues don't overlap.

    Args:
        words: in the order of time.
        shape: by default two lines of 42 characters.
    """
    said, shape = list(words), shape or CueShape()
    ends = _choose_ends(said, shape)
    for start, end in zip([0, *ends], ends, strict=False):
        next_s = said[end].start_s if end < len(said) else math.inf
        yield _make_cue(said[start:end], next_s, shape)


def _choose_ends(words: Sequence[TimedWord], shape: CueShape) -> list[int]:
    """Return the index behind each cue's last word: of all ways, the one that costs least."""
    costs = _border_costs(words)
    sentence_ends = [0, *itertools.accumulate(map(_ends_sentence, words))]
    lengths = [0, *itertools.accumulate(len(word.text) + 1 for word in words)]
    best, before = [0.0] + [math.inf] * len(words), [0] * (len(words) + 1)
    for start in range(len(words)):
        num_lines, used = 0, shape.line_length
        for end in range(start + 1, len(words) + 1):
            num_lines, used = _fill(num_lines, used, words[end - 1], shape.line_length)
            fits = num_lines <= shape.num_lines and _holds_together(words, start, end)
            if end > start + 1 and not fits:
                break
            stop_s = words[end].start_s if end < len(words) else math.inf
            shown_s = min(max(stop_s, words[end - 1].end_s) - words[start].start_s, MAX_CUE_S)
            speed = (lengths[end] - lengths[start] - 1) / max(shown_s, 0.001)
            cost = (
                best[start]
                + _PER_CUE
                + costs[end - 1]
                + _SENTENCE_INSIDE * (sentence_ends[end - 1] - sentence_ends[start])
                + _TOO_SHORT * max(0.0, MIN_CUE_S - shown_s)
                + _TOO_FAST * max(0.0, speed - MAX_CHARS_S)
            )
            if cost < best[end]:
                best[end], before[end] = cost, start
    ends = [len(words)] if words else []
    while ends and before[ends[-1]]:
        ends.append(before[ends[-1]])
    return ends[::-1]


def _holds_together(words: Sequence[TimedWord], start: int, end: int) -> bool:
    """Whether the last of these words may stand in one cue with those before it."""
    # to the millisecond: a difference of decimal seconds is never exact
    gap_s = round(words[end - 1].start_s - words[end - 2].end_s, 3)
    length_s = round(words[end - 1].end_s - words[start].start_s, 3)
    return gap_s < MAX_GAP_S and length_s <= MAX_CUE_S


def _fill(num_lines: int, used: int, word: TimedWord, line_length: int) -> tuple[int, int]:
    """Add a word to lines that each take what they hold; no way to lay words out needs fewer.

    Returns:
        how many lines there are now, and how many characters the last one has.
    """
    longer = used + 1 + len(word.text)
    return (num_lines, longer) if longer <= line_length else (num_lines + 1, len(word.text))


def _border_costs(words: Sequence[TimedWord]) -> list[float]:
    """Return what a border behind each word costs."""
    costs = []
    for word, follower in itertools.pairwise(words):
        gap_s = round(follower.start_s - word.end_s, 3)
        if gap_s >= MAX_GAP_S or _ends_sentence(word):
            cost = _AT_SENTENCE
        elif word.text.rstrip(_CLOSERS).endswith(_CLAUSE_ENDS):
            cost = _AT_CLAUSE
        elif _leans(word):
            cost = _TORN
        elif gap_s >= PAUSE_S:
            cost = _AT_PAUSE
        else:
            cost = _ELSEWHERE - (follower.text.lower() in _BEGINNING)
        costs.append(cost)
    return [*costs, _AT_SENTENCE]


def _leans(word: TimedWord) -> bool:
    return word.text.lower().lstrip(_OPENERS) in _LEANING


def _ends_sentence(word: TimedWord) -> bool:
    return word.text.rstrip(_CLOSERS).endswith(_SENTENCE_ENDS) and not _leans(word)


def _make_cue(words: Sequence[TimedWord], next_s: float, shape: CueShape) -> Cue:
    start_s, said_s = words[0].start_s, words[-1].end_s
    lines = _break_lines(words, shape)
    num_chars = sum(map(len, lines))
    wanted_s = start_s + min(max(MIN_CUE_S, num_chars / MAX_CHARS_S), MAX_CUE_S)
    # neighbours of a joined recording may overlap by a little: the earlier one gives way
    end_s = min(max(said_s, wanted_s), max(next_s, start_s))
    return Cue(start_s, end_s, lines)


def _break_lines(words: Sequence[TimedWord], shape: CueShape) -> tuple[str, ...]:
    """Lay words out in the fewest lines that hold them, at the borders that cost least."""
    num_lines, used = 0, shape.line_length
    for word in words:
        num_lines, used = _fill(num_lines, used, word, shape.line_length)
    costs = _border_costs(words)

    def weigh(places: tuple[int, ...]) -> tuple[float, float]:
        sizes = [len(line) for line in cut(places)]
        excess = sum(max(0, size - shape.line_length) for size in sizes)
        uneven = (max(sizes) - min(sizes)) / shape.line_length
        return excess, _UNEVEN * uneven + sum(costs[place - 1] for place in places)

    def cut(places: tuple[int, ...]) -> list[str]:
        borders = itertools.pairwise((0, *places, len(words)))
        return [" ".join(word.text for word in words[a:b]) for a, b in borders]

    return tuple(cut(min(itertools.combinations(range(1, len(words)), num_lines - 1), key=weigh)))
