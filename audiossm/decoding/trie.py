"""The spellings of a lexicon as a tree in arrays."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

__all__ = ["Trie"]


class Trie:
    """Nodes are prefixes of spellings, level by level; node 0 is the empty one.

    The nodes that go on from node ``n`` are ``first[n]`` to ``first[n + 1]``, sorted by ``labels``.
    The words that it ends are number ``first_word[n]`` to ``first_word[n + 1]`` of ``words``, and
    ``order`` tells for each of these which spelling it came from.

    Args:
        spellings: label ids of each word, none empty, sorted; some may be alike.
        word_ids: the number of each word.
        scores: of each word; a node's ``best`` is the highest at or below it.
    """

    def __init__(
        self,
        spellings: Sequence[Sequence[int]],
        word_ids: NDArray[np.int32],
        scores: NDArray[np.float32],
    ) -> None:
        num_words = len(spellings)
        lengths = np.fromiter(map(len, spellings), np.int64, num_words)
        longest = int(lengths.max(initial=0))
        letters = np.full((num_words, longest + 1), -1, np.int32)
        flat = np.fromiter(chain.from_iterable(spellings), np.int32, int(lengths.sum()))
        letters[np.arange(longest + 1) < lengths[:, None]] = flat
        labels = [np.array([-1], np.int32)]
        ends = [np.zeros(1, np.int64)]
        order = []
        best = [scores.max(initial=-np.inf, keepdims=True)]
        counts: list[NDArray[np.int64]] = []
        node = np.zeros(num_words, np.int64)  # of each word's prefix, within its level
        is_new = np.zeros(num_words, bool)
        inside = np.arange(num_words)
        for depth in range(longest):
            inside = inside[lengths[inside] > depth]
            column = letters[inside, depth]
            # a prefix is new where it or a shorter one differs from the word's before
            is_new = np.ones(len(inside), bool)
            parents = node[inside]
            is_new[1:] = (column[1:] != column[:-1]) | (parents[1:] != parents[:-1])
            heads = np.flatnonzero(is_new)
            counts.append(np.bincount(parents[heads], minlength=len(labels[-1])))
            node[inside] = np.cumsum(is_new) - 1
            labels.append(column[heads])
            best.append(np.maximum.reduceat(scores[inside], heads))
            ending = inside[lengths[inside] == depth + 1]
            ends.append(np.bincount(node[ending], minlength=len(heads)))
            order.append(ending)
        counts.append(np.zeros(len(labels[-1]), np.int64))
        self.labels = np.concatenate(labels).astype(np.int32)
        self.best = np.concatenate(best).astype(np.float32)
        sizes = np.concatenate(counts)
        self.first = (1 + np.concatenate([[0], np.cumsum(sizes)])).astype(np.int32)
        self.order = np.concatenate([np.zeros(0, np.int64), *order])
        self.words = word_ids[self.order]
        self.first_word = np.concatenate([[0], np.cumsum(np.concatenate(ends))]).astype(np.int32)

    def __len__(self) -> int:
        return len(self.labels)
