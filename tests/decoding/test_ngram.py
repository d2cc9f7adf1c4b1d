"""A language model is packed, read and asked: the numbers stay, to 8 bits."""

import lzma

import numpy as np
import pytest
from numba import njit

from audiossm.decoding import ngram
from audiossm.decoding.entries import make_knowledge
from audiossm.decoding.knowledge import NOTHING, Knowledge, predict
from audiossm.decoding.ngram import (
    DEFAULT_LM,
    MARKS,
    SENTENCE_START,
    NgramModel,
    pack_ngrams,
    shipped_ngrams,
)
from audiossm.errors import ModelError
from audiossm.text import normalise_text
from audiossm.train.kneser_ney import estimate, prune
from heard_frames import LETTERS
from ngram_scores import score_word
from small_ngrams import SENTENCES, make_ngrams, number


@njit
def ask(known, context, word, after):
    return predict(known, context, word, after)


def spell(ngrams: NgramModel) -> Knowledge:
    return make_knowledge(LETTERS, ngrams, lm_weight=1.0, said=0.0)


def score_sentence(ngrams: NgramModel, ids: list[int]) -> list[float]:
    """Score words one after the other, the context handed on as the search does."""
    known = spell(ngrams)
    context = np.array([SENTENCE_START, NOTHING, NOTHING], np.int32)
    found = []
    for word in ids:
        after = np.empty(3, np.int32)
        found.append(float(ask(known, context, word, after)))
        context = after
    return found


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("num_ngrams", [10**9, 12])
def test_the_search_is_told_what_the_book_says(order, num_ngrams):
    ngrams = make_ngrams(SENTENCES, order, num_ngrams)
    rng = np.random.default_rng(order)
    for _ in range(30):
        ids = rng.integers(0, len(ngrams.lexicon) + len(MARKS), 8).tolist()
        history = [SENTENCE_START, *ids]
        expected = [
            score_word(ngrams, history[max(0, at - order + 2) : at + 1], ids[at])
            for at in range(len(ids))
        ]
        assert score_sentence(ngrams, ids) == pytest.approx(expected, abs=1e-4)


def test_numbers_are_kept_to_8_bits():
    words, ids = number(SENTENCES)
    levels = prune(estimate(ids, 4, len(MARKS) + len(words)), 10**9)
    ngrams = NgramModel(pack_ngrams(words, levels), "small")
    exact = np.concatenate([level.probs for level in levels])
    assert np.abs(ngrams.probs - exact).max() <= (exact.max() - exact.min()) / 255 / 2 + 1e-5
    assert ngrams.lexicon == tuple(words) and ngrams.order == 4
    assert np.array_equal(ngrams.words, np.concatenate([level.words for level in levels]))


def test_a_context_may_have_more_ngrams_than_a_byte_counts():
    sentences = tuple(f"the {'abcdefghij'[i % 10]}{'klmnopqrst' [i // 10 % 10]}{'uvwxyz'[i // 100]}"
                      for i in range(600))  # fmt: skip
    ngrams = make_ngrams(sentences, 3)
    the = ngrams.lexicon.index("the") + len(MARKS)
    assert ngrams.first[the + 1] - ngrams.first[the] == 600


def test_the_shipped_model_is_small_and_knows_english():
    ngrams = NgramModel.load()
    assert shipped_ngrams(DEFAULT_LM).stat().st_size < 14.5e6
    assert list(ngrams.lexicon) == sorted(ngrams.lexicon)
    assert all(normalise_text(word) == word for word in ngrams.lexicon)
    index = {word: i for i, word in enumerate(ngrams.lexicon, len(MARKS))}

    def score(text: str) -> float:
        return sum(score_sentence(ngrams, [index[word] for word in text.split()]))

    assert score("put the kettle on the fire") > score("put the cattle on the fire")
    assert score("once upon a time") > score("once up on a time") > score("time a upon once")


def test_the_shipped_model_gives_every_context_one_unit_of_probability():
    ngrams = NgramModel.load()
    index = {word: i for i, word in enumerate(ngrams.lexicon, len(MARKS))}
    known = spell(ngrams)
    context = np.array([SENTENCE_START, NOTHING, NOTHING], np.int32)
    for word in "and it came to pass that".split():
        total = 0.0
        after = np.empty(3, np.int32)
        for other in range(len(MARKS) + len(ngrams.lexicon)):
            total += np.exp(ask(known, context, other, after))
        assert total == pytest.approx(1.0, abs=0.03)  # of 8 bits each
        ask(known, context, index[word], after)
        context = after


def test_it_is_read_once():
    assert NgramModel.load() is NgramModel.load()


@pytest.mark.parametrize("data", [b"", b"junk", lzma.compress(b"junk")])
def test_a_damaged_model_is_refused(tmp_path, monkeypatch, data):
    path = tmp_path / "ngrams.safetensors"
    path.write_bytes(data)
    monkeypatch.setattr(ngram, "shipped_ngrams", lambda name: path)
    with pytest.raises(ModelError, match="can't read this language model"):
        NgramModel.load("damaged")


def test_a_model_cut_short_inside_is_refused(tmp_path, monkeypatch):
    words, ids = number(SENTENCES)
    levels = prune(estimate(ids, 3, len(MARKS) + len(words)), 10**9)
    children = levels[1].children.copy()
    children[children.argmax()] -= 1
    levels[1] = levels[1]._replace(children=children)
    path = tmp_path / "ngrams.safetensors"
    path.write_bytes(pack_ngrams(words, levels))
    monkeypatch.setattr(ngram, "shipped_ngrams", lambda name: path)
    with pytest.raises(ModelError, match="can't read this language model"):
        NgramModel.load("short")
    path.unlink()
    with pytest.raises(ModelError, match="can't read this language model"):
        NgramModel.load("missing")
