"""The words that a search may write, as arrays: a language model's, a lexicon's, and hot ones."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from audiossm.decoding.hypotheses import ROOT
from audiossm.decoding.knowledge import Knowledge
from audiossm.decoding.ngram import MARKS, NgramModel
from audiossm.decoding.trie import Trie
from audiossm.decoding.units import Spelling, Units
from audiossm.errors import ConfigError

__all__ = ["add_words", "make_knowledge"]


@cache
def make_knowledge(units: Units, ngrams: NgramModel, *, lm_weight: float, said: float) -> Knowledge:
    """Spell a language model's words, as far as they can be.

    Args:
        units: letters or phones.
        ngrams: language model and lexicon.
        lm_weight: what its log-probabilities are multiplied with.
        said: what log-probabilities of pronunciations are multiplied with.
    """
    num_words = len(MARKS) + len(ngrams.lexicon)
    trie, worths, scores = grow(
        units.spell(ngrams.lexicon), len(MARKS), ngrams.probs[:num_words], lm_weight, said
    )
    return Knowledge(
        first_child=trie.first,
        labels=trie.labels,
        best=trie.best,
        first_word=trie.first_word,
        words=trie.words,
        worths=worths,
        scores=scores,
        most_words=np.diff(trie.first_word).max(initial=1).astype(np.int32),
        num_nodes=np.int32(len(trie)),
        other_root=np.int32(ROOT),
        first_ngram=ngrams.first,
        ngram_words=ngrams.words,
        probs=ngrams.probs,
        backoffs=ngrams.backoffs,
        num_words=np.int32(num_words),
        first_letter=np.zeros(1, np.int32),
        letters=np.zeros(0, np.int32),
        longest=np.int32(0),
    )


def add_words(
    known: Knowledge,
    units: Units,
    words: Mapping[str, Sequence[Spelling]],
    *,
    lm_weight: float,
    new_word: float,
    said: float,
) -> Knowledge:
    """Spell words that the language model lacks in a second tree; their numbers are the next ones.

    Args:
        known: what to add to.
        units: letters or phones.
        words: sorted, and how they are spelled.
        lm_weight: what the language model's log-probabilities are multiplied with.
        new_word: what each word is worth.
        said: what log-probabilities of pronunciations are multiplied with.
    """
    probs = np.full(int(known.num_words) + len(words), new_word / least(lm_weight), np.float32)
    trie, worths, scores = grow(words.values(), int(known.num_words), probs, lm_weight, said)
    # the end of the first tree is a node between the two that nothing leads to
    base, num = len(known.first_child), len(known.words)
    lengths = [len(word) for word in words]
    first_letter_label = units.word_break + 1
    letters = [units.vocabulary.encode(word) for word in words]
    most = np.diff(trie.first_word).max(initial=int(known.most_words))
    return known._replace(
        first_child=_join(known.first_child, trie.first + base),
        labels=_join(known.labels, [-1], trie.labels),
        best=np.concatenate([known.best, [0], trie.best], dtype=np.float32),
        first_word=_join(known.first_word, trie.first_word + num),
        words=_join(known.words, trie.words),
        worths=np.concatenate([known.worths, worths + np.float32(new_word)]),
        scores=np.concatenate([known.scores, scores]),
        most_words=np.int32(most),
        other_root=np.int32(base),
        first_letter=_join([0], np.cumsum(lengths)),
        letters=_join(*letters) + np.int32(first_letter_label),
        longest=np.int32(max(lengths)),
    )


def _join(*parts: Sequence[int] | NDArray[np.int32]) -> NDArray[np.int32]:
    return np.concatenate(parts).astype(np.int32)


def grow(
    ways: Iterable[Sequence[Spelling]],
    first_number: int,
    probs: NDArray[np.float32],
    lm_weight: float,
    said: float,
) -> tuple[Trie, NDArray[np.float32], NDArray[np.float32]]:
    """Return the tree of these words, and of each of its entries what its way is worth; scores."""
    found = sorted(
        (way.labels, number, way.worth)
        for number, row in enumerate(ways, first_number)
        for way in row
    )
    if not found:
        raise ConfigError("no word can be said in the model's phones: beam search needs some")
    numbers = np.array([number for _, number, _ in found], np.int32)
    worths = np.array([worth for _, _, worth in found], np.float32) * np.float32(said)
    scores = probs[numbers] + worths / np.float32(least(lm_weight))
    trie = Trie([labels for labels, _, _ in found], numbers, scores)
    return trie, worths[trie.order], scores[trie.order]


def least(lm_weight: float) -> float:
    """Return a weight that can be divided by."""
    return max(lm_weight, 1e-6)
