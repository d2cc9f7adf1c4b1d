"""A session that decodes by beam search keeps the promises of every session."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.checkpoint import save_model
from audiossm.config import to_dict
from audiossm.decoding import decoder as decoders
from audiossm.errors import ConfigError, SnapshotError
from audiossm.streaming import Event, Session, Token, Transcriber, Word
from audiossm.text import CHARACTERS
from session_runs import plain, run_pieces
from tiny_model import make_transcriber, read_speech

MODEL = make_transcriber()
SPEECH = read_speech()[:24000]

few = settings(max_examples=6, deadline=None, derandomize=True)
places = st.integers(0, len(SPEECH))


def begin(rate: int = 16000, ahead: int = 320) -> Session:
    return Session(MODEL, rate, ahead, "beam")


def run(sizes: Sequence[int], flushes: Sequence[int] = (), restore: bool = False) -> list[Event]:
    """Feed the speech in pieces of these sizes, over and over, with flushes on the way."""
    stops = [(at, Session.flush) for at in flushes]
    return run_pieces(begin(), SPEECH, sizes, stops, restore)


def test_it_has_tokens_and_words():
    events = run([len(SPEECH)])
    assert len([event for event in events if isinstance(event, Token)]) > 5
    words = [event for event in events if isinstance(event, Word)]
    assert words and all(0 <= word.start_s < word.end_s for word in words)


@few
@given(
    flushes=st.lists(places, max_size=3),
    sizes=st.lists(st.integers(500, 5000), min_size=1, max_size=5),
)
def test_the_words_depend_on_samples_and_flush_positions_only(flushes, sizes):
    whole = run([len(SPEECH)], flushes)
    assert plain(run(sizes, flushes)) == plain(whole)
    assert plain(run(sizes, flushes, restore=True)) == plain(whole)


@few
@given(at=places)
def test_a_restored_session_goes_on_exactly(at):
    session = begin(44100)
    session.push(SPEECH[:at])
    data = session.snapshot()
    restored = Session.restore(MODEL, data)
    assert (restored.decoder_name, restored.partial) == ("beam", session.partial)
    assert restored.snapshot() == data
    assert restored.push(SPEECH[at:]) == session.push(SPEECH[at:])
    assert restored.finish() == session.finish()


@few
@given(at=places)
def test_a_flush_tells_what_the_end_would_tell_and_nothing_is_told_twice(at):
    session = begin()
    told = session.push(SPEECH[:at]) + session.flush()
    other = begin()
    assert plain(told) == plain(other.push(SPEECH[:at]) + other.finish())
    assert session.flush() == []
    frames = [event.frame for event in run([3000], [at]) if isinstance(event, Token)]
    assert all(a < b for a, b in zip(frames, frames[1:], strict=False))


def test_the_state_does_not_grow():
    session = begin()
    session.push(SPEECH)
    size = len(session.snapshot())
    session.push(np.tile(SPEECH, 20))
    assert len(session.snapshot()) == size


def test_sessions_of_both_decoders_do_not_mix():
    beam, greedy = begin(), Session(MODEL)
    assert beam.decoder.decoder is not greedy.decoder.decoder
    data = greedy.snapshot()
    assert Session.restore(MODEL, data).decoder.decoder is greedy.decoder.decoder
    rng = random.Random(1)
    expected = Session(MODEL)
    for _ in range(5):
        piece = SPEECH[: rng.randint(1, 4000)]
        beam.push(piece)
        assert greedy.push(piece) == expected.push(piece)


def test_a_snapshot_of_another_language_model_is_refused(monkeypatch):
    session = begin()
    monkeypatch.setattr(session.decoder.decoder, "hash", "another")
    data = session.snapshot()
    monkeypatch.undo()
    with pytest.raises(SnapshotError, match="another language model"):
        Session.restore(MODEL, data)


def test_a_loaded_model_that_spells_in_letters_has_the_beam_unless_told_otherwise(tmp_path):
    config = {"recogniser": to_dict(MODEL.config)}
    save_model(tmp_path / "tiny", "recogniser", "", config, MODEL.network.state_dict())
    assert MODEL.config.pieces == CHARACTERS
    assert Transcriber.load(tmp_path / "tiny").session().decoder_name == "beam"
    model = Transcriber.load(tmp_path / "tiny", decoder="greedy")
    assert model.session().decoder_name == "greedy"


def test_a_decoder_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="'best' is not one of phones, beam, greedy"):
        decoders.make_decoder("best", MODEL.vocabulary)
