"""Beam search by phones: words that sound alike, several ways to say one, hot words."""

import itertools
import math
import random
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.decoding import DecodedToken, DecodedWord
from audiossm.decoding.beam import BeamConfig, BeamDecoder, BeamState
from audiossm.decoding.ngram import SENTENCE_START
from audiossm.errors import ConfigError, HotwordError
from audiossm.hotwords import HotWord, check_hotwords
from audiossm.models import Calibration
from audiossm.text import BLANK, CHARACTERS, WORD_BREAK, Vocabulary
from contract import random_split
from heard_frames import Found, equal, text_of
from heard_phones import (
    PHONES,
    SAID,
    SENTENCES,
    beside_letters,
    hear_phones,
    make_phone_noise,
    make_phones,
)
from ngram_scores import score_word
from small_ngrams import make_ngrams

NGRAMS = make_ngrams(SENTENCES)
UNITS = make_phones()
CONFIG = BeamConfig(new_word=-9.0, hot=12.0, hot_letter=0.0)

few = settings(max_examples=20, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def decoder() -> BeamDecoder:
    return BeamDecoder(UNITS, NGRAMS, CONFIG)


def decode(decoder: BeamDecoder, log_probs: torch.Tensor) -> Found:
    found, state = decoder.decode(log_probs, decoder.init_state(0))
    return [*found, *decoder.finish(state)]


def write(decoder: BeamDecoder, frames: str, **options: object) -> str:
    return text_of(decode(decoder, hear_phones(frames, **options)))


@pytest.mark.parametrize("frames", ["ai.si.da.si", "aisidasi", "..aaii..s.i..d.a.ssi.."])
def test_of_words_that_sound_alike_the_likelier_after_the_others_is_written(decoder, frames):
    assert write(decoder, frames) == "i see the sea"


def test_a_word_is_written_in_whatever_way_it_is_said(decoder):
    assert write(decoder, "aisidisi") == "i see the sea"
    assert write(decoder, "ai.red") == write(decoder, "ai.rid") == "i read"


def test_words_of_the_lexicon_alone_are_written(decoder):
    assert write(decoder, "di.sik.is.red", other={5: "t"}) == "the seat is red"
    assert set(write(decoder, "mmekksrtkkke").split()) <= set(SAID)


def test_words_and_tokens_have_the_frames_of_their_phones(decoder):
    found = decode(decoder, hear_phones("..aaii..s..ii.da"))
    words = [word for word in found if isinstance(word, DecodedWord)]
    assert [(w.word, w.start, w.end) for w in words[:2]] == [("i", 2, 5), ("see", 8, 12)]
    assert words[0].confidence == pytest.approx(0.9, rel=1e-4)
    tokens = [token for token in found if isinstance(token, DecodedToken)]
    assert [(decoder.symbols[t.id], t.frame) for t in tokens] == [
        *(("a", 2), ("i", 4), ("s", 8), ("i", 11), ("d", 14), ("a", 15))
    ]


def test_a_word_that_is_hardly_right_is_not_told(decoder):
    for bias, told in ((5.0, "i am kate"), (-5.0, "")):
        sure = Calibration(
            bias=bias, score=0.0, margin=0.0, worth=0.0, length=0.0, single=0.0, share=0.0
        )
        config = replace(CONFIG, least_sure=0.15)
        careful = BeamDecoder(UNITS, decoder.ngrams, config, calibration=sure)
        assert write(careful, "ai.am.ket") == told
    uncalibrated = BeamDecoder(UNITS, decoder.ngrams, replace(CONFIG, least_sure=1.0))
    assert write(uncalibrated, "ai.am.ket") == "i am kate"


def make_careful(decoder: BeamDecoder, **options: float) -> BeamDecoder:
    """Words of phones of .9 get a confidence of .87, those of .7 one of .36 and of .5, .02."""
    by_score = Calibration(
        bias=3.0, score=10.0, margin=0.0, worth=0.0, length=0.0, single=0.0, share=0.0
    )
    config = replace(
        CONFIG, least_sure=0.15, sure_alone=0.6, sure_company=0.5, newest_share=0.3, **options
    )
    return BeamDecoder(UNITS, decoder.ngrams, config, calibration=by_score)


def hear_parts(*parts: tuple[str, float]) -> torch.Tensor:
    return torch.cat([hear_phones(frames, sure=sure) for frames, sure in parts])


def test_a_weak_word_is_told_among_sure_ones_alone(decoder):
    careful = make_careful(decoder)
    among = hear_parts(("ai.si.", 0.9), ("da.", 0.7), ("si.", 0.9))
    assert text_of(decode(careful, among)) == "i see the sea"
    # a run of them is not, from when the mean is low: .53, .48, .44, .42
    assert write(careful, "ai.si.da.si", sure=0.7) == "i"
    after = hear_parts(("ai.si.da.si.", 0.7), ("ai.si.da.", 0.9), ("si", 0.7))
    assert text_of(decode(careful, after)) == "i i see the sea"
    assert write(decoder, "ai.si.da.si", sure=0.7) == "i see the sea"
    # words that are not told count
    after = hear_parts(("ai.si.da.", 0.5), ("si", 0.7))
    assert text_of(decode(careful, after)) == ""


def test_company_lasts_beyond_endpoints_and_flushes(decoder):
    # noise has endpoints, too: its segments are of a word or two
    careful = make_careful(decoder)
    assert write(careful, "ai.si", sure=0.7) == "i"
    _, weak = careful.decode(hear_phones("ai.si.da.si", sure=0.5), careful.init_state(0))
    found, closed = careful.close(weak)
    assert found and text_of(found) == ""
    flushed = careful.skip_to(11, closed)
    for state in (closed, flushed):
        for sure, told in ((0.7, ""), (0.9, "i see")):
            found, after = careful.decode(hear_phones("ai.si", sure=sure), state)
            assert text_of([*found, *careful.finish(after)]) == told


def test_what_would_not_be_told_does_not_flash_up(decoder):
    careful = make_careful(decoder, pause_frames=10**6, longest_wait=10**6)
    for sure, shown in ((0.9, "i see the sea"), (0.5, "")):
        log_probs = hear_phones("ai.si.da.si", sure=sure)
        found, state = careful.decode(log_probs, careful.init_state(0))
        assert f"{text_of(found)} {careful.partial(state)}".strip() == shown


def test_company_is_the_same_in_any_pieces_and_after_any_snapshot(decoder):
    careful = make_careful(decoder)
    parts = [("ai.si.da.si.", sure) for sure in (0.5, 0.9, 0.7, 0.7, 0.9, 0.5, 0.7)]
    log_probs = torch.cat([hear_parts(*parts), make_phone_noise(150, 1)])
    whole, end = careful.decode(log_probs, careful.init_state(0))
    silent = text_of(decode(decoder, log_probs)).split()
    assert 0 < len(text_of(whole).split()) < len(silent)
    for trial in range(4):
        state, found = careful.init_state(0), []
        for piece in log_probs.split(random_split(len(log_probs), random.Random(trial))):
            items, state = careful.decode(piece, state)
            stored = [(array.tobytes(), array.dtype, array.shape) for array in state]
            state = BeamState._make(np.frombuffer(*s[:2]).reshape(s[2]) for s in stored)
            found += items
        assert found == whole
        assert equal(state, end)


def test_a_word_that_is_cut_off_is_the_likeliest_that_begins_so(decoder):
    # surer than a word of the lexicon is dear: otherwise nothing was said there
    heard = hear_phones("ai.si.da.s", sure=1 - 1e-11)
    found, state = decoder.decode(heard, decoder.init_state(0))
    assert f"{text_of(found)} {decoder.partial(state)}" == "i see the sea"
    assert text_of([*found, *decoder.finish(state)]) == "i see the sea"


def test_readings_tell_words_that_sound_alike_apart(decoder):
    _, state = decoder.decode(hear_phones("ai.si.da.si"), decoder.init_state(0))
    readings = decoder.readings(state, 4)
    assert readings[0].text == text_of(decoder.finish(state)) == "i see the sea"
    assert "i see the see" in [reading.text for reading in readings]
    assert math.fsum(math.exp(r.score) for r in decoder.readings(state, 1000)) == pytest.approx(1)


@pytest.mark.parametrize("hot", [(), ("ken", "a kid", "sea", "sea is", "rima rima")])
@pytest.mark.parametrize("seed", range(3))
def test_any_pieces_give_the_same_words_and_the_same_state(decoder, seed, hot):
    decoder = decoder.with_hotwords(check_hotwords(hot))
    words = hear_phones("...aisidasi.ken.is.a.kid" + "." * 40)
    log_probs = torch.cat([make_phone_noise(150, seed), words])
    whole, end = decoder.decode(log_probs, decoder.init_state(0))
    for trial in range(3):
        state, found = decoder.init_state(0), []
        for piece in log_probs.split(random_split(len(log_probs), random.Random(trial))):
            items, state = decoder.decode(piece, state)
            found += items
        assert found == whole
        assert equal(state, end)
        assert decoder.finish(state) == decoder.finish(end)


def test_all_states_have_the_same_shapes_and_small_types(decoder):
    hot = decoder.with_hotwords(check_hotwords(["ken", "mirandas aunt"]))
    _, state = hot.decode(make_phone_noise(2000, 3), hot.init_state(0))
    for mine, first in zip(state, decoder.init_state(5), strict=True):
        assert (mine.shape, mine.dtype) == (first.shape, first.dtype)
        assert mine.dtype in (np.int32, np.float32)


@few
@given(seed=st.integers(0, 1000), scale=st.sampled_from([0.0, 0.3, 1.0, 3.0, 10.0]))
def test_tokens_come_in_order_and_words_are_known(decoder, seed, scale):
    found = decode(decoder, make_phone_noise(300, seed, scale))
    frames = [item.frame for item in found if isinstance(item, DecodedToken)]
    assert all(a < b for a, b in itertools.pairwise(frames))
    assert set(text_of(found).split()) <= set(SAID)


@pytest.mark.parametrize("value", [math.nan, -math.inf, -1e38, 0.0, math.inf])
def test_frames_of_junk_end_nothing(decoder, value):
    junk = torch.full((60, len(CHARACTERS) + len(PHONES) + 1), value)
    found, state = decoder.decode(junk, decoder.init_state(0))
    quiet, state = decoder.decode(hear_phones("." * 60), state)
    found, state = decoder.decode(hear_phones("kat.is.red"), state)
    assert text_of([*found, *decoder.finish(state)]).endswith("is red")


def test_a_tree_that_is_full_is_told():
    config = BeamConfig(history=300, width=32, longest_wait=10**6, pause_frames=10**6)
    decoder = BeamDecoder(UNITS, NGRAMS, config, check_hotwords(["rima", "ken"]))
    found, state = decoder.decode(make_phone_noise(2000, 1, 0.5), decoder.init_state(0))
    assert len(found) > 50 and state.history_size[0] <= 300


def test_a_hot_word_that_no_lexicon_has_is_written(decoder):
    hot = decoder.with_hotwords(check_hotwords(["ken"]))
    frames = "ai.am.ket"
    assert write(decoder, frames, other={8: "n"}) == "i am kate"
    assert write(hot, frames, other={8: "n"}) == "i am ken"
    assert write(hot, frames) == "i am kate"
    found = decode(hot, hear_phones("ai.am.ken"))
    assert [(w.word, w.start, w.end) for w in found if isinstance(w, DecodedWord)] == [
        *(("i", 0, 2), ("am", 3, 5), ("ken", 6, 9))
    ]


def test_of_words_that_sound_alike_the_hot_one_is_written(decoder):
    hot = decoder.with_hotwords(check_hotwords(["aunt", "seet"]))
    assert write(decoder, "ai.am.ant") == "i am ant"
    assert write(hot, "ai.am.ant") == "i am aunt"


def test_a_hot_word_that_takes_more_phones_gets_more(decoder):
    words = check_hotwords(["seat", "sea", "aia", "aiaiai"])
    known = replace(CONFIG, lm_weight=100.0, hot=0.0, hot_letter=0.5)
    hot = BeamDecoder(UNITS, decoder.ngrams, known, words)
    # "seat" is said with three, "sea" with two; letters don't count
    assert sorted(set(hot.phrases.gain[hot.phrases.gain > 0])) == [1.0, 1.5, 3.0]


def test_a_phrase_is_written_although_its_words_alone_are_not(decoder):
    frames, other = "si.da.ant.is.red", {6: "i"}
    assert write(decoder, frames, other=other) == "see the ant is red"
    for phrase in ("the int is", "int is", "see the int"):
        hot = decoder.with_hotwords(check_hotwords([phrase]))
        assert write(hot, frames, other=other) == "see the int is red"


@pytest.mark.parametrize("at", [0, 3, 7, 8])
def test_hot_words_change_at_any_time(decoder, at):
    frames, other = "ai.am.ket", {8: "n"}
    hot = decoder.with_hotwords(check_hotwords(["ken"]))
    heard = hear_phones(frames, other=other)
    for first, second, expected in ((decoder, hot, "i am ken"), (hot, decoder, "i am kate")):
        found, state = first.decode(heard[:at], first.init_state(0))
        items, state = second.decode(heard[at:], second.adopt(state))
        if first is decoder and at > 6:
            expected = "i am kate"  # the word in progress is one of the lexicon
        assert text_of([*found, *items, *second.finish(state)]) == expected


def test_a_word_that_was_hot_when_it_was_said_is_told_as_it_was(decoder):
    hot = decoder.with_hotwords(check_hotwords(["rima"]))
    found, state = hot.decode(hear_phones("ai.am.rima.ai.s"), hot.init_state(0))
    other = decoder.with_hotwords(check_hotwords(["ken"]))
    items, state = other.decode(hear_phones("i.ken"), other.adopt(state))
    assert text_of([*found, *items, *other.finish(state)]) == "i am rima i see ken"


def test_if_all_that_was_heard_was_of_a_word_that_is_hot_no_more_something_is_left(decoder):
    hot = decoder.with_hotwords(check_hotwords([HotWord("rima", 10)]))
    found, state = hot.decode(hear_phones("rim", sure=0.999999), hot.init_state(0))
    state = decoder.adopt(state)
    assert 0 < state.beam_size[0]
    found, state = decoder.decode(hear_phones(".ai.am.ket"), state)
    assert text_of([*found, *decoder.finish(state)]).endswith("i am kate")


def test_a_word_in_unknown_phones_cannot_be_hot(decoder):
    with pytest.raises(HotwordError, match="'zyx' can't be said in the model's phones"):
        decoder.with_hotwords(check_hotwords(["zyx"]))


def test_a_model_without_phones_or_letters_is_refused():
    with pytest.raises(ConfigError, match="a head for them"):
        type(UNITS)(Vocabulary(CHARACTERS), (), {}, list, "none")
    with pytest.raises(ConfigError, match="single letters"):
        type(UNITS)(Vocabulary((BLANK, WORD_BREAK, "ab")), PHONES, {}, list, "pieces")


@few
@given(data=st.data())
def test_the_best_words_are_those_of_trying_all(data):
    num_frames = 5
    said = {
        "ab": [("a",), ("a", "e")],
        "ba": [("a",)],
        "b": [("e",)],
        "a": [("e", "a")],
    }
    config = BeamConfig(
        width=400, beam=1e9, least=-25.0, spelled=-30.0, lm_weight=0.7, word_bonus=0.4,
        blank=-0.3, new_word=-2.5, hot=1.5, hot_letter=0.25, said=0.5,
    )  # fmt: skip
    rich = tuple(" ".join(words) for words in itertools.product(said, repeat=5))
    ngrams = make_ngrams(rich)
    hotwords = check_hotwords(["ba", "ae", "b ab"])
    decoder = BeamDecoder(make_phones(said), ngrams, config, hotwords)
    rows = st.lists(st.floats(-4, 0, width=32), min_size=3, max_size=3)
    drawn = data.draw(st.lists(rows, min_size=num_frames, max_size=num_frames))
    table = torch.tensor(drawn).log_softmax(-1)
    phones = torch.full((num_frames, len(PHONES) + 1), -30.0)
    phones[:, :3] = table
    sums: defaultdict[str, float] = defaultdict(lambda: -math.inf)
    for path in itertools.product(range(3), repeat=num_frames):
        heard = "".join(".ae"[label] for label, _ in itertools.groupby(path) if label)
        total = sum(float(table[t, label]) for t, label in enumerate(path))
        sums[heard] = float(np.logaddexp(sums[heard], total + path.count(0) * config.blank))
    index = {word: i for i, word in enumerate(ngrams.lexicon, 3)}
    ways = {word: [("".join(row), math.log(1 / len(rows))) for row in rows]
            for word, rows in said.items()} | {"ae": [("ae", 0.0)]}  # fmt: skip

    def bonus(word: str) -> float:
        full = config.hot + config.hot_letter * min(len(row) for row, _ in ways[word])
        return full if word == "ae" else min(-config.lm_weight * ngrams.probs[index[word]], full)

    def split(heard: str) -> list[tuple[tuple[str, ...], float]]:
        """Return all words that sound so, and what their ways are worth."""
        found = [] if heard else [((), 0.0)]
        for word, rows in ways.items():
            for row, worth in rows:
                if heard.startswith(row):
                    rest = split(heard[len(row) :])
                    found += [((word, *r), worth * config.said + w) for r, w in rest]
        return found

    worths: defaultdict[tuple[str, ...], float] = defaultdict(lambda: -math.inf)
    for heard, total in sums.items():
        for words, worth in split(heard):
            context = [SENTENCE_START]
            for end, word in enumerate(words, 1):
                worth += config.word_bonus
                gain = bonus(word) if word in ("ba", "ae") else 0.0
                if words[end - 2 : end] == ("b", "ab"):
                    gain = max(gain, bonus("b") + bonus("ab"))
                worth += gain
                if word == "ae":
                    worth += config.new_word
                else:
                    worth += config.lm_weight * score_word(ngrams, context[-3:], index[word])
                context.append(index.get(word, 0))
            worths[words] = float(np.logaddexp(worths[words], total + worth))
    best = max(worths, key=worths.__getitem__)
    found = tuple(text_of(decode(decoder, beside_letters(phones))).split())
    assert worths[found] >= worths[best] - 0.6, (best, found)
