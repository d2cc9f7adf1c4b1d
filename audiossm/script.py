"""A text as it is said: a unit for each phone and each pause, with its stress and its place."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from audiossm.aloud import write_out
from audiossm.errors import PronunciationError
from audiossm.lexicon import MAIN_STRESS, SIDE_STRESS
from audiossm.pronouncer import MAX_LETTERS, Pronouncer, split_words
from audiossm.spoken import say_word, waits
from audiossm.units import BEGINS, ENDS, Unit

__all__ = ["Script", "ScriptReader", "cut_word", "find_mark"]

SPACE = re.compile(r"\s")
KEPT = 10_000  # characters of a text that were read, before they are let go
MARKS = {"?": "?", ".": ".", "!": ".", "…": ".", ",": ",", ";": ",", ":": ",", "—": ",", "–": ","}


@dataclass(frozen=True)
class Script:
    """A text to be said, or the next piece of one.

    Attributes:
        units: phones and pauses, in order.
        words: as they were written, with their marks: ``units[i].word`` counts them.
        skipped: what can't be said, in the order of the text: other scripts, emoji, huge numbers.
    """

    units: tuple[Unit, ...]
    words: tuple[str, ...]
    skipped: tuple[str, ...]


def cut_word(text: str, at: int) -> tuple[str, str, int]:
    """Cut the next word with the space behind it off a text that goes on.

    Args:
        text: what is known of it.
        at: where what wasn't read begins.

    Returns:
        the word, empty if its space hasn't come yet; the text; and where the rest begins in that.
    """
    space = SPACE.search(text, at)
    if space is None:
        return "", text, at
    word, at = text[at : space.end()], space.end()
    return (word, text[at:], 0) if at >= KEPT else (word, text, at)


@dataclass
class ScriptReader:
    """Reads a text in pieces of any size: however it is cut, the units are the same.

    A word is read once the space behind it has come. Its attributes are a value: a copy goes on
    where the original was.

    Args:
        pronouncer: says how words are said.
    """

    pronouncer: Pronouncer
    rest: str = ""  # of the text: the beginning of a word
    num_words: int = 0
    pause: str = ""  # the newest unit, if it was a pause
    before: str = ""  # the newest word, as it was written

    def push(self, text: str) -> Script:
        """Take more of the text; return what is certain."""
        *words, self.rest = re.split(r"\s+", self.rest + text)
        if words and waits(words[-1]):
            self.rest = f"{words.pop()} {self.rest}"
        return self._read(words, self.rest.split()[:1])

    def finish(self) -> Script:
        """Take the last words, and end the last sentence."""
        words, self.rest = self.rest.split(), ""
        last = self._read(words)
        if not self.num_words or self.pause:
            return last
        self.pause = "."
        end = Unit(".", 0, 0, self.num_words - 1)
        return Script((*last.units, end), last.words, last.skipped)

    def _read(self, written: Iterable[str], following: Iterable[str] = ()) -> Script:
        units: list[Unit] = []
        words: list[str] = []
        skipped: list[str] = []
        known = [word for word in written if word]
        for word, after in zip(known, [*known[1:], *following, ""], strict=False):
            spoken = say_word(word, self.before, after)
            self.before = word
            plain, gone = say(spoken)
            skipped += gone
            mark = find_mark(spoken)
            if plain:
                if not self.num_words and not self.pause:
                    units.append(Unit("_", 0, 0, 0))
                units += self._spell(plain)
                words.append(word)
                self.num_words, self.pause = self.num_words + 1, ""
            if mark and self.num_words and not self.pause:
                units.append(Unit(mark, 0, 0, self.num_words - 1))
                self.pause = mark
        return Script(tuple(units), tuple(words), tuple(skipped))

    def _spell(self, plain: list[str]) -> list[Unit]:
        units: list[Unit] = []
        for said in self.pronouncer.pronounce_words(plain):
            last = len(said.phones) - 1
            for at, phone in enumerate(said.phones):
                symbol = phone.lstrip(MAIN_STRESS + SIDE_STRESS)
                stress = 2 if phone.startswith(MAIN_STRESS) else int(symbol != phone)
                place = BEGINS * (at == 0) + ENDS * (at == last)
                units.append(Unit(symbol, stress, place, self.num_words))
        return units


def say(written: str) -> tuple[list[str], list[str]]:
    """Return a written word as plain words, and what of it can't be said."""
    gone = [
        char
        for char in written
        if unicodedata.category(char)[0] in "LNS"
        and char not in "$+<=>^`|~"
        and not re.match("[A-Za-z0-9]", unicodedata.normalize("NFKD", char))
    ]
    lost = set(gone)
    kept = "".join(char for char in written if char not in lost)
    try:
        plain = split_words(kept)
    except PronunciationError:
        # only marks, which is nothing to tell of, a number that is too large, or one such as "½"
        rest = [kept] if any(unicodedata.category(char)[0] in "LN" for char in kept) else []
        return [], [*gone, *(re.findall(r"[A-Za-z0-9]\S*", kept) or rest)]
    long = [word for word in plain if len(word) > MAX_LETTERS]
    return [word for word in plain if len(word) <= MAX_LETTERS], gone + long


def find_mark(written: str) -> str:
    """Return the pause that a written word asks for behind it, or an empty string.

    Points of abbreviations and initials are none, as far as they are read as words.
    """
    if split := re.search(r"[^\w\s]+$", written):
        if write_out(written) != written or re.fullmatch(r"(?:[A-Za-z]\.)+", written):
            return ""
        for char in split[0]:
            if char in MARKS:
                return MARKS[char]
        return "," if written in ("-", "--") else ""
    return ""
