"""Interpolated modified Kneser-Ney estimation of word n-grams (Chen and Goodman, 1998)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiossm.decoding.ngram import SENTENCE_START, Level

__all__ = ["Counted", "count_ngrams", "estimate", "prune"]

BITS = np.uint64(16)  # a word id; an n-gram of up to four is one uint64, its first word on top
WORD = np.uint64((1 << 16) - 1)
MAX_ORDER = 4
LEAST_MASS = 1e-4  # of probability that a context leaves to its shorter one

Keys = NDArray[np.uint64]
Counts = NDArray[np.int32]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Counted:
    """The n-grams of one order, sorted, and what is estimated of each."""

    keys: Keys
    raw: Counts  # times seen
    probs: Floats  # of its last word after the others, interpolated
    lower: Floats  # what the shorter contexts alone give it: the part that is interpolated


def count_ngrams(ids: NDArray[np.uint16], order: int) -> list[tuple[Keys, Counts]]:
    """Count the n-grams of orders 1 to ``order``; none goes from one sentence into the next.

    Args:
        ids: sentences one after the other, each from ``SENTENCE_START`` to its end mark.
        order: 2 to 4.
    """
    keys = ids.astype(np.uint64)
    found = [count_equal(keys.copy())]
    whole = np.ones(len(ids), bool)
    for size in range(2, order + 1):
        follower = ids[size - 1 :]
        keys = (keys[:-1] << BITS) | follower
        whole = whole[:-1] & (follower != SENTENCE_START)
        found.append(count_equal(keys[whole]))
    return found


def count_equal(keys: Keys) -> tuple[Keys, Counts]:
    """Sort keys in place; return the different ones, and how often each is there."""
    keys.sort()
    first = np.flatnonzero(np.diff(keys, prepend=~keys[:1]))
    return keys[first], np.diff(first, append=len(keys)).astype(np.int32)


def estimate(
    ids: NDArray[np.uint16], order: int, num_words: int, *, least: int = 1
) -> list[Counted]:
    """Estimate all n-grams of orders 1 to ``order``.

    Args:
        ids: as ``count_ngrams`` takes them.
        order: 2 to 4.
        num_words: ids are below it; each has a probability, seen or not.
        least: n-grams of three and four words that were seen less often count, but aren't listed.
    """
    raw = count_ngrams(ids, order)
    # every word is listed, also one that is only ever predicted by the uniform distribution
    all_words = np.arange(num_words, dtype=np.uint64)
    seen = np.zeros(num_words, np.int32)
    seen[raw[0][0].astype(np.int64)] = raw[0][1]
    raw[0] = all_words, seen
    levels: list[Counted] = []
    for size in range(1, order + 1):
        keys, times = raw[size - 1]
        counts = times
        if size < order:
            suffixes = raw[size][0] & suffix_mask(size)
            befores = np.bincount(np.searchsorted(keys, suffixes), minlength=len(keys))
            # nothing stands before the start of a sentence: there, times seen are what is known
            starts = keys >> (BITS * np.uint64(size - 1)) == SENTENCE_START
            counts = np.where(starts if size > 1 else False, times, befores)
        own, freed = discount(keys, counts)
        if size > 2 and least > 1:
            # what follows such an n-gram, or precedes it, is no commoner: nothing asks for it
            listed = times >= least
            keys, times, own, freed = keys[listed], times[listed], own[listed], freed[listed]
        if size == 1:
            lower = np.full(num_words, 1.0 / num_words, np.float32)
        else:
            lower = levels[-1].probs[np.searchsorted(levels[-1].keys, keys & suffix_mask(size - 1))]
        share = freed * lower
        levels.append(Counted(keys, times, own + share, share))
    return levels


def discount(keys: Keys, counts: NDArray[np.integer]) -> tuple[Floats, Floats]:
    """Return each n-gram's discounted frequency, and what its context leaves to shorter ones."""
    discounts = find_discounts(counts)[np.minimum(counts, 3)].astype(np.float32)
    first = np.flatnonzero(np.diff(keys >> BITS, prepend=~np.uint64(0)))
    sizes = np.diff(first, append=len(keys))
    totals = np.add.reduceat(counts, first, dtype=np.int64)
    freed = (np.add.reduceat(discounts, first, dtype=np.float64) / totals).astype(np.float32)
    kept = (counts - discounts) / np.repeat(totals.astype(np.float32), sizes)
    return kept, np.repeat(freed, sizes)


