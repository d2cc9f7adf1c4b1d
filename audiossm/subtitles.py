"""Subtitle files, SubRip (srt) and WebVTT (vtt), made of words with times."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Cue", "TimedWord", "format_srt", "format_vtt", "make_cues"]

MAX_GAP_S = 0.8
MAX_CUE_S = 7.0
MAX_LINE = 42
MAX_LINES = 2


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
    """What stands on the screen from ``start_s`` to ``end_s``: one or two lines."""

    start_s: float
    end_s: float
    lines: tuple[str, ...]


def make_cues(words: Iterable[TimedWord]) -> Iterator[Cue]:
    """Group words into cues.

    A cue ends before a pause of 0.8 s or more, before it would last longer than 7 s and before it
    would need more than two lines of 42 characters. A single word longer than a line keeps a line
    of its own, whole.
    """
    lines: list[str] = []
    start_s = end_s = 0.0
    for word in words:
        added = _add_word(lines, word.text)
        # to the millisecond: a difference of decimal seconds is never exact
        gap_s, length_s = round(word.start_s - end_s, 3), round(word.end_s - start_s, 3)
        if lines and (gap_s >= MAX_GAP_S or length_s > MAX_CUE_S or len(added) > MAX_LINES):
            yield Cue(start_s, end_s, tuple(lines))
            lines, added = [], [word.text]
        if not lines:
            start_s = word.start_s
        lines, end_s = added, word.end_s
    if lines:
        yield Cue(start_s, end_s, tuple(lines))


def format_srt(words: Iterable[TimedWord]) -> str:
    """Write ``words`` as a SubRip file; no words give an empty file."""
    return "\n".join(
        f"{number}\n{_clock(cue.start_s, ',')} --> {_clock(_end(cue), ',')}\n"
        + "".join(f"{line}\n" for line in cue.lines)
        for number, cue in enumerate(make_cues(words), 1)
    )


def format_vtt(words: Iterable[TimedWord]) -> str:
    """Write ``words`` as a WebVTT file; no words give the header alone."""
    blocks = (
        f"\n{_clock(cue.start_s, '.')} --> {_clock(_end(cue), '.')}\n"
        + "".join(f"{_escape(line)}\n" for line in cue.lines)
        for cue in make_cues(words)
    )
    return "WEBVTT\n" + "".join(blocks)


def _add_word(lines: list[str], word: str) -> list[str]:
    if lines and len(lines[-1]) + 1 + len(word) <= MAX_LINE:
        return [*lines[:-1], f"{lines[-1]} {word}"]
    return [*lines, word]


def _end(cue: Cue) -> float:
    # players drop a cue that doesn't last, and a word may be shorter than a millisecond
    return max(cue.end_s, cue.start_s + 0.001)


def _clock(seconds: float, mark: str) -> str:
    millis = max(0, math.floor(seconds * 1000 + 0.5))
    minutes, millis = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{millis // 1000:02}{mark}{millis % 1000:03}"


def _escape(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
