"""Pronunciations of English words, as espeak-ng says them in sentences."""

import hashlib
import lzma
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path

from audiossm.errors import ModelError

__all__ = ["MAIN_STRESS", "PHONES", "SIDE_STRESS", "Lexicon", "drop_stress", "read_pronunciations"]

LEXICON_FILE = "english.txt.xz"
WAYS_FILE = "ways.txt.xz"
PRIOR = 2.0  # how often the lexicon's own way to say a word was heard, at least
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
    that begin with ``#`` say how it was made. Another file there holds words that are said in
    several ways beside others ("the", "for a"): a word and, parted by tabs, how often each was
    counted and its phones without stress.
    """

    def __init__(self, phones: dict[str, str], ways: dict[str, str] | None = None) -> None:
        self._phones, self._ways = phones, ways or {}

    @staticmethod
    @cache
    def load() -> "Lexicon":
        """Read the lexicon that came with the package or stands in its checkout (once).

        Raises:
            ModelError: it is missing or damaged.
        """
        path = shipped_lexicon()
        return Lexicon(read_pronunciations(path), read_pronunciations(path.with_name(WAYS_FILE)))

    @cached_property
    def hash(self) -> str:
        """What ``ways`` depends on, as hex digits of SHA-256."""
        tables = ["\n".join(map("\t".join, table.items())) for table in (self._phones, self._ways)]
        return hashlib.sha256("\n\n".join([*tables, str(PRIOR)]).encode()).hexdigest()

    def pronounce(self, word: str) -> tuple[str, ...] | None:
        """Return the phones of a plain word, the commonest way it is said; None if unknown.

        Stressed vowels have their mark: ``("h", "ə", "l", "ˈoʊ")``.
        """
        phones = self._phones.get(word)
        return None if phones is None else tuple(phones.split())

    def ways(self, word: str) -> tuple[tuple[tuple[str, ...], float], ...]:
        """Return all ways to say a plain word, and the share of each; none if it is unknown.

        Vowels have no marks of stress.
        """
        counts: dict[tuple[str, ...], float] = {}
        if word in self._phones:
            # faster than phone by phone: a search asks for all words when it starts
            said = self._phones[word].replace(MAIN_STRESS, "").replace(SIDE_STRESS, "").split()
            if word not in self._ways:
                return ((tuple(said), 1.0),)
            counts[tuple(said)] = PRIOR
        for way in filter(None, self._ways.get(word, "").split("\t")):
            count, *phones = way.split(" ")
            counts[tuple(phones)] = counts.get(tuple(phones), 0.0) + float(count)
        total = sum(counts.values())
        return tuple((phones, count / total) for phones, count in counts.items())

    @property
    def words(self) -> tuple[str, ...]:
        """All words, sorted."""
        return tuple(sorted(self._phones))

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
