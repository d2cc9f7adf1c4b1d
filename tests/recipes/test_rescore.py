"""Ordering a beam's readings anew: the n-grams' scores, and weights that were chosen elsewhere."""

from types import ModuleType

import numpy as np
import pytest

import ngram_scores
from audiossm.decoding.ngram import MARKS, SENTENCE_END, SENTENCE_START
from recipe_run import load_recipe
from small_ngrams import make_ngrams


class Fixed:
    """A text model that likes short sentences and "cat"."""

    def score(self, texts):
        return [[2.0 * (word == "cat") - 1.0 for word in text.split()] + [0.0] for text in texts]


@pytest.fixture
def recipe() -> ModuleType:
    return load_recipe("lm", "rescore")


def test_the_n_grams_scores_are_those_of_the_book(recipe):
    ngrams = make_ngrams()
    words = "the cat sat on a hat".split()
    ids = [SENTENCE_START, *(len(MARKS) + ngrams.lexicon.index(w) for w in words), SENTENCE_END]
    expected = [
        ngram_scores.score_word(ngrams, ids[max(at - 3, 0) : at], ids[at])
        for at in range(1, len(ids))
    ]
    assert recipe.score_words(ngrams, words) == pytest.approx(expected)


def test_readings_are_ordered_by_weights_that_other_utterances_chose(recipe):
    ngrams = make_ngrams()
    # the text model is right here, the beam wasn't
    readings = [["the hat is on the mat", -0.1], ["the cat is on the mat", -0.9]]
    lists = [{"text": "the cat is on the mat", "readings": readings} for _ in range(4)]
    found = recipe.order(lists, Fixed(), ngrams)
    assert found["beam"] == pytest.approx(1 / 6, abs=1e-3)
    assert found["best_in_list"] == found["neural_added"] == found["both"] == 0.0
    # what helps one half and harms the other is no gain
    lists[1::2] = [{"text": "the hat is on the mat", "readings": readings} for _ in range(2)]
    assert recipe.order(lists, Fixed(), ngrams)["neural_added"] > 0.0


def test_perplexity_counts_the_words_that_both_know(recipe):
    ngrams, texts = make_ngrams(), ["the cat zebra", "a hat"]
    found = recipe.perplexity(texts, Fixed(), ngrams)
    assert found["left_out"] == 1 and found["events"] == 6
    neural, counts = (
        np.exp(np.delete(np.concatenate(scores), 2))  # all but the zebra
        for scores in (Fixed().score(texts), [recipe.score_words(ngrams, t.split()) for t in texts])
    )
    for name, probs in (("neural", neural), ("ngrams", counts), ("mean", (neural + counts) / 2)):
        assert found[name] == pytest.approx(np.prod(probs) ** (-1 / 6), abs=0.01)
