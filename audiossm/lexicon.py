"""Pronunciations of English words, as espeak-ng says them in sentences."""

import lzma
from functools import cache
from pathlib import Path

from audiossm.errors import ModelError

__all__ = ["Lexicon"]

LEXICON_FILE = "english.txt.xz"


class Lexicon:
    """Words, reduced as ``audiossm.text.normalise_text`` does, and their phones (IPA, no stress).

    ``assets/lexicon`` holds a line for each: the word, a tab, its phones parted by spaces. Lines
    that begin with ``#`` say how it was made.
    """

    def __init__(self, phones: dict[str, str]) -> None:
        self._phones = phones

    @staticmethod
    @cache
    def load() -> "Lexicon":
        """Read the lexicon that came with the package or stands in its checkout (once).

        Raises:
            ModelError: it is missing or damaged.
        """
        path = shipped_lexicon()
        try:
            text = lzma.decompress(path.read_bytes()).decode()
            lines = (line for line in text.splitlines() if line and not line.startswith("#"))
            return Lexicon(dict(line.split("\t", 1) for line in lines))
        except (OSError, ValueError, lzma.LZMAError) as exc:
            raise ModelError(f"{path}: can't read this lexicon ({exc})") from exc

    def pronounce(self, word: str) -> tuple[str, ...] | None:
        """Return the phones of a plain word, the commonest way it is said; None if unknown."""
        phones = self._phones.get(word)
        return None if phones is None else tuple(phones.split())

    def __len__(self) -> int:
        return len(self._phones)


def shipped_lexicon() -> Path:
    """Return where the lexicon is."""
    package = Path(__file__).resolve().parent
    installed = package / "_assets" / "lexicon"
    folder = installed if installed.is_dir() else package.parent / "assets" / "lexicon"
    return folder / LEXICON_FILE
