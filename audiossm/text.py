"""Plain words and the pieces that models spell them with."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from audiossm.errors import ConfigError

__all__ = ["BLANK", "CHARACTERS", "WORD_BREAK", "Vocabulary", "normalise_text"]

BLANK = "<blank>"  # the CTC blank, always piece 0
WORD_BREAK = "▁"  # stands between two words
CHARACTERS = (BLANK, WORD_BREAK, "'", *"abcdefghijklmnopqrstuvwxyz")

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘`´ʼ", "'"))


def normalise_text(text: str) -> str:
    """Reduce a transcript to plain words: ``a-z``, ``'`` inside words, single spaces.

    Accents are dropped, hyphens and other signs part words. Digits aren't spelled out (they fall
    away), so a transcript with digits should be left out of training and scoring.
    """
    text = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES).replace("&", " and "))
    text = "".join(char for char in text if not unicodedata.combining(char)).lower()
    words = (word.strip("'") for word in re.sub(r"[^a-z']+", " ", text).split())
    return " ".join(word for word in words if word)


@dataclass(frozen=True)
class Vocabulary:
    """The pieces of a model's output; index 0 is the CTC blank."""

    pieces: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.pieces or self.pieces[0] != BLANK:
            raise ConfigError(f"vocabulary.pieces must begin with {BLANK!r}")
        if len(set(self.pieces)) != len(self.pieces):
            raise ConfigError("vocabulary.pieces has the same piece twice")
        if WORD_BREAK not in self.pieces:
            raise ConfigError(f"vocabulary.pieces lacks the word break {WORD_BREAK!r}")

    def __len__(self) -> int:
        return len(self.pieces)

    @property
    def spells_letters(self) -> bool:
        """Whether any plain word can be spelled, and only in single letters."""
        return set(self.pieces) == set(CHARACTERS)

    @property
    def word_break(self) -> int:
        """The index of the piece between words."""
        return self.pieces.index(WORD_BREAK)

    def encode(self, text: str) -> list[int]:
        """Spell plain words in single characters: ``"a b"`` -> ``a ▁ b``."""
        index = {piece: i for i, piece in enumerate(self.pieces)}
        return [index[char] for char in text.replace(" ", WORD_BREAK)]

    def decode(self, ids: Iterable[int]) -> str:
        """Join pieces to words."""
        return "".join(self.pieces[i] for i in ids).replace(WORD_BREAK, " ").strip()
