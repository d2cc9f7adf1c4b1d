"""Subtitle files, SubRip (srt) and WebVTT (vtt), made of words with times."""

import math
from collections.abc import Iterable

from audiossm.cues import Cue, CueShape, TimedWord, make_cues

__all__ = ["format_srt", "format_vtt"]


def format_srt(words: Iterable[TimedWord], shape: CueShape | None = None) -> str:
    """Write ``words`` as a SubRip file; no words give an empty file."""
    return "\n".join(
        f"{number}\n{_clock(cue.start_s, ',')} --> {_clock(_end(cue), ',')}\n"
        + "".join(f"{line}\n" for line in cue.lines)
        for number, cue in enumerate(make_cues(words, shape), 1)
    )


def format_vtt(words: Iterable[TimedWord], shape: CueShape | None = None) -> str:
    """Write ``words`` as a WebVTT file; no words give the header alone."""
    blocks = (
        f"\n{_clock(cue.start_s, '.')} --> {_clock(_end(cue), '.')}\n"
        + "".join(f"{_escape(line)}\n" for line in cue.lines)
        for cue in make_cues(words, shape)
    )
    return "WEBVTT\n" + "".join(blocks)


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
