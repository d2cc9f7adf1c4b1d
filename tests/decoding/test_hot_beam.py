"""Beam search with hot words: worth what the formula says, in any pieces, changed at any time."""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.compiled import entry
from audiossm.decoding import GreedyDecoder
from audiossm.decoding.beam import BeamConfig, BeamDecoder
from audiossm.decoding.hypotheses import PHRASE
from audiossm.decoding.ngram import SENTENCE_START, UNKNOWN
from audiossm.decoding.phrases import Phrases, make_phrases, walk
from audiossm.decoding.units import spell_parts
from audiossm.errors import ConfigError
from audiossm.hotwords import HotWord, check_hotwords
from audiossm.text import CHARACTERS
from heard_frames import (
    LABELS,
    LETTERS,
    RICH,
    VOCABULARY,
    Found,
    assert_pieces_are_one,
    decode,
    equal,
    hear,
    make_noise,
    text_of,
)
from ngram_scores import score_word
from small_ngrams import make_ngrams

# a language model of six sentences has no improbable words: only new ones get a bonus
CONFIG = BeamConfig(new_word=-9.0, hot=12.0, hot_letter=0.0)
HOT = ("hettle", "cat", "the battle is", "sat on", "on a hat", "zyx", "zyx cat")

few = settings(max_examples=20, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def plain() -> BeamDecoder:
    return BeamDecoder(LETTERS, make_ngrams(), CONFIG)


@pytest.fixture(scope="module")
def biased(plain) -> BeamDecoder:
    return plain.with_hotwords(check_hotwords(HOT))


def spell(*hotwords: str | HotWord, bonus: float = 3.0) -> Phrases:
    checked = check_hotwords(hotwords)
    return make_phrases(
        checked,
        LETTERS,
        make_ngrams(),
        spell_parts(LETTERS, checked),
        {},
        lm_weight=1.0,
        new_word=-7.0,
        bonus=bonus,
        letter_bonus=0.5,
    )


@entry
def walk_along(phrases: Phrases, labels: np.ndarray, word_break: int, nodes: np.ndarray) -> None:
    node = 0
    for i in range(len(labels)):
        node = walk(phrases, node, labels[i], labels[i] == word_break)
        nodes[i] = node


@few
@given(text=st.lists(st.sampled_from(["a", "b", "ab", "ba"]), max_size=8).map(" ".join))
def test_a_node_is_the_longest_prefix_that_begins_with_a_word(text):
    hotwords = ["a b", "b ab a", "ab", "b a", "ab ab b"]
    phrases = spell(*hotwords)
    # every prefix of a phrase, by its node
    prefixes = {phrase[:end] for phrase in hotwords for end in range(len(phrase) + 1)}
    labels = np.array(VOCABULARY.encode(text), np.int32)
    nodes = np.zeros(len(labels), np.int64)
    walk_along(phrases, labels, VOCABULARY.word_break, nodes)
    numbers = {}
    for prefix in prefixes:
        found = np.zeros(len(prefix), np.int64)
        walk_along(phrases, np.array(VOCABULARY.encode(prefix), np.int32), 1, found)
        numbers[prefix] = int(found[-1]) if prefix else 0
    assert len(set(numbers.values())) == len(phrases.labels) == len(prefixes)
    for end, node in enumerate(nodes.tolist(), 1):
        heard = text[:end]
        starts = [0, *(i + 1 for i, char in enumerate(heard) if char == " ")]
        fits = [heard[start:] for start in starts if heard[start:] in prefixes]
        assert node == (numbers[max(fits, key=len)] if fits else -1)


def test_a_common_word_gets_less_than_a_rare_or_new_one_and_weights_multiply():
    ngrams = make_ngrams()
    assert spell("zyx").gain.max() == pytest.approx(3.0 + 0.5 * 3)
    assert spell(HotWord("zyx", 2)).gain.max() == pytest.approx(9.0)
    assert spell("zyx the").gain.max() >= 4.5
    for word, prob in zip(ngrams.lexicon, ngrams.probs[3:], strict=False):
        assert spell(word, bonus=0.5).gain.max() == pytest.approx(
            min(-prob, 0.5 + 0.5 * len(word)), abs=1e-6
        )
    assert spell("the", "zyx").ahead[0] < -1e20  # nothing is looked ahead to before a word


def test_a_hot_word_that_the_lexicon_lacks_is_written(plain, biased):
    heard = hear("the_k.e.t.tle_is", other={4: "h"})
    assert text_of(decode(plain, heard)) == "the kettle is"
    assert text_of(decode(biased, heard)) == "the hettle is"
    assert text_of(decode(biased, hear("the_ket.tle_is"))) == "the kettle is"


def test_a_phrase_is_written_although_its_words_alone_are_not(plain):
    heard = hear("the_k.e.t.tle_is", other={4: "h"})
    for phrase in ("the hettle is", "hettle is", "the hettle", "is on the hettle is"):
        hot = plain.with_hotwords(check_hotwords([phrase]))
        expected = "the kettle is" if phrase.startswith("is") else "the hettle is"
        assert text_of(decode(hot, heard)) == expected
    # a phrase that isn't completed is worth nothing
    for phrase in ("the hettle is on", "the hettle was", "a hettle is"):
        hot = plain.with_hotwords(check_hotwords([phrase]))
        assert decode(hot, heard) == decode(plain, heard)


def test_a_pause_inside_a_phrase_does_not_end_it(plain):
    heard = hear("the" + "." * 50 + "k.e.t.tle" + "." * 50, other={53: "h"})
    phrase = plain.with_hotwords(check_hotwords(["the hettle"]))
    assert text_of(decode(plain, heard)) == "the kettle"
    assert text_of(decode(phrase, heard)) == "the hettle"


@pytest.mark.parametrize("seed", range(4))
def test_any_pieces_give_the_same_words_and_the_same_state(biased, seed):
    assert_pieces_are_one(biased, seed, trials=3)


def test_words_in_progress_are_found_again_among_new_phrases(plain):
    """Phrases of one word: what came before doesn't matter, so a change to the same is none."""
    hot = plain.with_hotwords(check_hotwords(["cat", "sat", "hettle", "matx"]))
    log_probs = hear("a_cat_sat_on_the_hettle_matcat_cat", sure=0.6)
    num_found = 0
    for at in range(1, len(log_probs)):
        _, state = hot.decode(log_probs[:at], hot.init_state(0))
        num_found += int((state.beam_ints[: state.beam_size[0], PHRASE] > 0).any())
        assert equal(hot.adopt(state), state)
        assert equal(hot.adopt(plain.adopt(state)), state)
    assert num_found > 12


def decode_with_change(
    first: BeamDecoder, second: BeamDecoder, frames: str, at: int, other: dict[int, str]
) -> str:
    heard = hear(frames, other=other)
    found: Found = []
    items, state = first.decode(heard[:at], first.init_state(0))
    found += items
    items, state = second.decode(heard[at:], second.adopt(state))
    return text_of([*found, *items, *second.finish(state)])


@pytest.mark.parametrize("at", [0, 3, 5])
def test_new_hot_words_count_from_the_word_in_progress_on(plain, biased, at):
    frames, other = "the_k.e.t.tle_is", {4: "h"}
    assert decode_with_change(plain, biased, frames, at, other) == "the hettle is"
    assert decode_with_change(biased, plain, frames, at, other) == "the kettle is"


def test_an_adopted_state_is_another(plain, biased):
    _, state = plain.decode(make_noise(40, 1), plain.init_state(0))
    before = state.duplicate()
    biased.decode(make_noise(40, 2), biased.adopt(state))
    for mine, theirs in zip(state, before, strict=True):
        assert np.array_equal(mine, theirs)


def test_greedy_decoding_refuses_hot_words():
    greedy = GreedyDecoder(VOCABULARY)
    assert greedy.with_hotwords(()) is greedy
    with pytest.raises(ConfigError, match="greedy .* can't weigh hot words: decode with 'beam'"):
        greedy.with_hotwords(check_hotwords(["cat"]))


@few
@given(data=st.data())
def test_the_best_words_are_those_of_trying_all(data):
    num_frames = 5
    config = BeamConfig(
        width=400, beam=1e9, least=-25.0, join=-1e9, split=-1e9, spelled=-4.0, letter=-0.5,
        lm_weight=0.7, word_bonus=0.4, blank=-0.3, new_word=-2.5, hot=1.5, hot_letter=0.25,
    )  # fmt: skip
    hotwords = check_hotwords(["ab", "b a", HotWord("bb", 0.5), "bb a", "aa"])
    ngrams = make_ngrams(RICH)
    decoder = BeamDecoder(LETTERS, ngrams, config, hotwords)
    rows = st.lists(st.floats(-4, 0, width=32), min_size=4, max_size=4)
    drawn = data.draw(st.lists(rows, min_size=num_frames, max_size=num_frames))
    table = torch.tensor(drawn).log_softmax(-1).tolist()
    log_probs = torch.full((num_frames, len(CHARACTERS)), -30.0)
    log_probs[:, LABELS] = torch.tensor(table)
    sums: defaultdict[tuple[tuple[str, ...], bool], float] = defaultdict(lambda: -math.inf)
    for path in itertools.product(range(4), repeat=num_frames):
        labels = [label for label, _ in itertools.groupby(path) if label]
        text = "".join(" ab"[label - 1] for label in labels)
        total = sum(table[t][label] for t, label in enumerate(path)) + path.count(0) * config.blank
        key = tuple(text.split()), text.endswith(" ")
        sums[key] = float(np.logaddexp(sums[key], total))
    index = {word: i for i, word in enumerate(ngrams.lexicon, 3)}

    def bonus_of(word: HotWord) -> float:
        total = 0.0
        for part in word.phrase.split():
            full = config.hot + config.hot_letter * len(part)
            score = config.lm_weight * ngrams.probs[index[part]] if part in index else -math.inf
            total += min(-score, full)
        return word.weight * total

    bonuses = {tuple(word.phrase.split()): bonus_of(word) for word in hotwords}
    bonuses["bb", "a"] = max(bonuses["bb", "a"] - bonuses[("bb",)], 0.0)  # given before
    worths = {}
    for (words, is_ended), total in sums.items():
        context = [SENTENCE_START]
        for end, word in enumerate(words, 1):
            i = index.get(word, UNKNOWN)
            total += config.word_bonus
            total += max(bonuses.get(words[max(end - size, 0) : end], 0.0) for size in (1, 2))
            if word in ("bb", "aa"):
                total += config.new_word
            elif i == UNKNOWN:
                total += config.spelled + config.letter * len(word)
            else:
                total += config.lm_weight * score_word(ngrams, context[-3:], i)
            context.append(i)
        worths[words, is_ended] = total
    best = max(worths, key=worths.__getitem__)
    found = decode(decoder, log_probs)
    mine = max(value for (words, _), value in worths.items() if " ".join(words) == text_of(found))
    assert mine >= worths[best] - 1e-3, (best, text_of(found))
