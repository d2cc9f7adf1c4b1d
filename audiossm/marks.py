"""Written English as plain words, each with its case and the mark after it, and back."""

import re
import unicodedata
from itertools import zip_longest
from typing import NamedTuple

__all__ = [
    "CAPITAL",
    "CASES",
    "COMMA",
    "LOWER",
    "MARKS",
    "QUESTION",
    "STOP",
    "STOPS",
    "UPPER",
    "MarkedWord",
    "read_marks",
    "spell",
]

CASES = ("lower", "capital", "upper")
LOWER, CAPITAL, UPPER = range(3)
MARKS = ("", ",", ".", "?")
NONE, COMMA, STOP, QUESTION = range(4)
STOPS = (STOP, QUESTION)  # a new sentence begins after them

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘`´ʼ", "'"))
_WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)*")
_MARK = re.compile(r"[.!?,;:]|--|(?<=\s)-(?=\s)|[–—]")

# how an abbreviation is said: its full stop ends no sentence
_ABBREVIATIONS = {
    "mr": "mister",
    "mrs": "missus",
    "dr": "doctor",
    "st": "saint",
    "mt": "mount",
    "lt": "lieutenant",
    "rev": "reverend",
    "prof": "professor",
    "col": "colonel",
    "capt": "captain",
    "gen": "general",
    "hon": "honorable",
    "messrs": "messieurs",
    "ms": "ms",
}
# and which words are written as one: only those that are nothing else
_TITLES = {"mister": "Mr.", "missus": "Mrs."}


class MarkedWord(NamedTuple):
    """A plain word as it is written."""

    word: str  # a-z and ' inside
    case: int  # index into CASES
    mark: int  # index into MARKS: what follows the word


def read_marks(text: str) -> list[MarkedWord]:
    """Take written text apart.

    Exclamation marks become full stops where a new sentence begins and commas elsewhere; colons,
    semicolons and dashes become commas; brackets and quotation marks are dropped, and hyphens part
    words. Digits fall away, so text that has some should be left out.
    """
    text = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES).replace("&", " and "))
    text = "".join(char for char in text if not unicodedata.combining(char))
    found = list(_WORD.finditer(text))
    words = []
    for match, after in zip_longest(found, found[1:]):
        gap = text[match.end() : after.start() if after else len(text)]
        plain = match.group().lower()
        mark = _read_gap(match.group(), gap, after.group() if after else "")
        if gap.startswith(".") and mark == 0:
            plain = _ABBREVIATIONS.get(plain, plain)
        words.append(MarkedWord(plain, _read_case(match.group()), mark))
    return words


def _read_gap(word: str, gap: str, after: str) -> int:
    """Return which mark stands for what is written between two words."""
    found = _MARK.search(gap)
    if found is None:
        return 0
    sign = found.group()
    if sign == "?":
        return QUESTION
    if sign not in ".!":
        return COMMA
    if not after:
        return STOP
    if sign == "!" or gap.startswith(".."):
        return COMMA if after[0].islower() else STOP
    abbreviated = word.lower() in _ABBREVIATIONS or (len(word) == 1 and word != "I")
    inside = gap == "." and after[0].islower()  # as in "i.e."
    return 0 if gap.startswith(".") and (abbreviated or inside) else STOP


def _read_case(word: str) -> int:
    letters = word.replace("'", "")
    if len(letters) > 1 and letters.isupper():
        return UPPER
    return CAPITAL if word[0].isupper() else LOWER


def spell(word: str, case: int) -> str:
    """Write a plain word in a case: ``mister`` as a title is ``Mr.``."""
    if case == UPPER:
        return word.upper()
    if case == LOWER:
        return word
    if word in _TITLES:
        return _TITLES[word]
    return "'".join(
        part.capitalize() if at == 0 or (at == 1 and word.startswith("o'")) else part
        for at, part in enumerate(word.split("'"))
    )
