"""Pronunciations of English words, as espeak-ng says them in sentences."""

import lzma
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from audiossm.errors import ModelError

__all__ = ["MAIN_STRESS", "PHONES", "SIDE_STRESS", "Lexicon", "drop_stress", "read_pronunciations"]

LEXICON_FILE = "english.txt.xz"
MAIN_STRESS, SIDE_STRESS = "ˈ", "ˌ"  # what a stressed vowel begins with
# what espeak-ng's voice en-us says English words with
PHONES = tuple(
    (
        "aɪ aɪə aɪɚ aʊ b d dʒ eɪ f h i iə iː iːː j k l m n n̩ oʊ oː oːɹ p r s t tʃ uː v w x z æ ð "
        "ŋ ɐ ɑː ɑːɹ ɔ ɔɪ ɔː ɔːɹ ə əl ɚ ɛ ɛɹ ɜː ɡ ɪ ɪɹ ɹ ɾ ʃ ʊ ʊɹ ʌ ʒ ʔ θ ᵻ"
    ).split()
)


class Lexicon:
    """Words, reduced as ``audiossm.text.normalise_text`` does, and their phones (IPA).

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
        return Lexicon(read_pronunciations(shipped_lexicon()))

    def pronounce(self, word: str) -> tuple[str, ...] | None:
        """Return the phones of a plain word, the commonest way it is said; None if unknown.

        Stressed vowels have their mark: ``("h", "ə", "l", "ˈoʊ")``.
        """
        phones = self._phones.get(word)
        return None if phones is None else tuple(phones.split())

    def __len__(self) -> int:
        return len(self._phones)


def read_pronunciations(path: Path) -> dict[str, str]:
    """Read words and their phones, parted by spaces, from a file such as the lexicon's.

    Raises:
        ModelError: it is missing or damaged.
    """
    try:
        text = lzma.decompress(path.read_bytes()).decode()
        lines = (line for line in text.splitlines() if line and not line.startswith("#"))
        return dict(line.split("\t", 1) for line in lines)
    except (OSError, ValueError, lzma.LZMAError) as exc:
        raise ModelError(f"{path}: can't read this lexicon ({exc})") from exc


def drop_stress(phones: Iterable[str]) -> tuple[str, ...]:
    """Return the phones without their marks of stress, as a recogniser knows them."""
    return tuple(phone.lstrip(MAIN_STRESS + SIDE_STRESS) for phone in phones)


def shipped_lexicon() -> Path:
    """Return where the lexicon is."""
    package = Path(__file__).resolve().parent
    installed = package / "_assets" / "lexicon"
    folder = installed if installed.is_dir() else package.parent / "assets" / "lexicon"
    return folder / LEXICON_FILE
