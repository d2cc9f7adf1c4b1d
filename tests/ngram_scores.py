"""A word's log-probability by the book: the longest n-gram that is listed, else back off."""

from collections.abc import Sequence

from audiossm.decoding.ngram import NgramModel


def find_ngram(ngrams: NgramModel, ids: Sequence[int]) -> int | None:
    """Return the number of an n-gram, one word after the other."""
    at = ids[0]
    for word in ids[1:]:
        if at >= len(ngrams.first) - 1:
            return None
        children = range(ngrams.first[at], ngrams.first[at + 1])
        at = next((n for n in children if ngrams.words[n] == word), -1)
        if at < 0:
            return None
    return at


def score_word(ngrams: NgramModel, context: Sequence[int], word: int) -> float:
    """Return log P(word | context)."""
    at = find_ngram(ngrams, [*context, word])
    if at is not None:
        return float(ngrams.probs[at])
    own = find_ngram(ngrams, context)
    backoff = 0.0 if own is None or own >= len(ngrams.backoffs) else float(ngrams.backoffs[own])
    return backoff + score_word(ngrams, context[1:], word)
