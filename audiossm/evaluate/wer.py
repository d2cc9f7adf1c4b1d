"""Word errors: substitutions, deletions and insertions between a reference and a hypothesis."""

from dataclasses import dataclass

from audiossm.errors import DependencyError
from audiossm.text import normalise_text

__all__ = ["WordErrors", "count_word_errors", "require_jiwer"]


@dataclass(frozen=True)
class WordErrors:
    """Counts that add up over utterances; ``words`` is the length of the reference."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    words: int = 0

    def __add__(self, other: "WordErrors") -> "WordErrors":
        return WordErrors(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.words + other.words,
        )

    @property
    def rate(self) -> float:
        """Word error rate, a fraction; with an empty reference each insertion counts as 1."""
        return (self.substitutions + self.deletions + self.insertions) / max(self.words, 1)


def count_word_errors(reference: str, hypothesis: str) -> WordErrors:
    """Align both texts, each normalised by ``audiossm.text.normalise_text``, and count.

    Raises:
        DependencyError: jiwer is not installed.
    """
    require_jiwer()
    import jiwer

    reference, hypothesis = normalise_text(reference), normalise_text(hypothesis)
    if not reference:
        return WordErrors(insertions=len(hypothesis.split()))
    found = jiwer.process_words(reference, hypothesis)
    return WordErrors(
        found.substitutions, found.deletions, found.insertions, len(reference.split())
    )


def require_jiwer() -> None:
    """Raise ``DependencyError`` if jiwer, which aligns the words, is missing."""
    try:
        import jiwer  # noqa: F401  asked for its presence only
    except ImportError as exc:
        raise DependencyError(
            "word errors are counted by jiwer, which is not installed: pip install 'audiossm[eval]'"
        ) from exc
