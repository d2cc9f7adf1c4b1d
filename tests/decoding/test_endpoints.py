"""A stream is cut by three rules, at the same places however its frames come."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.decoding import (
    DecodedEndpoint,
    DecodedToken,
    DecodedWord,
    EndpointRules,
    GreedyDecoder,
    Segmenter,
)
from audiossm.decoding.beam import BeamConfig, BeamDecoder
from audiossm.errors import ConfigError
from contract import random_split
from heard_frames import LETTERS, VOCABULARY, hear, make_noise
from small_ngrams import make_ngrams

FRAME_S = 0.02
RULES = EndpointRules(silence_s=2.4, pause_s=0.7, longest_s=4.0)
BEAM = BeamDecoder(LETTERS, make_ngrams())
DECODERS = {"beam": BEAM, "greedy": GreedyDecoder(VOCABULARY)}

each_decoder = pytest.mark.parametrize("name", DECODERS)
few = settings(max_examples=20, deadline=None, derandomize=True)


# what takes a quarter of the time, for what holds of any search
NARROW = {"beam": BeamDecoder(LETTERS, make_ngrams(), BeamConfig(width=32))}


def make(name: str = "beam", rules: EndpointRules | None = RULES, nbest: int = 0) -> Segmenter:
    return Segmenter(DECODERS[name], rules, FRAME_S, VOCABULARY, nbest)


def run(segmenter: Segmenter, frames: str | torch.Tensor, late: int = 0) -> list[object]:
    """Return words, and endpoints as (rule, frame); tokens are left out."""
    log_probs = hear(frames) if isinstance(frames, str) else frames
    found, state = segmenter.decode(log_probs, segmenter.init_state(late))
    items = [*found, *segmenter.finish(state)]
    return [
        item.word if isinstance(item, DecodedWord) else (item.rule, item.frame)
        for item in items
        if not isinstance(item, DecodedToken)
    ]


@each_decoder
def test_a_pause_after_words_ends_a_segment(name):
    # the pause is 35 frames: 34, the break's among them, are not enough
    heard = "the_cat" + 33 * "." + "_is" + 35 * "." + "_on" + 10 * "."
    cut = len("the_cat") + 33 + len("_is") + 35
    assert run(make(name), heard) == [
        *("the", "cat", "is", ("pause", cut)),
        *("on", ("end", len(heard))),
    ]


@each_decoder
def test_silence_is_told_once_and_not_after_a_pause(name):
    assert run(make(name), 1000 * ".") == [("silence", 120)]
    heard = "the_cat" + 1000 * "."
    assert run(make(name), heard) == ["the", "cat", ("pause", 42)]
    # breaks are no words
    assert run(make(name), 119 * "." + "_" + 500 * ".") == [("silence", 120)]


@each_decoder
def test_a_long_segment_ends_between_words(name):
    heard = 20 * "the_cat...is_on._" + 10 * "."
    found = run(make(name), heard)
    cuts = [item for item in found if isinstance(item, tuple)]
    assert len(cuts) >= 2 and {rule for rule, _ in cuts[:-1]} == {"length"}
    for (_, frame), before in zip(cuts[:-1], [0, *(frame for _, frame in cuts)], strict=False):
        assert heard[frame - 1] in "_." and "_" in heard[frame - 4 : frame]
        assert 200 <= frame - before <= 300 + 17
    assert "".join(item for item in found if isinstance(item, str)) == 20 * "thecatison"


def test_longer_pauses_are_taken_first():
    unit = "the_cat_is_on_"
    # after 4 s: a pause of 22 frames comes first, though one of 2 frames is earlier
    heard = 14 * unit + "the_.." + unit + 22 * "." + "the_cat"
    cuts = [item for item in run(make(), heard) if isinstance(item, tuple)]
    place = heard.index("the_..") + len("the_..") + len(unit)
    assert cuts[0][0] == "length" and place < cuts[0][1] <= place + 25


def test_rules_can_be_turned_off():
    heard = 300 * "." + 40 * "the_cat_" + 100 * "." + "the_cat"
    never = EndpointRules(silence_s=math.inf, pause_s=math.inf, longest_s=math.inf)
    for rules in (None, never):
        cuts = [item for item in run(make(rules=rules), heard) if isinstance(item, tuple)]
        assert cuts == [("end", len(heard))]


def test_silence_after_the_end_brings_words_and_no_endpoints():
    segmenter = make("greedy")
    _, state = segmenter.decode(hear("the_cat" + 20 * "."), segmenter.init_state(0))
    rest = segmenter.finish(state, hear(".._dog" + 40 * "."))
    assert [item.word for item in rest if isinstance(item, DecodedWord)] == ["cat", "dog"]
    (end,) = [item for item in rest if isinstance(item, DecodedEndpoint)]
    assert (end.rule, end.frame, end.end) == ("end", 27, 33)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, "1", None])
def test_rules_are_seconds_above_0(value):
    with pytest.raises(ConfigError, match="expected seconds above 0"):
        EndpointRules(pause_s=value)


def test_a_negative_number_of_readings_is_refused():
    with pytest.raises(ConfigError, match="nbest is -1"):
        make(nbest=-1)


def test_an_endpoint_tells_where_its_words_are():
    found, state = make().decode(hear("..the_cat" + 50 * "."), make().init_state(0))
    (end,) = [item for item in found if isinstance(item, DecodedEndpoint)]
    assert (end.start, end.end, end.frame) == (2, 9, 9 + 35)
    assert make().partial(state) == ""


def test_frames_of_the_lookahead_and_of_a_flush_are_no_silence():
    assert run(make(), 100 * "." + 120 * ".", late=100) == [("silence", 120)]
    segmenter = make()
    _, state = segmenter.decode(hear("the_cat" + 10 * "."), segmenter.init_state(0))
    state = segmenter.skip_to(30, state)
    found, _ = segmenter.decode(hear(13 * "a" + 130 * "."), state)
    assert [(item.rule, item.frame) for item in found] == [("silence", 150)]


@each_decoder
@few
@given(seed=st.integers(0, 500), scale=st.sampled_from([1.0, 3.0]))
def test_any_pieces_give_the_same_endpoints_and_readings(name, seed, scale):
    chance = random.Random(seed)
    parts = [
        part
        for _ in range(4)
        for part in (
            make_noise(chance.randint(1, 120), chance.randint(0, 99), scale),
            hear(chance.randint(0, 140) * "."),
        )
    ]
    log_probs, decoder = torch.cat(parts), NARROW.get(name, DECODERS[name])
    segmenter = Segmenter(decoder, RULES, FRAME_S, VOCABULARY, 3)
    whole, end = segmenter.decode(log_probs, segmenter.init_state(8))
    for trial in range(3):
        state, found = segmenter.init_state(8), []
        for piece in log_probs.split(random_split(len(log_probs), random.Random(trial))):
            items, state = segmenter.decode(piece, state)
            found += items
        assert found == whole
        assert state.marks.tolist() == end.marks.tolist()
        assert segmenter.finish(state) == segmenter.finish(end)


def test_readings_are_ways_to_end_a_segment_the_best_first():
    segmenter = make(nbest=4)
    heard = hear("a_cat_sat" + 60 * ".", other={6: "c"})
    found, _ = segmenter.decode(heard, segmenter.init_state(0))
    told = " ".join(item.word for item in found if isinstance(item, DecodedWord))
    (end,) = [item for item in found if isinstance(item, DecodedEndpoint)]
    texts = [reading.text for reading in end.readings]
    assert 2 <= len(texts) <= 4 and len(set(texts)) == len(texts)
    assert told.endswith(texts[0])
    scores = [reading.score for reading in end.readings]
    assert scores == sorted(scores, reverse=True)
    assert sum(math.exp(score) for score in scores) <= 1 + 1e-6
    assert [item.readings for item in found if isinstance(item, DecodedEndpoint)] != [()]
    plain, _ = make().decode(heard, make().init_state(0))
    assert [item for item in plain if isinstance(item, DecodedWord)] == [
        item for item in found if isinstance(item, DecodedWord)
    ]
