"""What a search knows of words: their spellings and n-grams as arrays, compiled."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiossm.decoding.compiled import compiled

__all__ = ["NOTHING", "Knowledge", "find", "predict"]

NOTHING = -1  # the number of no node, n-gram or entry

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


class Knowledge(NamedTuple):
    """A ``Trie`` (the first four) and an ``NgramModel``, whose attributes these are."""

    first_child: Ints
    labels: Ints
    words: Ints
    best: Floats
    first_ngram: Ints
    ngram_words: NDArray[np.uint16]
    probs: Floats
    backoffs: Floats


@compiled
def find(keys: NDArray[Any], low: int, high: int, key: int) -> int:
    """Return where a key stands in a sorted range, or ``NOTHING``."""
    end = high
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low if low < end and keys[low] == key else NOTHING


@compiled
def predict(known: Knowledge, context: Ints, word: int, after: Ints) -> np.float32:
    """Return a word's log-probability after a context; write the context after it."""
    score, is_found = np.float32(0.0), False
    after[0] = word
    for size in (2, 1, 0):
        ngram = context[size]
        longer = NOTHING
        if ngram >= 0:
            low, high = known.first_ngram[ngram], known.first_ngram[ngram + 1]
            longer = find(known.ngram_words, low, high, word)
            if longer >= 0 and not is_found:
                score += known.probs[longer]
                is_found = True
            elif not is_found:
                score += known.backoffs[ngram]
        if size < 2:
            after[size + 1] = longer
    if not is_found:
        score += known.probs[word]
    num_contexts = len(known.first_ngram) - 1
    for size in range(3):
        ngram = after[size]
        # one that nothing follows tells nothing
        if ngram >= num_contexts or (
            ngram >= 0 and known.first_ngram[ngram] == known.first_ngram[ngram + 1]
        ):
            after[size] = NOTHING
    return score
