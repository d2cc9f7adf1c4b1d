"""Beam search: the words that are worth most, in any pieces of time, whatever is heard."""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.decoding import DecodedWord, GreedyDecoder
from audiossm.decoding.beam import BeamConfig, BeamDecoder
from audiossm.decoding.ngram import SENTENCE_START, UNKNOWN
from audiossm.decoding.units import Letters
from audiossm.errors import ConfigError
from audiossm.text import BLANK, CHARACTERS, WORD_BREAK, Vocabulary
from heard_frames import (
    LABELS,
    LETTERS,
    RICH,
    ROWS,
    VOCABULARY,
    assert_pieces_are_one,
    decode,
    hear,
    make_noise,
    text_of,
    tokens_of,
)
from ngram_scores import score_word
from small_ngrams import SENTENCES, make_ngrams

few = settings(max_examples=20, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def decoder() -> BeamDecoder:
    return BeamDecoder(LETTERS, make_ngrams())


@pytest.fixture(scope="module")
def narrow() -> BeamDecoder:
    """Return what takes a quarter of the time, for what holds of any search."""
    return BeamDecoder(LETTERS, make_ngrams(), BeamConfig(width=32))


@pytest.mark.parametrize("sentence", SENTENCES)
def test_what_is_heard_clearly_is_written(decoder, sentence):
    frames = ".".join(sentence.replace(" ", "_"))
    assert text_of(decode(decoder, hear(frames))) == sentence


def test_a_word_of_the_lexicon_is_preferred_to_a_misspelling(decoder):
    heard = hear("t.h.e._.k.e.t.l.e._.i.s", other={12: "."})
    assert text_of(decode(decoder, heard)) == "the kettle is"
    assert text_of(decode(decoder, hear("s.h.e._.s.a.d._.o.n", other={12: "t"}))) == "she sat on"


def test_of_two_words_that_sound_alike_the_likelier_after_the_others_is_written(decoder):
    for start, word in (("a.", "cattle"), ("the.", "battle")):
        heard = hear(start.replace(".", "_") + "cat.tle_", other={len(start): "b"})
        assert text_of(decode(decoder, heard)).split()[-1] == word


def test_a_word_that_is_in_no_lexicon_is_spelled_if_it_is_heard_clearly(decoder):
    assert text_of(decode(decoder, hear("the_zyx_is", sure=0.99999))) == "the zyx is"


def test_a_break_that_was_not_heard_is_put_in(decoder):
    found = decode(decoder, hear("a_catsat_on"))
    assert text_of(found) == "a cat sat on"
    # it is no token, as no frame says it
    assert "".join(piece for piece, _ in tokens_of(found)) == f"a{WORD_BREAK}catsat{WORD_BREAK}on"


def test_a_break_inside_a_word_is_left_out(decoder):
    found = decode(decoder, hear("the_ket_tle_is"))
    assert text_of(found) == "the kettle is"
    assert tokens_of(found)[4:10] == [("k", 4), ("e", 5), ("t", 6), ("t", 8), ("l", 9), ("e", 10)]


def test_words_have_the_frames_of_their_letters(decoder):
    words = [w for w in decode(decoder, hear("..t.he__.cc.a..t.")) if isinstance(w, DecodedWord)]
    assert [(w.word, w.start, w.end) for w in words] == [("the", 2, 6), ("cat", 9, 16)]
    for word in words:
        assert word.confidence == pytest.approx(0.9, rel=1e-4)


def test_a_letter_stands_where_it_is_likeliest_to_begin(decoder):
    log_probs = hear("t.h.e.._.c.a.t").numpy()
    log_probs[1, ROWS["h"]] = math.log(0.05)
    assert ("h", 2) in tokens_of(decode(decoder, torch.from_numpy(log_probs)))


def test_frames_of_the_lookahead_are_not_heard(decoder):
    assert text_of(decode(decoder, hear("xyz" + "a_cat"), late=3)) == "a cat"
    assert tokens_of(decode(decoder, hear("xyz" + "a_cat"), late=3))[0] == ("a", 0)


@pytest.mark.parametrize("seed", range(6))
def test_any_pieces_give_the_same_words_and_the_same_state(decoder, seed):
    assert_pieces_are_one(decoder, seed, trials=4)


def test_a_step_leaves_the_state_before_it_alone(decoder):
    _, state = decoder.decode(make_noise(40, 1), decoder.init_state(0))
    before = state.duplicate()
    decoder.decode(make_noise(40, 2), state)
    decoder.finish(state)
    decoder.partial(state)
    for mine, theirs in zip(state, before, strict=True):
        assert np.array_equal(mine, theirs)


def test_all_states_have_the_same_shapes_and_small_types(decoder):
    _, state = decoder.decode(make_noise(3000, 3), decoder.init_state(0))
    for mine, first in zip(state, decoder.init_state(5), strict=True):
        assert (mine.shape, mine.dtype) == (first.shape, first.dtype)
        assert mine.dtype in (np.int32, np.float32)


@few
@given(seed=st.integers(0, 1000), scale=st.sampled_from([0.0, 0.3, 1.0, 3.0, 10.0]))
def test_tokens_come_in_order_and_words_hold_them_all(narrow, seed, scale):
    found = decode(narrow, make_noise(300, seed, scale))
    frames = [frame for _, frame in tokens_of(found)]
    assert all(a < b for a, b in itertools.pairwise(frames))
    letters = "".join(piece for piece, _ in tokens_of(found)).replace(WORD_BREAK, "")
    assert text_of(found).replace(" ", "") == letters
    for item in found:
        assert 0 < item.confidence <= 1


@pytest.mark.parametrize("value", [math.nan, -math.inf, -1e38, 0.0, math.inf])
def test_frames_of_junk_end_nothing(decoder, value):
    junk = torch.full((60, len(CHARACTERS)), value)
    found, state = decoder.decode(junk, decoder.init_state(0))
    assert np.isfinite(state.beam_floats[: state.beam_size[0]].max())
    quiet, state = decoder.decode(hear("." * 60), state)
    found, state = decoder.decode(hear("the_cat_is_on"), state)
    assert text_of([*found, *decoder.finish(state)]).endswith("cat is on")


def test_silence_has_no_words_for_as_long_as_it_lasts(decoder):
    for sure in (0.999999, 0.9, 0.6):
        found, state = decoder.decode(hear("." * 3000, sure), decoder.init_state(0))
        assert found == []
        assert text_of(decode(decoder, hear("a_cat"))) == "a cat"
        assert decoder.finish(state) == []


def test_a_pause_makes_words_final(decoder):
    pause = decoder.config.pause_frames
    found, state = decoder.decode(hear("the_cat" + "." * (pause + 8)), decoder.init_state(0))
    assert text_of(found) == "the cat"
    assert decoder.partial(state) == "" and decoder.finish(state) == []
    assert text_of(decode(decoder, hear("the_cat" + "." * 60 + "tat" + "." * 60))) != "the cat"


def test_words_are_final_in_time_also_without_a_pause():
    config = BeamConfig(longest_wait=40, beam=50.0)
    decoder = BeamDecoder(LETTERS, make_ngrams(), config)
    state = decoder.init_state(0)
    told_until = 0
    for at in range(0, 400, 8):
        found, state = decoder.decode(make_noise(8, at, 1.0), state)
        told_until = max([told_until, *(frame for _, frame in tokens_of(found))])
        if decoder.partial(state):
            assert at - told_until <= 60


def test_a_tree_that_is_full_is_told():
    config = BeamConfig(history=300, width=64, longest_wait=10**6, pause_frames=10**6)
    decoder = BeamDecoder(LETTERS, make_ngrams(), config)
    found, state = decoder.decode(make_noise(2000, 1, 0.5), decoder.init_state(0))
    assert len(tokens_of(found)) > 50
    assert state.history_size[0] <= 300


def test_what_may_still_change_can_be_read(decoder):
    found, state = decoder.decode(hear("the_ca"), decoder.init_state(0))
    assert text_of(found) + decoder.partial(state) == "the ca"


def test_after_a_flush_nothing_is_told_twice(decoder):
    first, state = decoder.decode(hear("the_cat"), decoder.init_state(0))
    assert text_of([*first, *decoder.finish(state)]) == "the cat"
    state = decoder.skip_to(10, state)
    assert decoder.partial(state) == ""
    # the last "t" goes on to the end of what was flushed, and beyond
    found, state = decoder.decode(hear("tttttt._is_on"), state)
    assert text_of([*found, *decoder.finish(state)]) == "is on"
    assert decoder.skip_to(10, state) is state


def test_a_model_of_longer_pieces_is_refused():
    with pytest.raises(ConfigError, match="single letters"):
        Letters(Vocabulary((BLANK, WORD_BREAK, "ab", "c")))


def test_other_weights_and_other_models_have_other_hashes(decoder):
    hashes = {
        decoder.hash,
        BeamDecoder(LETTERS, make_ngrams(), BeamConfig(width=3)).hash,
        BeamDecoder(LETTERS, make_ngrams(order=3)).hash,
        GreedyDecoder(VOCABULARY).hash,
    }
    assert len(hashes) == 4


@few
@given(data=st.data())
def test_the_best_words_are_those_of_trying_all(data):
    num_frames = 5
    config = BeamConfig(
        width=400, beam=1e9, least=-25.0, join=-1e9, split=-1e9, spelled=-4.0, letter=-0.5,
        lm_weight=0.7, word_bonus=0.4, blank=-0.3,
    )  # fmt: skip
    ngrams = make_ngrams(RICH)
    decoder = BeamDecoder(LETTERS, ngrams, config)
    values = st.floats(-4, 0, width=32)
    rows = st.lists(values, min_size=4, max_size=4)
    drawn = data.draw(st.lists(rows, min_size=num_frames, max_size=num_frames))
    table = torch.tensor(drawn).log_softmax(-1).tolist()
    log_probs = torch.full((num_frames, len(CHARACTERS)), -30.0)
    log_probs[:, LABELS] = torch.tensor(table)
    sums: defaultdict[tuple[tuple[str, ...], bool], float] = defaultdict(lambda: -math.inf)
    for path in itertools.product(range(4), repeat=num_frames):
        labels = [label for label, _ in itertools.groupby(path) if label]
        text = "".join(" ab"[label - 1] for label in labels)
        key = tuple(text.split()), text.endswith(" ")
        total = sum(table[t][label] for t, label in enumerate(path)) + path.count(0) * config.blank
        sums[key] = float(np.logaddexp(sums[key], total))
    index = {word: i for i, word in enumerate(ngrams.lexicon, 3)}
    worths = {}
    for (words, is_ended), total in sums.items():
        context = [SENTENCE_START]
        for word in words:
            i = index.get(word, UNKNOWN)
            total += config.word_bonus
            if i == UNKNOWN:
                total += config.spelled + config.letter * len(word)
            else:
                total += config.lm_weight * score_word(ngrams, context[-3:], i)
            context.append(i)
        worths[words, is_ended] = total
    ranked = sorted(worths.values())
    best = max(worths, key=worths.__getitem__)
    found = decode(decoder, log_probs)
    mine = max(value for (words, _), value in worths.items() if " ".join(words) == text_of(found))
    assert mine >= ranked[-1] - 1e-3, (best, text_of(found))
