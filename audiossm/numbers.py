"""Spoken English numbers in digits: cautious rules, one number at a time."""

from collections.abc import Sequence
from typing import NamedTuple

from audiossm.marks import CAPITAL, MARKS, MarkedWord, spell

__all__ = ["MAX_RUN", "Piece", "write_number"]

MAX_RUN = 24  # words after which a number is written, whatever comes

_ONES = "one two three four five six seven eight nine".split()
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_UNITS = {word: value for value, word in enumerate(_ONES, 1)}
_DIGITS = _UNITS | {"zero": 0}
_SMALL = _UNITS | {word: value for value, word in enumerate(_TEENS, 10)}
_DECADES = {word: 10 * value for value, word in enumerate(_TENS, 2)}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_ORDINALS = {
    "first": "one",
    "second": "two",
    "third": "three",
    "fifth": "five",
    "eighth": "eight",
    "ninth": "nine",
    "twelfth": "twelve",
    **{f"{word}th": word for word in ("four", "six", "seven", *_TEENS) if word != "twelve"},
    **{f"{word[:-1]}ieth": word for word in _TENS},
    **{f"{word}th": word for word in ("hundred", *_SCALES)},
}
_PLURAL_DECADES = {f"{word[:-1]}ies": value for word, value in _DECADES.items()}
_ZEROS = ("oh", "o")  # where a zero can be
_STARTS = {"zero", *_SMALL, *_DECADES, *_ORDINALS}
_RUN = _STARTS | {"hundred", *_SCALES}

# what is counted in digits, however few
_MEASURES = {
    *("percent", "dollars", "cents", "euros", "degrees", "o'clock"),
    *(f"{many}{unit}" for many in ("kilo", "centi", "milli", "") for unit in ("meters", "metres")),
    *("grams", "kilograms", "kilobytes", "megabytes", "gigabytes", "hertz", "kilohertz"),
}
_MONTHS = set(
    "january february march april may june july august september october november december".split()
)
_TIME_WORDS = {"at", "by", "until", "till", "before", "after", "around"}
_CENTURIES = range(13, 21)


class Piece(NamedTuple):
    """The written form of some words."""

    text: str  # with the mark after it
    num_words: int  # how many it stands for


