"""Kneser-Ney: probabilities sum to one, and are those of the formula."""

import numpy as np
import pytest

from audiossm.decoding.ngram import MARKS, SENTENCE_END, SENTENCE_START
from audiossm.train.kneser_ney import (
    Pruned,
    count_ngrams,
    estimate,
    find_discounts,
    find_gains,
    prune,
)
from small_ngrams import SENTENCES, number

WORDS, IDS = number(SENTENCES)
NUM = len(MARKS) + len(WORDS)


def key(*ids: int) -> int:
    return sum(i << (16 * place) for place, i in enumerate(reversed(ids)))


def ids_of(text: str) -> list[int]:
    marks = {"<s>": SENTENCE_START, "</s>": SENTENCE_END}
    return [marks[w] if w in marks else WORDS.index(w) + len(MARKS) for w in text.split()]


def test_ngrams_are_counted_within_sentences():
    counted = [
        dict(zip(keys.tolist(), counts.tolist(), strict=True))
        for keys, counts in count_ngrams(IDS, 4)
    ]
    assert counted[1][key(*ids_of("on the"))] == 3
    assert counted[2][key(*ids_of("is on the"))] == 2
    assert counted[3][key(*ids_of("<s> a cat sat"))] == 1
    assert key(*ids_of("stove </s>")) in counted[1]
    assert key(SENTENCE_END, SENTENCE_START) not in counted[1]
    assert sum(counted[0].values()) == len(IDS)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_the_words_after_a_context_share_its_probability(order):
    levels = estimate(IDS, order, NUM)
    assert levels[0].probs.sum() == pytest.approx(1.0)
    for level in levels[1:]:
        contexts, at = np.unique(level.keys >> np.uint64(16), return_inverse=True)
        sums = np.bincount(at, level.probs - level.lower)
        # what the discounts freed is what the shorter contexts share out
        assert np.all(sums > 0) and np.all(sums < 1)
        assert np.all(level.probs > level.lower)


@pytest.mark.parametrize("num_ngrams", [10**9, 25, 6])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_every_context_of_what_is_kept_sums_to_one(order, num_ngrams):
    kept = prune(estimate(IDS, order, NUM), num_ngrams)
    keys = [kept[0].words.astype(np.uint64)]
    for shorter, longer in zip(kept, kept[1:], strict=False):
        starts = np.repeat(keys[-1], shorter.children)
        keys.append((starts << np.uint64(16)) | longer.words)
        assert np.all(np.diff(keys[-1].astype(np.int64)) > 0)
    model = Pruned(
        keys,
        [np.exp(level.probs.astype(np.float64)) for level in kept],
        [np.exp(level.backoffs.astype(np.float64)) for level in kept],
    )
    words = np.arange(NUM, dtype=np.uint64)
    for size in range(2, len(keys) + 1):
        for context in np.unique(np.concatenate([keys[size - 2], keys[size - 1] >> np.uint64(16)])):
            total = model.predict(size, (context << np.uint64(16)) | words).sum()
            assert total == pytest.approx(1.0, abs=1e-3)


def test_a_smaller_model_keeps_what_tells_most():
    levels = estimate(IDS, 3, NUM)
    sizes = [sum(len(level.words) for level in prune(levels, n)[1:]) for n in (5, 20, 10**9)]
    assert 5 <= sizes[0] < sizes[1] < sizes[2]
    assert len(prune(levels, 5)[0].words) == NUM


def test_rare_ngrams_count_though_they_are_not_listed():
    everything, common = estimate(IDS, 4, NUM), estimate(IDS, 4, NUM, least=2)
    for size, (level, part) in enumerate(zip(everything, common, strict=True), 1):
        listed = level.raw >= 2 if size > 2 else np.ones(len(level.keys), bool)
        assert 0 < listed.sum() == len(part.keys)
        assert np.array_equal(level.keys[listed], part.keys)
        assert np.array_equal(level.probs[listed], part.probs)


def test_the_gain_of_an_ngram_is_what_the_text_loses_without_it():
    levels = estimate(IDS, 2, NUM)
    unigrams, bigrams = levels
    gains = find_gains(2, unigrams, bigrams)
    # a bigram less, its context's weight set anew: expected log-probability after that context
    for at in (0, 5, len(gains) - 1):
        context = bigrams.keys[at] >> np.uint64(16)
        dense = []
        for dropped in (-1, at):
            own = (bigrams.keys >> np.uint64(16) == context) & (np.arange(len(gains)) != dropped)
            probs = unigrams.probs.astype(np.float64)
            listed = (bigrams.keys[own] & np.uint64(0xFFFF)).astype(int)
            rest = np.ones(NUM, bool)
            rest[listed] = False
            probs[rest] *= (1 - bigrams.probs[own].sum()) / probs[rest].sum()
            probs[listed] = bigrams.probs[own]
            assert probs.sum() == pytest.approx(1.0, abs=1e-5)
            dense.append(probs)
        times = unigrams.raw[int(context)]
        loss = times * np.sum(dense[0] * np.log(dense[0] / dense[1]))
        assert gains[at] == pytest.approx(loss, rel=1e-3, abs=1e-4)


def test_discounts_are_those_of_counts_of_counts():
    counts = np.repeat([1, 2, 3, 4], [40, 16, 9, 6])
    y = 40 / 72
    expected = [0, 1 - 2 * y * 16 / 40, 2 - 3 * y * 9 / 16, 3 - 4 * y * 6 / 9]
    assert find_discounts(counts) == pytest.approx(expected)
    assert find_discounts(np.array([1, 1, 2])) == pytest.approx([0, 0.5, 0.5, 0.5])


def test_a_bigram_is_what_the_formula_says():
    # "a b" twice and "a c" once; discounts of a half, as counts of 3 and 4 are missing
    a, b, c = 3, 4, 5
    ids = np.array([1, a, b, 2, 1, a, b, 2, 1, a, c, 2], np.uint16)
    levels = estimate(ids, 2, 6)
    bigrams = dict(zip(levels[1].keys.tolist(), levels[1].probs.tolist(), strict=True))
    # kinds of bigram that end in a, b, c, </s>: 1, 1, 1, 2; four words give away a half each
    unigram_b = (1 - 0.5) / 5 + (4 * 0.5 / 5) / 6
    assert levels[0].probs[b] == pytest.approx(unigram_b)
    assert bigrams[key(a, b)] == pytest.approx((2 - 0.5) / 3 + (2 * 0.5 / 3) * unigram_b)
