"""TextGrid files, the annotations of Praat: tiers of intervals that fill the whole recording."""

from collections.abc import Iterable, Sequence

__all__ = ["Interval", "format_textgrid"]

Interval = tuple[float, float, str]  # start and end in seconds, text


def format_textgrid(duration_s: float, tiers: Sequence[tuple[str, Iterable[Interval]]]) -> str:
    """Write named tiers of intervals, which are in order and don't overlap, as a TextGrid.

    What lies between two of them becomes an interval without text. Praat knows no intervals of
    length 0, nor any beyond the end: those that are so once rounded to a millisecond are left out.
    """
    end = max(_round(duration_s), 0.001)
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {end:.3f}",
        "tiers? <exists>",
        f"size = {len(tiers)}",
        "item []:",
    ]
    for number, (name, intervals) in enumerate(tiers, 1):
        filled = _fill(end, intervals)
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier"',
            f"        name = {_quote(name)}",
            "        xmin = 0",
            f"        xmax = {end:.3f}",
            f"        intervals: size = {len(filled)}",
        ]
        for index, (start, stop, text) in enumerate(filled, 1):
            lines += [
                f"        intervals [{index}]:",
                f"            xmin = {start:.3f}",
                f"            xmax = {stop:.3f}",
                f"            text = {_quote(text)}",
            ]
    return "\n".join(lines) + "\n"


def _fill(end: float, intervals: Iterable[Interval]) -> list[Interval]:
    """Round to milliseconds and put empty intervals in the gaps."""
    filled: list[Interval] = []
    at = 0.0
    for start, stop, text in intervals:
        start, stop = max(at, _round(start)), min(end, _round(stop))
        if stop <= start:
            continue
        if start > at:
            filled.append((at, start, ""))
        filled.append((start, stop, text))
        at = stop
    if at < end:
        filled.append((at, end, ""))
    return filled


def _round(seconds: float) -> float:
    return round(seconds, 3)


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
