"""Pronunciations of any English words: from the lexicon, or by a small model."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from audiossm.aloud import say_numbers, write_out
from audiossm.errors import PronunciationError
from audiossm.lexicon import Lexicon
from audiossm.text import normalise_text

if TYPE_CHECKING:
    from audiossm.models import LoadedSounder

__all__ = ["Pronouncer", "Pronunciation"]

MAX_LETTERS = 64  # of a word
INITIALS = re.compile(r"(?:\b[A-Za-z]\.){2,}|\b[B-DF-HJ-NP-TV-XZ]{2,5}\b")  # "U.S.A.", "BBC"


@dataclass(frozen=True)
class Pronunciation:
    """A plain word and its phones: IPA as espeak-ng writes it, stressed vowels with ˈ or ˌ before.

    ``source`` tells who says so. The model may find a word silent, which then has no phones.
    """

    word: str
    phones: tuple[str, ...]
    source: Literal["lexicon", "model"]


class Pronouncer:
    """The lexicon, and a sounder for words that it lacks. Threads may share it.

    Args:
        lexicon: asked first.
        sounder: asked for the rest; without one, the shipped sounder is loaded when it is needed
            first.
    """

    def __init__(self, lexicon: Lexicon, sounder: "LoadedSounder | None" = None) -> None:
        self.lexicon = lexicon
        self._sounder = sounder

    @classmethod
    def load(cls, model: str | Path | None = None) -> "Pronouncer":
        """Load the shipped lexicon, and a sounder by name or folder (default: when it is needed).

        Raises:
            ModelError: one of them is missing or damaged.
        """
        pronouncer = cls(Lexicon.load())
        if model is not None:
            pronouncer._sounder = _load_sounder(model)
        return pronouncer

    @property
    def sounder(self) -> "LoadedSounder":
        """The model.

        Raises:
            ModelError: none is shipped, or it is damaged.
        """
        if self._sounder is None:
            self._sounder = _load_sounder(None)
        return self._sounder

    def pronounce(self, text: str) -> tuple[Pronunciation, ...]:
        """Pronounce each word of a text, in order; what neither letters nor digits are is silent.

        Numbers and common abbreviations are read as words, initials letter by letter. A word is
        said as it is most often in sentences, whatever stands beside it.

        Raises:
            PronunciationError: no words, a letter that is not one of a to z (accents are dropped),
                a number too large, or a word of more than ``MAX_LETTERS`` letters.
            ModelError: a word needs the model, and none is shipped, or it is damaged.
        """
        return self.pronounce_words(split_words(text))

    def pronounce_words(self, words: Sequence[str]) -> tuple[Pronunciation, ...]:
        """Pronounce plain words, as ``audiossm.text.normalise_text`` leaves them.

        Raises:
            PronunciationError: one isn't plain, or too long.
            ModelError: a word needs the model, and none is shipped, or it is damaged.
        """
        for word in words:
            if not re.fullmatch(r"[a-z](?:[a-z']*[a-z])?", word):
                raise PronunciationError(f"{word!r} is not one plain word of the letters a to z")
            if len(word) > MAX_LETTERS:
                raise PronunciationError(
                    f"{word[:20]!r}... has {len(word)} letters: at most {MAX_LETTERS} are taken"
                )
        known = {word: self.lexicon.pronounce(word) for word in words}
        unknown = [word for word, phones in known.items() if phones is None]
        said = dict(zip(unknown, self.sounder.pronounce(unknown), strict=True)) if unknown else {}
        return tuple(
            Pronunciation(word, said[word], "model")
            if (phones := known[word]) is None
            else Pronunciation(word, phones, "lexicon")
            for word in words
        )


def split_words(text: str) -> list[str]:
    """Part a text into plain words, as they are said.

    Raises:
        PronunciationError: no words, a letter that is not one of a to z, or a number too large.
    """
    text = INITIALS.sub(lambda m: f" {' '.join(m[0].replace('.', ''))} ", write_out(text))
    for number in re.findall(r"\d+(?:,\d{3})*", text):
        digits = number.replace(",", "")
        # Python refuses to read thousands of digits
        if len(digits) > 1000 or int(digits) >= 10**9:
            shown = number if len(number) <= 40 else f"{number[:40]}..."
            raise PronunciationError(f"{shown} is too large: numbers below a billion are said")
    spelled = say_numbers(text)
    for char in spelled:
        if char.isalnum() and not re.match("[A-Za-z]", unicodedata.normalize("NFKD", char)):
            raise PronunciationError(f"{char!r} of {text[:40]!r} is not one of the letters a to z")
    words = normalise_text(spelled).split()
    if not words:
        raise PronunciationError(f"there are no words in {text[:40]!r}")
    return words


def _load_sounder(model: str | Path | None) -> "LoadedSounder":
    from audiossm.models import LoadedSounder  # not at import: known words need no torch

    return LoadedSounder.load(model)
