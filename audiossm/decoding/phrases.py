"""Phrases that a search writes more readily: an automaton in arrays, compiled.

Contextual biasing by shallow fusion: a phrase is worth a bonus, which is given when its last word
ends. Before that it is only looked ahead to when hypotheses are compared: this comes to the same as
a bonus for each matched prefix, taken back where the phrase isn't completed (Williams et al.,
"Contextual speech recognition in end-to-end neural network systems using beam search", Interspeech
2018; Zhao et al., "Shallow-fusion end-to-end contextual biasing", Interspeech 2019), but sums stay
exact. A prefix that fails goes on as its longest end that begins with a word (Aho and Corasick,
1975).
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiossm.compiled import compiled
from audiossm.decoding.hypotheses import DEAD, ROOT
from audiossm.decoding.knowledge import NOTHING, find
from audiossm.decoding.ngram import MARKS, NgramModel
from audiossm.decoding.trie import Trie
from audiossm.decoding.units import Spelling, Units
from audiossm.hotwords import HotWord

__all__ = ["Phrases", "make_phrases", "walk"]

MAX_WAYS = 16  # to say a phrase

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


class Phrases(NamedTuple):
    """A ``Trie`` of the phrases' letters and word breaks; node 0 is before a phrase's first word.

    Of phones rather: what ends a word is then the number after the last label, plus the word's.

    The last three are log-probabilities, or tell, of the word in progress in that node.
    """

    first_child: Ints  # (nodes + 1,)
    labels: Ints  # (nodes,)
    fallback: Ints  # (nodes,): the node to go on from where no child fits, or NOTHING
    ahead: Floats  # (nodes,): what the word in progress, and its phrase, may be worth
    gain: Floats  # (nodes,): the bonus of the phrase that ends where its last word is told, or 0
    is_new: NDArray[np.uint8]  # (nodes,): this is a whole word that the lexicon lacks


NO_PHRASES = Phrases(
    first_child=np.ones(2, np.int32),
    labels=np.full(1, NOTHING, np.int32),
    fallback=np.full(1, NOTHING, np.int32),
    ahead=np.zeros(1, np.float32),
    gain=np.zeros(1, np.float32),
    is_new=np.zeros(1, np.uint8),
)


@compiled
def walk(phrases: Phrases, node: int, label: int, ends: bool) -> int:
    """Return the node after a label, which may end a word.

    ``NOTHING`` is inside a word that no phrase goes on with.
    """
    while node >= 0:
        low, high = phrases.first_child[node], phrases.first_child[node + 1]
        child = find(phrases.labels, low, high, label)
        if child >= 0:
            return child
        node = phrases.fallback[node]
    return ROOT if ends else NOTHING


def make_phrases(
    hotwords: Sequence[HotWord],
    units: Units,
    ngrams: NgramModel,
    ways: Mapping[str, Sequence[Spelling]],
    numbers: Mapping[str, int],
    *,
    lm_weight: float,
    new_word: float,
    bonus: float,
    letter_bonus: float,
) -> Phrases:
    """Spell hot words in letters or phones.

    Args:
        hotwords: in plain letters, sorted, no two alike.
        units: what the search hears.
        ngrams: language model and lexicon.
        ways: how their words are spelled.
        numbers: of these words, where labels don't tell them.
        lm_weight: what its log-probabilities are multiplied with.
        new_word: what a word that the lexicon lacks is worth.
        bonus: of a rare word in a phrase of weight 1; a common word gets less.
        letter_bonus: and of each of its letters or phones, said in the shortest way.
    """
    if not hotwords:
        return NO_PHRASES
    parts = {part for word in hotwords for part in word.phrase.split()}
    scores = {part: _score_word(part, ngrams, lm_weight) for part in parts}
    sizes = {part: min(len(way.labels) for way in ways[part]) for part in parts}
    full = {part: max(bonus + letter_bonus * sizes[part], 0.0) for part in parts}
    bonuses = [
        word.weight * sum(_find_bonus(scores[part], full[part]) for part in word.phrase.split())
        for word in hotwords
    ]
    rows = sorted(
        (tuple(label for labels, _ in row for label in labels), number, row)
        for number, word in enumerate(hotwords)
        for row in _list_rows(word.phrase.split(), ways, units, numbers)
    )
    if not rows:
        return NO_PHRASES
    ids = np.array([number for _, number, _ in rows], np.int32)
    trie = Trie([spelling for spelling, *_ in rows], ids, np.zeros(len(rows), np.float32))
    gain = np.zeros(len(trie), np.float32)
    ahead = np.full(len(trie), DEAD, np.float32)
    is_new = np.zeros(len(trie), np.uint8)
    for spelling, number, row in rows:
        node, given, heard = ROOT, 0.0, 0

        def give(node: int, given: float) -> float:
            """Note what is worth here, if a phrase ends; return what was given so far."""
            for entry in range(trie.first_word[node], trie.first_word[node + 1]):
                # what a phrase is worth that this one begins with isn't given twice
                whole = bonuses[trie.words[entry]]
                gain[node] = max(whole - given, 0.0)
                given = max(given, whole)
            return given

        for labels, part in row:
            score = scores[part] if part else 0.0
            part_worth = new_word if score is None else score
            for label in labels:
                node, heard = _child(trie, node, label), heard + 1
                given = given if part else give(node, given)
                pending = max(bonuses[number] - given, 0.0) * heard / len(spelling)
                ahead[node] = max(ahead[node], part_worth + pending)
            if part:
                is_new[node] |= units.spells and score is None
                given = give(node, given)
    fallback = _find_fallbacks(trie, units.word_break, units.spells)
    for node in range(1, len(trie)):  # those of a node have lower numbers
        shorter = fallback[node]
        if shorter > ROOT:
            gain[node] = max(gain[node], gain[shorter])
            ahead[node] = max(ahead[node], ahead[shorter])
            is_new[node] |= is_new[shorter]
    return Phrases(trie.first, trie.labels, fallback, ahead, gain, is_new)


def _list_rows(
    parts: Sequence[str],
    ways: Mapping[str, Sequence[Spelling]],
    units: Units,
    numbers: Mapping[str, int],
) -> Iterator[tuple[tuple[tuple[int, ...], str], ...]]:
    """Yield the ways to spell a phrase: each word's labels with it, and what ends it without.

    Where labels don't tell the words, what ends one does, and the last one has such a label, too.
    """
    for choice in islice(product(*(ways[part] for part in parts)), MAX_WAYS):
        row = []
        for part, way in zip(parts, choice, strict=True):
            ender = units.word_break + (0 if units.spells else numbers[part])
            row += [(way.labels, part), ((ender,), "")]
        yield tuple(row[:-1] if units.spells else row)


def _child(trie: Trie, node: int, label: int) -> int:
    """Return the child that is there."""
    low, high = trie.first[node], trie.first[node + 1]
    return int(low + np.searchsorted(trie.labels[low:high], label))


def _score_word(word: str, ngrams: NgramModel, lm_weight: float) -> float | None:
    """Return what the language model says of a word in no context; None outside the lexicon."""
    at = bisect_left(ngrams.lexicon, word)
    is_known = at < len(ngrams.lexicon) and ngrams.lexicon[at] == word
    return lm_weight * float(ngrams.probs[len(MARKS) + at]) if is_known else None


def _find_bonus(score: float | None, full: float) -> float:
    """Return the bonus of a word: at most what makes a known one certain, in no context."""
    return full if score is None else min(-score, full)


def _find_fallbacks(trie: Trie, word_break: int, spells: bool) -> Ints:
    """Return for each node the longest end of its prefix that begins with one of its later words.

    That is a node, the root if the next word may begin a phrase, or ``NOTHING`` inside a word.
    """
    children: dict[tuple[int, int], int] = {}
    fallback = np.full(len(trie), NOTHING, np.int32)
    for node in range(len(trie)):
        for child in range(trie.first[node], trie.first[node + 1]):
            label = int(trie.labels[child])
            children[node, label] = child
            if node == ROOT:
                continue
            at = int(fallback[node])
            while at >= 0 and (at, label) not in children:
                at = int(fallback[at])
            ends = label == word_break if spells else label >= word_break
            otherwise = ROOT if ends else NOTHING
            fallback[child] = children[at, label] if at >= 0 else otherwise
    return fallback
