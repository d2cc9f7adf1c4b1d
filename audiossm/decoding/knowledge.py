"""What a search knows of words: how they are spelled or said, and n-grams, as arrays, compiled."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiossm.compiled import compiled, entry

__all__ = ["NOTHING", "Knowledge", "find", "likeliest_word", "predict"]

NOTHING = -1  # the number of no node, n-gram or entry

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


class Knowledge(NamedTuple):
    """A ``Trie`` (the first five) and an ``NgramModel``, whose attributes these are, and more.

    A word's number is that of its 1-gram. Other words, which the model knows nothing of, have
    higher ones.
    """

    first_child: Ints
    labels: Ints
    best: Floats
    first_word: Ints
    words: Ints
    worths: Floats  # (words,): of this word in this way, beside what the language model says
    scores: Floats  # (words,): what ``best`` is the highest of
    most_words: np.int32  # that end in one node
    num_nodes: np.int32  # of the first tree: those of a second one follow
    other_root: np.int32  # where the words of a second tree begin, or the first one's root
    first_ngram: Ints
    ngram_words: NDArray[np.uint16]
    probs: Floats
    backoffs: Floats
    num_words: np.int32  # that the language model knows; its marks are words, too
    first_letter: Ints  # (other words + 1,): where its letters are
    letters: Ints
    longest: np.int32  # most letters of another word


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


@entry
def likeliest_word(known: Knowledge, node: int) -> int:
    """Return the number of the likeliest word, in no context, that ends or goes on in a node."""
    while True:
        found = NOTHING
        for at in range(known.first_word[node], known.first_word[node + 1]):
            if found < 0 or known.scores[at] > known.scores[found]:
                found = at
        next_node = NOTHING
        for child in range(known.first_child[node], known.first_child[node + 1]):
            if next_node < 0 or known.best[child] > known.best[next_node]:
                next_node = child
        if found >= 0 and (next_node < 0 or known.scores[found] >= known.best[next_node]):
            return int(known.words[found])
        node = next_node
