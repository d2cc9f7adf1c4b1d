"""A trie holds its words, and no others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiossm.decoding.trie import Trie

spellings = st.lists(
    st.lists(st.integers(2, 5), min_size=1, max_size=6).map(tuple), min_size=1, unique=True
).map(sorted)


def walk(trie: Trie, node: int = 0, letters: tuple[int, ...] = ()) -> dict[tuple[int, ...], int]:
    """Return every node that ends a word, by its letters."""
    found = {letters: node} if trie.first_word[node] < trie.first_word[node + 1] else {}
    for child in range(trie.first[node], trie.first[node + 1]):
        found |= walk(trie, child, (*letters, int(trie.labels[child])))
    return found


@given(words=spellings)
def test_its_words_are_the_lexicon(words):
    ids = np.arange(3, 3 + len(words), dtype=np.int32)
    trie = Trie(words, ids, np.zeros(len(words), np.float32))
    ends = walk(trie)
    found = {letters: int(trie.words[trie.first_word[node]]) for letters, node in ends.items()}
    assert found == dict(zip(words, ids.tolist(), strict=True))


@given(words=spellings, data=st.data())
def test_words_may_be_spelled_alike(words, data):
    times = data.draw(st.lists(st.integers(1, 3), min_size=len(words), max_size=len(words)))
    rows = [word for word, number in zip(words, times, strict=True) for _ in range(number)]
    trie = Trie(rows, np.arange(len(rows), dtype=np.int32), np.zeros(len(rows), np.float32))
    for letters, node in walk(trie).items():
        entries = slice(trie.first_word[node], trie.first_word[node + 1])
        expected = [at for at, row in enumerate(rows) if row == letters]
        assert trie.words[entries].tolist() == trie.order[entries].tolist() == expected


@given(words=spellings)
def test_children_are_sorted_and_each_prefix_is_one_node(words):
    trie = Trie(words, np.arange(len(words), dtype=np.int32), np.zeros(len(words), np.float32))
    prefixes = {word[:size] for word in words for size in range(len(word) + 1)}
    assert len(trie) == len(prefixes) == len(trie.first) - 1
    assert trie.first[-1] == len(trie)
    for node in range(len(trie)):
        labels = trie.labels[trie.first[node] : trie.first[node + 1]]
        assert np.all(np.diff(labels) > 0)


@given(words=spellings, data=st.data())
def test_a_node_knows_the_best_word_below_it(words, data):
    scores = data.draw(
        st.lists(st.floats(-9, 0, width=32), min_size=len(words), max_size=len(words))
    )
    trie = Trie(words, np.arange(len(words), dtype=np.int32), np.array(scores, np.float32))
    by_node = walk(trie)
    for node in range(len(trie)):
        below = [node]
        for n in below:
            below += range(trie.first[n], trie.first[n + 1])
        best = max(
            score for word, score in zip(words, scores, strict=True) if by_node[word] in below
        )
        assert trie.best[node] == pytest.approx(best)
