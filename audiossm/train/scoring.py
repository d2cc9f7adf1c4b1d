"""Word errors while training, without the evaluation extra."""

from torchaudio.functional import edit_distance

__all__ = ["word_errors"]


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Return (substitutions + deletions + insertions, words of the reference)."""
    words = reference.split()
    return edit_distance(words, hypothesis.split()), len(words)
