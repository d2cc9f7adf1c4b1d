"""A session that decodes phones keeps the promises of every session."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.decoding import choose_decoder, find_decoder, make_decoder, units
from audiossm.decoding import ngram as ngrams
from audiossm.errors import ConfigError, SnapshotError
from audiossm.lexicon import Lexicon
from audiossm.models import Calibration, SpikeOffsets
from audiossm.pronouncer import Pronunciation
from audiossm.streaming import Event, Session, Token, Word
from session_runs import plain, run_pieces
from small_ngrams import make_ngrams
from tiny_model import make_transcriber, read_speech

MODEL = make_transcriber()
SPEECH = read_speech()[:24000]
SAID = {"a": "a", "ant": "a n t", "aunt": "a n t", "tan": "t a n", "nat": "n a t", "an": "a n"}
SURE = Calibration(bias=3.0, score=0, margin=0, worth=0, length=0, single=0, share=0)

few = settings(max_examples=5, deadline=None, derandomize=True)
places = st.integers(0, len(SPEECH))


class Spelled:
    """A pronouncer that says words as they are written."""

    def __init__(self, lexicon: Lexicon) -> None:
        del lexicon

    def pronounce_words(self, words: list[str]) -> list[Pronunciation]:
        return [Pronunciation(word, tuple(word), "model") for word in words]


@pytest.fixture(autouse=True, scope="module")
def lexicon() -> Iterator[None]:
    """Words in the tiny model's three phones, and sentences of them."""
    small = make_ngrams(("a tan ant", "an aunt", "nat an ant"))
    make_decoder.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lexicon, "load", lambda: Lexicon(SAID))
        patch.setattr(ngrams.NgramModel, "load", lambda: small)
        patch.setattr(units, "Pronouncer", Spelled)
        yield
    make_decoder.cache_clear()


def begin(hotwords: tuple[str, ...] = ()) -> Session:
    return Session(MODEL, 16000, 320, "phones", hotwords)


def run(sizes: list[int], flushes: list[int] = (), restore: bool = False) -> list[Event]:
    stops = [(at, Session.flush) for at in flushes]
    return run_pieces(begin(("tan", "nat a")), SPEECH, sizes, stops, restore)


def test_it_has_words_of_the_lexicon_and_tokens_that_are_phones():
    events = run([len(SPEECH)])
    assert {event.piece for event in events if isinstance(event, Token)} == {"a", "n", "t"}
    words = [event for event in events if isinstance(event, Word)]
    assert words and {word.word for word in words} <= SAID.keys()
    assert all(0 <= word.start_s < word.end_s for word in words)


@few
@given(
    flushes=st.lists(places, max_size=2),
    sizes=st.lists(st.integers(500, 5000), min_size=1, max_size=5),
)
def test_the_words_depend_on_samples_and_flush_positions_only(flushes, sizes):
    whole = run([len(SPEECH)], flushes)
    assert plain(run(sizes, flushes)) == plain(whole)
    assert plain(run(sizes, flushes, restore=True)) == plain(whole)


def test_hot_words_come_and_go_also_over_a_snapshot():
    session = begin()
    for at, hotwords in ((0, ["natta"]), (9000, []), (16000, ["tat", "natta"])):
        session.set_hotwords(hotwords)
        session = Session.restore(MODEL, session.snapshot())
        session.push(SPEECH[at : at + 7000])
    assert session.finish()


def test_a_snapshot_goes_to_no_other_decoder():
    data = begin().snapshot()
    assert Session.restore(MODEL, data).decoder_name == "phones"
    with pytest.raises(SnapshotError, match="of model"):
        Session.restore(make_transcriber(3), data)


def test_words_have_the_times_of_their_phones(monkeypatch):
    plain_words = [event for event in run([9000]) if isinstance(event, Word)]
    letters, phones = (-9.0,) * 3, (-4.0,) * 3
    offsets = SpikeOffsets(
        letters_start=letters, letters_end=letters, phones_start=phones, phones_end=phones
    )
    monkeypatch.setattr(MODEL, "offsets", offsets)
    words = [event for event in run([9000]) if isinstance(event, Word)]
    assert [word.start_s for word in words] == pytest.approx(
        [max(0.0, word.start_s - 4 * 0.02) for word in plain_words]
    )


def test_the_best_decoder_hears_phones_if_their_head_is_above_all_layers():
    config = MODEL.config
    assert choose_decoder(config) == "beam"
    assert choose_decoder(replace(config, middle_after=2)) == "phones"
    assert choose_decoder(replace(config, middle_after=2, phones=())) == "beam"


def test_a_calibration_is_of_the_best_decoders_words_alone(monkeypatch):
    monkeypatch.setattr(MODEL, "calibration", SURE)
    assert find_decoder(MODEL, "beam").calibration is SURE
    assert find_decoder(MODEL, "phones").calibration is None


def test_a_model_without_phones_cannot_decode_them():
    with pytest.raises(ConfigError, match="a head for them"):
        make_decoder("phones", MODEL.vocabulary, ())


def test_a_model_whose_phones_no_word_is_said_in_cannot_decode_them():
    with pytest.raises(ConfigError, match="no word can be said"):
        make_decoder("phones", MODEL.vocabulary, ("x", "y"))
