"""How right pronunciations are: phone errors and whole words, with and without stress."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from audiossm.errors import ManifestError
from audiossm.lexicon import drop_stress
from audiossm.text import normalise_text

__all__ = [
    "PhoneErrors",
    "PronunciationScore",
    "count_edits",
    "read_references",
    "score_pronunciations",
]


@dataclass(frozen=True)
class PhoneErrors:
    """Errors over words; a phone with another stress is another phone."""

    words: int
    right: int  # words without an error
    phones: int  # of the reference
    errors: int  # phones substituted, inserted or missing

    @property
    def rate(self) -> float:
        """Phone error rate: errors over phones of the reference."""
        return self.errors / self.phones

    @property
    def accuracy(self) -> float:
        """Share of words without an error."""
        return self.right / self.words


@dataclass(frozen=True)
class PronunciationScore:
    """Errors with marks of stress, and without."""

    stressed: PhoneErrors
    plain: PhoneErrors

    def to_json(self) -> dict[str, Any]:
        """Return counts and rates."""
        return {
            name: asdict(item) | {"rate": item.rate, "accuracy": item.accuracy}
            for name, item in (("stressed", self.stressed), ("plain", self.plain))
        }


def score_pronunciations(
    found: Mapping[str, Sequence[str]], references: Mapping[str, Sequence[str]]
) -> PronunciationScore:
    """Compare the phones of each word of ``references``, which isn't empty, with those found."""
    pairs = [(tuple(found[word]), tuple(phones)) for word, phones in references.items()]
    return PronunciationScore(
        _count(pairs), _count((drop_stress(ours), drop_stress(true)) for ours, true in pairs)
    )


def _count(pairs: Iterable[tuple[Sequence[str], Sequence[str]]]) -> PhoneErrors:
    words = right = phones = errors = 0
    for ours, true in pairs:
        edits = count_edits(ours, true)
        words, right = words + 1, right + (edits == 0)
        phones, errors = phones + len(true), errors + edits
    return PhoneErrors(words, right, phones, errors)


def count_edits(ours: Sequence[str], true: Sequence[str]) -> int:
    """Return the fewest symbols to substitute, insert or delete (Levenshtein)."""
    row = list(range(len(true) + 1))
    for i, mine in enumerate(ours, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(true, 1):
            before, row[j] = row[j], min(before + (mine != other), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def read_references(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a file with a plain word, a tab and its phones parted by spaces a line.

    Raises:
        ManifestError: it can't be read, has no line, or one is wrong.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ManifestError(f"{path}: can't read these pronunciations ({exc})") from exc
    references = {}
    for number, line in enumerate(lines, 1):
        word, _, phones = line.partition("\t")
        if not phones.split() or normalise_text(word) != word or " " in word or not word:
            raise ManifestError(f"{path}:{number}: not a plain word, a tab and its phones")
        references[word] = tuple(phones.split())
    if not references:
        raise ManifestError(f"{path}: no pronunciations in it")
    return references