def find_discounts(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return what is taken from a count of 0, 1, 2, and 3 or more."""
    n = np.bincount(np.minimum(counts, 5), minlength=6)[:5].astype(np.float64)
    if not n[1:].all():  # a text so small that the formula has no value
        return np.array([0.0, 0.5, 0.5, 0.5])
    y = n[1] / (n[1] + 2 * n[2])
    found = np.array([0.0, *(k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3))])
    limited: NDArray[np.float64] = np.clip(found, [0.0, 0.1, 0.1, 0.1], [0.0, 0.99, 1.9, 2.9])
    return limited


def suffix_mask(size: int) -> np.uint64:
    """Return the bits of an n-gram's last ``size`` words."""
    return np.uint64((1 << (16 * size)) - 1)


def prune(levels: Sequence[Counted], num_ngrams: int) -> list[Level]:
    """Keep all words and about ``num_ngrams`` longer n-grams: those that change the text most.

    An n-gram's gain is the log-probability that the text loses without it, its context's weight
    of shorter ones set anew (relative entropy, Stolcke, 1998). The prefixes of what is kept are
    kept.
    """
    gains = [find_gains(size, *pair) for size, pair in enumerate(pairwise(levels), 2)]
    everything = np.concatenate(gains)
    least = -np.inf
    if num_ngrams < len(everything):
        least = np.partition(everything, len(everything) - num_ngrams)[-num_ngrams]
    kept = [np.ones(len(levels[0].keys), bool), *(gain >= least for gain in gains)]
    for size in range(len(levels), 2, -1):
        prefixes = levels[size - 1].keys[kept[size - 1]] >> BITS
        kept[size - 2][np.searchsorted(levels[size - 2].keys, prefixes)] = True
    while len(kept) > 1 and not kept[-1].any():
        kept.pop()
    levels = levels[: len(kept)]
    keys = [level.keys[keep] for level, keep in zip(levels, kept, strict=True)]
    probs = [level.probs[keep] for level, keep in zip(levels, kept, strict=True)]
    model = Pruned(keys, probs, [np.ones(len(part)) for part in keys])
    found = []
    for size in range(1, len(levels) + 1):
        children = np.zeros(len(keys[size - 1]), np.int64)
        if size < len(levels):
            model.backoffs[size - 1], children = model.back_off(size)
        found.append(
            Level(
                (keys[size - 1] & WORD).astype(np.uint16),
                np.log(probs[size - 1]).astype(np.float32),
                np.log(model.backoffs[size - 1]).astype(np.float32),
                children.astype(np.int32),
            )
        )
    return found


def find_gains(size: int, shorter: Counted, level: Counted) -> Floats:
    """Return the log-probability that the text has by each n-gram of ``size`` words."""
    at = np.searchsorted(shorter.keys, level.keys & suffix_mask(size - 1))
    probs, lower = level.probs, shorter.probs[at]
    context = level.keys >> BITS
    first = np.flatnonzero(np.diff(context, prepend=~np.uint64(0)))
    sizes = np.diff(first, append=len(context))
    left = np.maximum(1 - np.add.reduceat(probs, first, dtype=np.float64), LEAST_MASS)
    given = np.maximum(1 - np.add.reduceat(lower, first, dtype=np.float64), LEAST_MASS)
    times = shorter.raw[np.searchsorted(shorter.keys, context[first])]
    left, given, times = (
        np.repeat(part.astype(np.float32), sizes) for part in (left, given, times)
    )
    weight = np.log(left / given)
    without = np.log((left + probs) / (given + lower))
    gains: Floats = times * (probs * (np.log(probs / lower) - without) - left * (without - weight))
    return gains


@dataclass
class Pruned:
    """Kept n-grams of each order, with the weights by which contexts fall back to shorter ones."""

    keys: list[Keys]
    probs: list[Floats]
    backoffs: list[Floats]

    def predict(self, size: int, keys: Keys) -> Floats:
        """Return the probability of each n-gram's last word, falling back where it must."""
        known, at = self.find(size, keys)
        if known.all():
            return self.probs[size - 1][at]
        found = np.where(known, self.probs[size - 1][at], 0.0)
        missing = keys[~known]
        has_context, context = self.find(size - 1, missing >> BITS)
        weight = np.where(has_context, self.backoffs[size - 2][context], 1.0)
        found[~known] = weight * self.predict(size - 1, missing & suffix_mask(size - 1))
        return found

    def find(self, size: int, keys: Keys) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Return which keys of an order are kept, and where."""
        at = np.searchsorted(self.keys[size - 1], keys)
        at = np.minimum(at, len(self.keys[size - 1]) - 1)
        return self.keys[size - 1][at] == keys, at

    def back_off(self, size: int) -> tuple[Floats, NDArray[np.int64]]:
        """Return the weight of each context of ``size`` words, and how many n-grams it has."""
        longer = self.keys[size]
        _, context = self.find(size, longer >> BITS)
        num = len(self.keys[size - 1])
        taken = np.bincount(context, self.probs[size], minlength=num)
        lower = self.predict(size, longer & suffix_mask(size))
        given = np.bincount(context, lower, minlength=num)
        weights = np.maximum(1 - taken, LEAST_MASS) / np.maximum(1 - given, LEAST_MASS)
        return weights, np.bincount(context, minlength=num)
