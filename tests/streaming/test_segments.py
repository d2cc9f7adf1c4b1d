"""Segments of a session: the same ones however it is cut, final words, and transcripts of them."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.decoding import Reading
from audiossm.errors import ConfigError, SnapshotError
from audiossm.streaming import (
    Endpoint,
    EndpointRules,
    Session,
    TranscriptDraft,
    Word,
    WrittenWord,
    snapshot,
)
from session_runs import plain, run_pieces
from tiny_model import SPEECH as FOLDER
from tiny_model import make_transcriber, read_speech
from tiny_writer import make_writer

MODEL = make_transcriber()
SPEECH = read_speech()[:24000]
RULES = EndpointRules(silence_s=0.4, pause_s=0.1, longest_s=0.5)

few = settings(max_examples=6, deadline=None, derandomize=True)
each_decoder = pytest.mark.parametrize("decoder", ["beam", "greedy"])
places = st.integers(0, len(SPEECH))


def begin(decoder: str = "beam", rules: EndpointRules | None = RULES, nbest: int = 3) -> Session:
    return Session(MODEL, 16000, 320, decoder, endpoints=rules, nbest=nbest)


def endpoints(events):
    return [event for event in events if isinstance(event, Endpoint)]


@each_decoder
@few
@given(
    flushes=st.lists(places, max_size=2),
    sizes=st.lists(st.integers(500, 5000), min_size=1, max_size=5),
)
def test_endpoints_depend_on_samples_and_flush_positions_only(decoder, flushes, sizes):
    stops = [(at, Session.flush) for at in flushes]
    whole = run_pieces(begin(decoder), SPEECH, [len(SPEECH)], stops)
    assert len(endpoints(whole)) > 1
    assert plain(run_pieces(begin(decoder), SPEECH, sizes, stops)) == plain(whole)
    assert plain(run_pieces(begin(decoder), SPEECH, sizes, stops, restore=True)) == plain(whole)


@each_decoder
def test_words_lie_in_their_segments(decoder):
    events = run_pieces(begin(decoder), SPEECH, [1000])
    words: list[Word] = []
    cut_s = 0.0
    for event in events:
        if isinstance(event, Word):
            words.append(event)
        elif isinstance(event, Endpoint):
            assert (event.start_s, event.end_s) == (
                (words[0].start_s, words[-1].end_s) if words else (None, None)
            )
            assert event.time_s >= max(cut_s, event.end_s or 0.0)
            words, cut_s = [], event.time_s
    assert not words and endpoints(events)[-1].rule == "end"


def test_without_rules_a_segment_ends_at_flushes_and_at_the_end():
    events = run_pieces(begin(rules=None), SPEECH, [999], [(10000, Session.flush)])
    assert [end.rule for end in endpoints(events)] == ["end", "end"]
    # the last word may end with the last label frame
    assert [end.time_s for end in endpoints(events)] == pytest.approx([0.625, 1.5], abs=0.021)


def test_nothing_is_left_over_after_an_endpoint():
    session = begin()
    partials = 0
    for at in range(0, len(SPEECH), 320):
        events = session.push(SPEECH[at : at + 320])
        partials += bool(session.partial)
        if events and isinstance(events[-1], Endpoint):
            assert session.partial == ""
    assert partials > 10


@each_decoder
@few
@given(seed=st.integers(0, 100))
def test_what_was_told_never_changes_and_the_partial_goes_on_from_it(decoder, seed):
    """Words told so far are a prefix of all words; with the partial, of what a flush then tells."""
    chance = random.Random(seed)
    session = begin(decoder, RULES if seed % 2 else None)
    final = [e.word for e in run_pieces(begin(decoder, session.endpoints), SPEECH, [4000])
             if isinstance(e, Word)]  # fmt: skip
    told: list[str] = []
    at = 0
    while at < len(SPEECH):
        size = chance.randint(1, 3000)
        told += [e.word for e in session.push(SPEECH[at : at + size]) if isinstance(e, Word)]
        at += size
        assert told == final[: len(told)]
        # the partial is what is heard and not told: a segment's readings begin with no less
        if decoder == "greedy":
            rest = [e.word for e in session.fork().finish() if isinstance(e, Word)]
            assert (rest[0] if rest else "").startswith(session.partial)
        assert len(session.partial.split()) <= 64
    told += [e.word for e in session.finish() if isinstance(e, Word)]
    assert told == final


def test_snapshots_carry_the_rules_and_the_number_of_readings():
    session = begin(rules=EndpointRules(silence_s=math.inf), nbest=2)
    restored = Session.restore(MODEL, session.snapshot())
    assert restored.endpoints == EndpointRules(silence_s=math.inf)
    assert restored.nbest == 2
    assert restored.snapshot() == session.snapshot()
    assert Session.restore(MODEL, begin(rules=None).snapshot()).endpoints is None


@pytest.mark.parametrize("endpoints", ["7", '{"pause_s": -1}', '{"pauses": 1}', "[1]"])
def test_a_snapshot_with_damaged_rules_is_refused(endpoints):
    arrays, header = snapshot.unpack(begin().snapshot(), {})
    data = snapshot.pack(arrays, header | {"endpoints": endpoints})
    with pytest.raises(SnapshotError, match="header is damaged"):
        Session.restore(MODEL, data)


def test_written_words_are_written_before_their_endpoint():
    session = Session(MODEL, decoder="beam", writer=make_writer(), endpoints=RULES)
    events = session.push(SPEECH) + session.finish()
    told = written = 0
    for event in events:
        told += isinstance(event, Word)
        written += len(event.word.split()) if isinstance(event, WrittenWord) else 0
        if isinstance(event, Endpoint):
            assert written == told
    assert written > 2


def test_a_negative_number_of_readings_is_refused():
    with pytest.raises(ConfigError, match="nbest is -1"):
        MODEL.session(nbest=-1)


def word(text: str, at: float, confidence: float = 0.5) -> Word:
    return Word(text, at, at + 0.5, confidence)


def test_a_transcript_has_segments_with_their_alternatives():
    draft = TranscriptDraft(readable=False, nbest=3)
    ways = (Reading("on it", -0.1), Reading("on", -1.0))
    for event in (
        *(word("go", 0.0, 0.75), word("on", 1.0), word("it", 2.0, 0.25)),
        Endpoint("pause", 3.0, 0.0, 2.5, ways),
        Endpoint("silence", 6.0, None, None),
        *(
            word("cat", 7.0),
            Endpoint("end", 8.0, 7.0, 7.5, (Reading("cat", -0.5), Reading("", -2))),
        ),
    ):
        draft.add(event)
    found = draft.build(8.0, "m")
    assert found.text == "go on it cat"
    assert [(s.text, s.start_s, s.end_s, s.rule) for s in found.segments] == [
        ("go on it", 0.0, 2.5, "pause"),
        ("cat", 7.0, 7.5, "end"),
    ]
    assert found.segments[0].confidence == pytest.approx(0.5)
    assert [r.text for r in found.segments[0].alternatives] == ["go on it", "go on"]
    assert [(r.text, round(r.score, 6)) for r in found.alternatives] == [
        ("go on it cat", -0.6),
        ("go on cat", -1.5),
        ("go on it", -2.1),
    ]


def test_words_without_an_endpoint_are_a_segment_of_a_transcript():
    draft = TranscriptDraft(readable=False)
    draft.add(word("go", 0.0))
    found = draft.build(1.0, "m")
    assert [s.text for s in found.segments] == ["go"] and found.alternatives == ()


def test_a_silent_transcript_has_no_segments():
    session = begin()
    draft = TranscriptDraft(readable=False, nbest=2)
    for event in session.finish():
        draft.add(event)
    found = draft.build(0.0, "m")
    assert (found.text, found.segments) == ("", ())


def test_files_and_streams_have_the_same_segments():
    whole = MODEL.transcribe(FOLDER / "river.flac", nbest=2)
    samples = read_speech()
    session = MODEL.session(nbest=2)
    draft = TranscriptDraft(readable=False, nbest=2)
    for at in range(0, len(samples), 320):
        for event in session.push(samples[at : at + 320]):
            draft.add(event)
    for event in session.finish():
        draft.add(event)
    found = draft.build(len(samples) / 16000, "tiny")
    assert [(s.text, s.start_s, s.end_s) for s in found.segments] == [
        (s.text, s.start_s, s.end_s) for s in whole.segments
    ]
    assert np.allclose(
        [s.confidence for s in found.segments], [s.confidence for s in whole.segments], atol=1e-4
    )
