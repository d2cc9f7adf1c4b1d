"""Word errors: substitutions, deletions and insertions between a reference and a hypothesis."""

from dataclasses import dataclass

from audiossm.errors import DependencyError
from audiossm.text import normalise_text

__all__ = ["WordErrors", "count_word_errors", "match_words", "require_jiwer"]


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
    def wrong(self) -> int:
        """How many errors there are of all kinds."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Word error rate, a fraction; with an empty reference each insertion counts as 1."""
        return self.wrong / max(self.words, 1)


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


def match_words(reference: str, hypothesis: str) -> tuple[set[int], set[int]]:
    """Return which words of the reference and of the hypothesis are aligned to their like.

    Both texts are normalised and aligned as ``count_word_errors`` does; words count from 0.

    Raises:
        DependencyError: jiwer is not installed.
    """
    require_jiwer()
    import jiwer

    reference, hypothesis = normalise_text(reference), normalise_text(hypothesis)
    said: set[int] = set()
    written: set[int] = set()
    if reference:
        for chunk in jiwer.process_words(reference, hypothesis).alignments[0]:
            if chunk.type == "equal":
                said.update(range(chunk.ref_start_idx, chunk.ref_end_idx))
                written.update(range(chunk.hyp_start_idx, chunk.hyp_end_idx))
    return said, written


def require_jiwer() -> None:
    """Raise ``DependencyError`` if jiwer, which aligns the words, is missing."""
    try:
        import jiwer  # noqa: F401  asked for its presence only
    except ImportError as exc:
        raise DependencyError(
            "word errors are counted by jiwer, which is not installed: pip install 'audiossm[eval]'"
        ) from exc
