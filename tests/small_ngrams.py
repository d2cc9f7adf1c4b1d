"""A language model of a handful of sentences, for tests."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from audiossm.decoding.ngram import (
    MARKS,
    SENTENCE_END,
    SENTENCE_START,
    UNKNOWN,
    NgramModel,
    pack_ngrams,
)
from audiossm.train.kneser_ney import estimate, prune

SENTENCES = (
    "the kettle is on the stove",
    "a cat sat on the mat",
    "the cat is on the mat",
    "a hat is a hat",
    "the battle is on",
    "she sat on a cattle cart",
)


def number(sentences: Sequence[str]) -> tuple[list[str], NDArray[np.uint16]]:
    """Return the words, sorted, and the sentences as ids between their marks."""
    words = sorted({word for sentence in sentences for word in sentence.split()})
    index = {word: i for i, word in enumerate(words, len(MARKS))}
    ids = [
        i
        for sentence in sentences
        for i in (
            SENTENCE_START,
            *(index.get(word, UNKNOWN) for word in sentence.split()),
            SENTENCE_END,
        )
    ]
    return words, np.array(ids, np.uint16)


@cache
def make_ngrams(
    sentences: tuple[str, ...] = SENTENCES, order: int = 4, num_ngrams: int = 10**9
) -> NgramModel:
    """Estimate and pack a model, and read it as a shipped one is read."""
    words, ids = number(sentences)
    levels = prune(estimate(ids, order, len(MARKS) + len(words)), num_ngrams)
    return NgramModel(pack_ngrams(words, levels), "small")