class _Part(NamedTuple):
    """A number within a run of number words."""

    text: str
    num_words: int
    value: int  # -1 for what is no plain whole number
    is_ordinal: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it stays in words by itself."""
        return 0 <= self.value < 10


def write_number(
    words: Sequence[MarkedWord], before: MarkedWord | None, ended: bool
) -> list[Piece] | None:
    """Write the number that some words begin with.

    Numbers below ten stay words, but in sequences (three digits or more are joined), before units,
    in dates and times. Years are two pairs; a comma or another mark ends a number.

    Args:
        words: plain words with their case and mark.
        before: the word before them.
        ended: whether no more words will come.

    Returns:
        the first pieces of ``words``: none if they begin with no number, and None if more words
        have to come first.
    """
    if not words or words[0].word not in _RUN:
        return []
    size, is_open = _measure_run(words)
    if is_open and not ended and len(words) < MAX_RUN:
        return None
    run = [item.word for item in words[:size]]
    rest = [item.word for item in words[size : size + 2]]
    # a mark parts a number from what follows, and nobody waits for what follows these
    if words[size - 1].mark or is_open or run[-1] in _ORDINALS:
        rest = []
    if rest in (["a"], ["p"], ["per"]) and not ended:
        return None
    # "a hundred and fifty" stays in words, whole
    parts = _read_run(run) if run[0] in _STARTS else None
    if parts is None:
        return [_leave(item) for item in words[:size]]
    texts = _arrange(parts, before, rest)
    pieces, at = [], 0
    for text, count in texts:
        if text is None:
            pieces += [_leave(item) for item in words[at : at + count]]
        else:
            mark = MARKS[words[at + count - 1].mark]
            pieces.append(Piece(text + (mark if not text.endswith(mark) else ""), count))
        at += count
    return pieces


def _leave(item: MarkedWord) -> Piece:
    return Piece(spell(item.word, item.case) + MARKS[item.mark], 1)


def _measure_run(words: Sequence[MarkedWord]) -> tuple[int, bool]:
    """Return how many words belong to a run of number words, and whether it may go on."""
    size = 0
    for at, item in enumerate(words[:MAX_RUN]):
        word = item.word
        if word in _RUN:
            size = at + 1
            if item.mark or word in _ORDINALS:
                return size, False
        # these belong to it if a number follows
        elif item.mark or not (
            (word in ("and", "point", *_ZEROS) and size == at)
            or (word in _ZEROS and words[at - 1].word == "point")
        ):
            return size, False
    # the words ran out; an open "and" may still be followed by a number
    return size, True


def _small(run: Sequence[str], at: int) -> tuple[int, int] | None:
    """Read 1 to 99: (value, where it ends)."""
    word = run[at] if at < len(run) else ""
    if word in _SMALL:
        return _SMALL[word], at + 1
    if word in _DECADES:
        unit = _UNITS.get(run[at + 1], 0) if at + 1 < len(run) else 0
        return _DECADES[word] + unit, at + 1 + (unit > 0)
    return None


def _word(run: Sequence[str], at: int) -> str:
    return run[at] if at < len(run) else ""


def _group(run: Sequence[str], at: int) -> tuple[int, int] | None:
    """Read what stands before a scale: up to 9999, as "nineteen hundred" is said."""
    found = _small(run, at)
    if found is None or _word(run, found[1]) != "hundred":
        return found
    value, end = found[0] * 100, found[1] + 1
    more = _small(run, end + (_word(run, end) == "and"))
    if more is not None and _word(run, more[1]) != "hundred":
        return value + more[0], more[1]
    return value, end


def _cardinal(run: Sequence[str], at: int) -> tuple[int, int] | None:
    """Read a whole number from 1 on: (value, where it ends)."""
    total, end, last = 0, at, 0
    while True:
        start = end + (last > 0 and _word(run, end) == "and")
        found = _group(run, start)
        if found is None:
            break
        scale = _SCALES.get(_word(run, found[1]), 1)
        if last and (scale >= last or found[0] * scale >= last):
            break
        total, end, last = total + found[0] * scale, found[1] + (scale > 1), scale
        if scale == 1:
            break
    return (total, end) if end > at else None


def _year(run: Sequence[str], at: int) -> tuple[int, int] | None:
    """Read "nineteen eighty four" or "nineteen oh five"."""
    first = _small(run, at)
    if first is None or first[0] not in _CENTURIES or first[1] != at + 1:
        return None
    second = _small(run, at + 1)
    if _word(run, at + 1) in _ZEROS and _word(run, at + 2) in _UNITS:
        second = _UNITS[run[at + 2]], at + 3
    elif second is None or second[0] < 10:
        return None
    if _word(run, second[1]) in ("hundred", *_SCALES):
        return None
    return first[0] * 100 + second[0], second[1]


def _digits(run: Sequence[str], at: int) -> tuple[str, int]:
    """Read single digits one after the other."""
    text, end = "", at
    while _word(run, end) in _DIGITS or (end > at and _word(run, end) in _ZEROS):
        text += str(_DIGITS.get(run[end], 0))
        end += 1
    return text, end


def _fraction(run: Sequence[str], at: int) -> tuple[str, int] | None:
    """Read "point one four" or "point twenty five": (digits, where they end)."""
    if _word(run, at) != "point":
        return None
    after = at + 1 + (_word(run, at + 1) in _ZEROS)
    digits, end = _digits(run, after)
    if not digits:
        pair = _small(run, after)
        if pair is None:
            return None
        digits, end = str(pair[0]), pair[1]
    return "0" * (after - at - 1) + digits, end


def _read_run(run: Sequence[str]) -> list[_Part] | None:
    """Part a run into its numbers, or return None if it is better left in words."""
    parts: list[_Part] = []
    at = 0
    while at < len(run):
        part = _read_part(run, at)
        if part is None:
            part = _Part("", 1, -1)  # "and", "point" or "oh" between numbers
        # "one tenth": a fraction
        if part.is_ordinal and parts and parts[-1].text:
            return None
        parts.append(part)
        at += part.num_words
    return parts


def _read_part(run: Sequence[str], at: int) -> _Part | None:
    digits, end = _digits(run, at)
    if end - at >= 3 and _word(run, end) not in ("hundred", "point", *_SCALES):
        return _Part(digits, end - at, -1)
    if (year := _year(run, at)) is not None:
        return _Part(str(year[0]), year[1] - at, -1)
    if run[-1] in _ORDINALS:
        number = _cardinal([*run[:-1], _ORDINALS[run[-1]]], at)
        if number is not None and number[1] == len(run):
            value = number[0]
            return _Part(_group_digits(value) + _ending(value), len(run) - at, value, True)
    found_cardinal = (0, at + 1) if run[at] == "zero" else _cardinal(run, at)
    if found_cardinal is None:
        return None
    value, end = found_cardinal
    text = _write_whole(value)
    if (fraction := _fraction(run, end)) is not None:
        text, value, end = f"{_group_digits(value)}.{fraction[0]}", -1, fraction[1]
        if _word(run, end) in ("million", "billion"):
            text, end = f"{text} {run[end]}", end + 1
    return _Part(text, end - at, value)


def _group_digits(value: int) -> str:
    """Write a whole number; from 10,000 on there are commas."""
    return f"{value:,}" if value >= 10_000 else str(value)


def _write_whole(value: int) -> str:
    """Write a whole number: round millions keep their word."""
    for name in ("billion", "million"):
        if value >= _SCALES[name] and value % _SCALES[name] == 0 and value < 1000 * _SCALES[name]:
            return f"{value // _SCALES[name]} {name}"
    return _group_digits(value)


def _ending(value: int) -> str:
    if value % 100 in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")


def _arrange(
    parts: list[_Part], before: MarkedWord | None, rest: Sequence[str]
) -> list[tuple[str | None, int]]:
    """Choose digits or words for each part, and take in what follows.

    Returns:
        for each (text, words), the text being None for words that stay as they are.
    """
    texts: list[tuple[str | None, int]] = []
    start = 0
    for stop in range(len(parts) + 1):
        if stop < len(parts) and parts[stop].text:
            continue
        if stop > start:
            is_last = stop == len(parts)
            previous = before if start == 0 else None
            texts += _arrange_group(parts[start:stop], previous, rest if is_last else ())
        if stop < len(parts):
            texts.append((None, parts[stop].num_words))
        start = stop + 1
    return texts


def _arrange_group(
    parts: list[_Part], before: MarkedWord | None, rest: Sequence[str]
) -> list[tuple[str | None, int]]:
    is_noon = len(rest) == 2 and rest[0] in ("a", "p") and rest[1] == "m"
    if (clock := _read_clock(parts, before, is_noon)) is not None:
        count = sum(part.num_words for part in parts)
        return [(f"{clock} {rest[0]}.m.", count + 2) if is_noon else (clock, count)]
    first = rest[0] if rest else ""
    last = parts[-1]
    texts: list[tuple[str | None, int]] = [(part.text, part.num_words) for part in parts]
    if not last.is_ordinal:
        if first == "percent" or list(rest) == ["per", "cent"]:
            texts[-1] = f"{last.text}%", last.num_words + (1 if first == "percent" else 2)
            return texts
        if first == "dollars":
            texts[-1] = f"${last.text}", last.num_words + 1
            return texts
        if last.value in _CENTURIES and first in _PLURAL_DECADES:
            texts[-1] = f"{last.value * 100 + _PLURAL_DECADES[first]}s", last.num_words + 1
            return texts
    is_dated = before is not None and before.word in _MONTHS and before.case == CAPITAL
    if first in _MEASURES or is_dated or not all(part.is_plain for part in parts):
        return texts
    return [(None, part.num_words) for part in parts]


def _read_clock(parts: list[_Part], before: MarkedWord | None, is_noon: bool) -> str | None:
    """Write a time of the day if that is what the parts are."""
    if not 1 <= parts[0].value <= 12 or parts[0].is_ordinal:
        return None
    if len(parts) == 1:
        return parts[0].text if is_noon else None
    is_time = is_noon or (before is not None and before.word in _TIME_WORDS)
    if is_time and len(parts) == 2 and 10 <= parts[1].value <= 59 and not parts[1].is_ordinal:
        return f"{parts[0].text}:{parts[1].text}"
    return None
