"""A session with hot words, changed on the way, keeps the promises of every session."""

import json
from collections.abc import Sequence

import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.errors import ConfigError, HotwordError, SessionError, SnapshotError
from audiossm.hotwords import HotWord
from audiossm.streaming import Event, Session, Word
from audiossm.streaming.snapshot import pack, unpack
from session_runs import plain, run_pieces
from tiny_model import make_transcriber, read_speech

MODEL = make_transcriber()
SPEECH = read_speech()[:24000]
# the model's nonsense is never far from two letters
PAIRS = [HotWord(a + b, 4) for a in "aeiou" for b in "bdgklmnprstvxz"]
PHRASES = [HotWord(f"{a}t {b}n", 4) for a in "aeiou" for b in "aeiou"]
LISTS = ([], PAIRS, PHRASES, [*PHRASES, "zebra"])

few = settings(max_examples=6, deadline=None, derandomize=True)
places = st.integers(0, len(SPEECH))


def begin(hotwords: Sequence[str | HotWord] = ()) -> Session:
    return Session(MODEL, 16000, 320, "beam", hotwords)


def run(
    changes: Sequence[tuple[int, int]],
    sizes: Sequence[int],
    flushes: Sequence[int] = (),
    restore: bool = False,
) -> list[Event]:
    """Feed the speech in pieces of these sizes, with new hot words and flushes on the way."""
    stops = [(at, lambda session, to=LISTS[number]: session.set_hotwords(to))
             for at, number in changes]  # fmt: skip
    stops = [(at, Session.flush) for at in flushes] + stops
    return run_pieces(begin(PAIRS), SPEECH, sizes, stops, restore)


def words_of(events: list[Event]) -> list[str]:
    return [event.word for event in events if isinstance(event, Word)]


def test_hot_words_are_written_more_readily():
    pairs = {word.phrase for word in PAIRS}
    session = begin()
    without = words_of(session.push(SPEECH) + session.finish())
    with_them = words_of(run([], [len(SPEECH)]))
    assert len(pairs & set(with_them)) > len(pairs & set(without))


@few
@given(
    changes=st.lists(st.tuples(places, st.integers(0, len(LISTS) - 1)), max_size=3),
    flushes=st.lists(places, max_size=2),
    sizes=st.lists(st.integers(500, 5000), min_size=1, max_size=5),
)
def test_the_words_depend_on_samples_and_positions_only(changes, flushes, sizes):
    whole = run(changes, [len(SPEECH)], flushes)
    assert plain(run(changes, sizes, flushes)) == plain(whole)
    assert plain(run(changes, sizes, flushes, restore=True)) == plain(whole)


def test_a_change_counts_from_its_frame_on():
    early = run([(0, 0)], [4000])
    session = begin()
    assert plain(early) == plain(session.push(SPEECH) + session.finish())
    late = run([(0, 0), (12000, 1)], [4000])
    told_before = begin().push(SPEECH[:12000])
    assert plain(late)[: len(told_before)] == plain(told_before)
    assert plain(late) != plain(early)
    assert plain(late) != plain(run([], [4000]))


@few
@given(at=places)
def test_a_snapshot_carries_the_hot_words(at):
    session = begin(PAIRS)
    session.push(SPEECH[:at])
    session.set_hotwords(PHRASES)
    data = session.snapshot()
    restored = Session.restore(MODEL, data)
    assert restored.hotwords == session.hotwords and len(restored.hotwords) == len(PHRASES)
    assert restored.snapshot() == data
    assert restored.push(SPEECH[at:]) == session.push(SPEECH[at:])
    assert restored.finish() == session.finish()


def test_a_fork_has_hot_words_of_its_own():
    session = begin(PAIRS)
    session.push(SPEECH[:9000])
    fork = session.fork()
    assert fork.hotwords == session.hotwords
    fork.set_hotwords([])
    expected = run([], [9000, len(SPEECH)])
    fork.push(SPEECH[9000:])
    assert session.hotwords and not fork.hotwords
    found = begin(PAIRS).push(SPEECH[:9000]) + session.push(SPEECH[9000:]) + session.finish()
    assert plain(found) == plain(expected)


def test_what_is_refused_leaves_the_session_as_it_was():
    session = begin(PAIRS)
    session.push(SPEECH[:9000])
    before = session.snapshot()
    with pytest.raises(HotwordError, match="'room 5' has '5'"):
        session.set_hotwords(["room 5"])
    assert session.snapshot() == before
    session.finish()
    with pytest.raises(SessionError, match="finished"):
        session.set_hotwords([])


def test_greedy_sessions_refuse_hot_words():
    with pytest.raises(ConfigError, match="can't weigh hot words"):
        Session(MODEL, hotwords=["anna"])
    session = Session(MODEL)
    session.set_hotwords([])
    before = session.snapshot()
    with pytest.raises(ConfigError, match="can't weigh hot words"):
        session.set_hotwords(["anna"])
    assert session.snapshot() == before


@pytest.mark.parametrize("value", ["[", "5", "[5]", '[["a b", "x"]]', '[["5", 1]]', '[["a"]]'])
def test_damaged_hot_words_in_a_snapshot_are_refused(value):
    arrays, header = unpack(begin(["anna"]).snapshot(), {})
    assert json.loads(header["hotwords"]) == [["anna", 1.0]]
    with pytest.raises(SnapshotError, match="header is damaged"):
        Session.restore(MODEL, pack(arrays, header | {"hotwords": value}))


def test_a_model_takes_hot_words_for_sessions_and_recordings(tmp_path, monkeypatch):
    path = tmp_path / "speech.wav"
    soundfile.write(path, SPEECH, 16000, subtype="FLOAT")
    model = make_transcriber()
    monkeypatch.setattr(model, "decoder", "beam")
    session = model.session(hotwords=PAIRS)
    words = session.push(SPEECH) + session.finish()
    transcript = model.transcribe(path, hotwords=iter(PAIRS))
    assert transcript.text.split() == words_of(words)
    assert transcript.text != model.transcribe(path).text
    monkeypatch.setattr(model, "decoder", "greedy")
    with pytest.raises(ConfigError, match="can't weigh hot words"):
        model.transcribe(path, hotwords=["anna"])
