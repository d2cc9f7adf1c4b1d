"""A session is a value: the words are a function of the samples and the flushes alone."""

import random
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from audiossm.checkpoint import save_model
from audiossm.config import to_dict
from audiossm.errors import AudioError, ConfigError, SessionError
from audiossm.nn import named_tensors
from audiossm.streaming import Endpoint, Event, Session, Token, Transcriber, Word
from tiny_model import make_transcriber, read_speech

Samples = NDArray[np.float32]
MODEL = make_transcriber()
SPEECH = read_speech()[:24000]  # 1.5 s at 16 kHz; at another rate it is other audio, as good
SHORT = SPEECH[6000:10000]

few = settings(max_examples=8, deadline=None, derandomize=True)
each_rate = pytest.mark.parametrize("rate", [16000, 44100, 8000])
places = st.integers(0, len(SPEECH))


def cut(samples: Samples, sizes: Sequence[int]) -> Iterator[Samples]:
    """Cut samples into pieces of these sizes, over and over."""
    at = turn = 0
    while at < len(samples):
        size = sizes[turn % len(sizes)]
        yield samples[at : at + size]
        at, turn = at + size, turn + 1


def feed(session: Session, pieces: Iterator[Samples]) -> list[Event]:
    return [event for piece in pieces for event in session.push(piece)]


def run(samples: Samples, sizes: Sequence[int], rate: int = 16000, ahead: int = 320) -> list[Event]:
    session = MODEL.session(rate, ahead)
    return feed(session, cut(samples, sizes)) + session.finish()


def assert_same(found: list[Event], expected: list[Event]) -> None:
    """Tokens, frames, words and times are equal; probabilities are as near as float32 sums are."""
    assert found == [
        type(b)(
            **(vars(b) | {name: getattr(a, name) for name in ("confidence",) if name in vars(b)})
        )
        for a, b in zip(found, expected, strict=True)
    ]
    for a, b in zip(found, expected, strict=True):
        if not isinstance(a, Endpoint):
            assert a.confidence == pytest.approx(b.confidence, abs=1e-4)


def frames_of(events: list[Event]) -> list[int]:
    return [event.frame for event in events if isinstance(event, Token)]


@each_rate
@pytest.mark.parametrize("ahead", [320, 160, 0])
def test_the_pieces_in_which_samples_come_change_nothing(rate, ahead):
    whole = run(SPEECH, [len(SPEECH)], rate, ahead)
    assert len(frames_of(whole)) > 20 and any(isinstance(event, Word) for event in whole)
    for milliseconds in (20, 37, 1000):
        size = rate * milliseconds // 1000
        assert_same(run(SPEECH, [size], rate, ahead), whole)
    rng = random.Random(rate + ahead)
    for _ in range(3):
        sizes = [rng.randint(0, rng.choice([3, 700, 9000])) for _ in range(50)] + [5]
        assert_same(run(SPEECH, sizes, rate, ahead), whole)


@each_rate
@few
@given(sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=12).filter(any))
def test_any_pieces_give_the_same_events(rate, sizes):
    assert_same(run(SPEECH[:9000], [*sizes, 640], rate), run(SPEECH[:9000], [9000], rate))


@each_rate
def test_single_samples_give_the_same_events(rate):
    assert_same(run(SHORT, [1], rate), run(SHORT, [len(SHORT)], rate))


def test_events_come_before_the_end_and_never_change():
    session = MODEL.session(lookahead_ms=160)
    early = session.push(SPEECH[:12000])
    assert frames_of(early)[-1] > 20
    assert frames_of(early)[-1] * 320 + 2560 < 12000
    rest = session.push(SPEECH[12000:]) + session.finish()
    assert_same(early + rest, run(SPEECH, [len(SPEECH)], ahead=160))


def test_tokens_come_as_soon_as_the_lookahead_allows():
    session = MODEL.session(lookahead_ms=160)
    found = [session.push(piece) for piece in cut(SPEECH, [640])]
    for number, events in enumerate(found):
        for frame in frames_of(events):
            # a piece is a backbone frame of two label frames; four of them are the look-ahead
            assert frame // 2 == number - 4


def test_words_hold_the_tokens_between_breaks():
    events = run(SPEECH, [len(SPEECH)])
    pieces = "".join(event.piece for event in events if isinstance(event, Token))
    words = [event for event in events if isinstance(event, Word)]
    assert "".join(word.word for word in words) == pieces.replace("▁", "")
    assert [word.start_s for word in words] == sorted(word.start_s for word in words)
    for word in words:
        assert 0 <= word.start_s < word.end_s <= len(SPEECH) / 16000
        assert 0 < word.confidence <= 1


def test_the_word_in_progress_can_be_read():
    session = MODEL.session()
    pieces = "".join(e.piece for e in feed(session, cut(SPEECH, [999])) if isinstance(e, Token))
    assert session.partial and pieces.endswith(session.partial)


def test_a_long_push_equals_short_ones():
    long = np.tile(SPEECH, 43)  # 64 s: two whole steps and a rest
    session = MODEL.session()
    assert_same(session.push(long) + session.finish(), run(long, [16000]))


def test_frames_go_on_for_hours_and_the_state_does_not_grow():
    session = MODEL.session(44100)
    session.push(SPEECH)
    size = len(session.snapshot())
    for _ in range(40):
        session.push(np.tile(SPEECH, 5))
    assert session.samples_received == 201 * len(SPEECH)
    assert len(session.snapshot()) == size


@few
@given(at=st.lists(places, max_size=4), rate=st.sampled_from([16000, 44100, 8000]))
def test_a_restored_session_goes_on_exactly(at, rate):
    session, pieces = MODEL.session(rate), np.split(SPEECH, sorted(at))
    straight = MODEL.session(rate)
    found, expected = [], []
    for piece in pieces:
        found += session.push(piece)
        expected += straight.push(piece)
        session = Session.restore(MODEL, session.snapshot())
    assert found + session.finish() == expected + straight.finish()  # to the last bit


def test_a_restored_session_is_the_one_that_was_stored():
    session = MODEL.session(44100, 160)
    session.push(SPEECH[:5001])
    data = session.snapshot()
    restored = Session.restore(MODEL, data)
    assert restored.snapshot() == data
    assert (restored.sample_rate, restored.lookahead_ms) == (44100, 160)
    assert (restored.samples_received, restored.partial) == (5001, session.partial)


def test_a_finished_session_is_finished_after_its_restoration():
    session = MODEL.session()
    session.finish()
    with pytest.raises(SessionError, match="finished"):
        Session.restore(MODEL, session.snapshot()).push(SHORT)


def test_a_session_goes_on_in_another_process(tmp_path):
    config = {"recogniser": to_dict(MODEL.config)}
    save_model(tmp_path / "tiny", "recogniser", "", config, MODEL.network.state_dict())
    model = Transcriber.load(tmp_path / "tiny")
    session = model.session(44100)
    session.push(SPEECH[:7001])
    (tmp_path / "session").write_bytes(session.snapshot())
    np.save(tmp_path / "rest.npy", SPEECH[7001:])
    script = """
        import sys
        from pathlib import Path
        import numpy as np
        import torch
        from audiossm.streaming import Session, Transcriber
        torch.set_num_threads(1)
        folder = Path(sys.argv[1])
        model = Transcriber.load(folder / "tiny")
        session = Session.restore(model, (folder / "session").read_bytes())
        print(session.push(np.load(folder / "rest.npy")) + session.finish())
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    expected = session.push(SPEECH[7001:]) + session.finish()
    assert len(frames_of(expected)) > 10
    assert output.strip() == str(expected)


@few
@given(at=places)
def test_a_fork_and_its_session_do_not_disturb_each_other(at):
    session = MODEL.session()
    early = session.push(SPEECH[:at])
    before = session.snapshot()
    fork = session.fork()
    fork.push(SPEECH[::-1])
    fork.finish()
    assert session.snapshot() == before
    other = session.fork()
    rest = session.push(SPEECH[at:]) + session.finish()
    assert_same(early + rest, run(SPEECH, [len(SPEECH)]))
    assert other.push(SPEECH[at:]) + other.finish() == rest


def test_sessions_of_one_model_do_not_disturb_each_other():
    sessions = [MODEL.session(), MODEL.session(44100), MODEL.session(lookahead_ms=0)]
    signals = [SPEECH, SPEECH[::-1].copy(), -SPEECH]
    found: list[list[Event]] = [[], [], []]
    for at in range(0, len(SPEECH), 1500):
        for events, session, signal in zip(found, sessions, signals, strict=True):
            events += session.push(signal[at : at + 1500])
    for i, (rate, ahead) in enumerate([(16000, 320), (44100, 320), (16000, 0)]):
        assert_same(found[i] + sessions[i].finish(), run(signals[i], [99999], rate, ahead))


@pytest.mark.parametrize("decoder", ["greedy", "beam"])
def test_sessions_of_one_model_may_run_in_several_threads(decoder):
    def talk(seed: int) -> list[Event]:
        rng, events, at = random.Random(seed), [], 0
        session = Session(MODEL, decoder=decoder)
        signal = SPEECH if seed % 2 else SPEECH[::-1].copy()
        while at < len(signal):
            size = rng.randint(300, 3000)
            events += session.push(signal[at : at + size])
            at += size
        return events + session.finish()

    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(talk, range(12)))
    for seed, events in enumerate(found):
        assert_same(events, talk(seed))


def run_with_flushes(
    flushes: Sequence[int], sizes: Sequence[int], rate: int = 16000, restore: bool = False
) -> list[Event]:
    """Feed the speech, cut at the flushes and into sizes, perhaps with a restoration at each."""
    session, events, at = MODEL.session(rate), [], 0
    for flush in sorted(flushes):
        events += feed(session, cut(SPEECH[at:flush], sizes))
        if restore:
            session = Session.restore(MODEL, session.snapshot())
        events += session.flush()
        if restore:
            session = Session.restore(MODEL, session.snapshot())
        at = flush
    return events + feed(session, cut(SPEECH[at:], sizes)) + session.finish()


@few
@given(
    flushes=st.lists(places, min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=5),
    rate=st.sampled_from([16000, 44100, 8000]),
)
def test_with_flushes_the_words_depend_on_samples_and_flush_positions_only(flushes, sizes, rate):
    whole = run_with_flushes(flushes, [len(SPEECH)], rate)
    assert_same(run_with_flushes(flushes, sizes, rate), whole)
    assert_same(run_with_flushes(flushes, sizes, rate, restore=True), whole)


@few
@given(flushes=st.lists(places, min_size=1, max_size=5))
def test_no_label_frame_is_told_twice(flushes):
    frames = frames_of(run_with_flushes(flushes, [2000]))
    assert all(a < b for a, b in zip(frames, frames[1:], strict=False))


@few
@given(at=places)
def test_a_flush_tells_what_the_end_would_tell(at):
    session = MODEL.session()
    early = session.push(SPEECH[:at])
    told = early + session.flush()
    assert_same(told, run(SPEECH[:at], [len(SPEECH)]))
    assert session.partial == ""


def test_what_follows_a_flush_is_heard_as_if_there_had_been_none():
    plain = run(SPEECH, [len(SPEECH)])
    flushed = run_with_flushes([10000], [len(SPEECH)])
    # label frames of 10000 samples, the last one filled up, and those of the silence after them
    first = 32 + 2 * MODEL.tail_frames
    late = [event for event in plain if isinstance(event, Token) and event.frame >= first]
    again = [event for event in flushed if isinstance(event, Token) and event.frame >= first]
    assert_same(again, late)


@each_rate
def test_the_last_word_may_be_heard_after_the_end_and_lies_before_it(rate):
    session, longer = MODEL.session(rate), MODEL.session(rate)
    samples = SPEECH[: rate // 2]
    events = session.push(samples) + session.finish()
    last = session.frames_taken + 2 * MODEL.tail_frames
    silence = np.zeros(rate // 2, np.float32)
    heard = longer.push(np.concatenate([samples, silence])) + longer.finish()
    assert frames_of(events) == [frame for frame in frames_of(heard) if frame < last]
    assert frames_of(events)[-1] >= session.frames_taken
    assert session.samples_received == len(samples)
    assert [event.time_s for event in events if isinstance(event, Endpoint)][-1] == 0.5
    times = [(e.start_s, e.end_s) for e in events if isinstance(e, Word)]
    assert times and all(0 <= start < end <= 0.5 for start, end in times)


def test_what_a_flush_hears_after_the_end_is_not_told_again():
    silence = np.zeros(16000, np.float32)
    session = MODEL.session()
    told = session.push(SPEECH[:9600]) + session.flush()
    assert frames_of(told)[-1] >= 30
    again = session.push(silence) + session.finish()
    assert frames_of(again)[0] >= 30 + 2 * MODEL.tail_frames
    whole = run(np.concatenate([SPEECH[:9600], silence]), [50000])
    assert frames_of(told + again) == frames_of(whole)


def test_a_flush_before_any_sample_changes_nothing():
    session = MODEL.session()
    before = session.snapshot()
    assert session.flush() == []
    assert session.snapshot() == before


def test_a_second_flush_has_nothing_to_tell():
    session = MODEL.session()
    session.push(SPEECH[:10000])
    assert session.flush() != []
    assert session.flush() == []


def test_a_flush_at_the_very_end_leaves_nothing_for_the_finish():
    session = MODEL.session(44100)
    events = session.push(SPEECH) + session.flush()
    assert_same(events, run(SPEECH, [len(SPEECH)], 44100))
    assert session.finish() == []


def test_an_empty_session_has_no_words():
    assert MODEL.session().finish() == []
    session = MODEL.session(44100)
    assert session.push(np.zeros(0, np.float32)) == []
    assert session.finish() == []


@each_rate
@pytest.mark.parametrize("ahead", [320, 0])
def test_one_sample_is_a_whole_recording(rate, ahead):
    session = MODEL.session(rate, ahead)
    assert session.push(SHORT[:1]) == []
    session.finish()
    assert session.frames_taken == 2  # it is filled up to a backbone frame


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "sample nan at 0.250 s is not a finite number"),
        (-np.inf, "sample -inf at 0.250 s is not a finite number"),
        (1e30, "sample 1e\\+30 at 0.250 s is far outside \\[-1, 1\\]"),
    ],
)
def test_a_sample_that_is_no_sound_is_refused_and_the_session_goes_on_as_before(value, message):
    session = MODEL.session()
    events = session.push(SPEECH[:3000])
    broken = SPEECH[3000:9000].copy()
    broken[1000] = value
    before = session.snapshot()
    with pytest.raises(AudioError, match=message):
        session.push(broken)
    assert session.snapshot() == before
    events += session.push(SPEECH[3000:]) + session.finish()
    assert_same(events, run(SPEECH, [len(SPEECH)]))


def test_a_number_too_large_for_float32_is_refused():
    with pytest.raises(AudioError, match=r"far outside \[-1, 1\]"):
        MODEL.session().push(np.array([0.0, 1e300]))


def test_other_float_types_are_taken():
    samples = SHORT.astype(np.float16)
    for dtype in (np.float16, np.float64):
        assert_same(run(samples.astype(dtype), [999]), run(samples.astype(np.float32), [999]))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(5, np.int16), r"float samples, got int16 of shape \(5,\)"),
        (np.zeros((1, 5), np.float32), r"one channel .* got float32 of shape \(1, 5\)"),
        (np.zeros((), np.float32), r"got float32 of shape \(\)"),
        (np.zeros(5, np.complex64), "got complex64"),
        (np.zeros(5, bool), "got bool"),
    ],
)
def test_what_is_not_one_channel_of_floats_is_refused(samples, message):
    with pytest.raises(AudioError, match=message):
        MODEL.session().push(samples)


def test_the_samples_may_be_written_over_after_a_push():
    session, block, events = MODEL.session(), np.zeros(500, np.float32), []
    for piece in cut(SPEECH, [500]):
        block[:] = piece
        events += session.push(block)
        block[:] = 9.0
    assert_same(events + session.finish(), run(SPEECH, [len(SPEECH)]))


def test_a_finished_session_refuses_everything():
    session = MODEL.session()
    session.push(SHORT)
    session.finish()
    for use in (lambda: session.push(SHORT), session.flush, session.finish):
        with pytest.raises(SessionError, match="this session is finished: begin another one"):
            use()


def test_a_lookahead_that_the_model_has_not_is_refused():
    with pytest.raises(ConfigError, match=r"look-ahead of 100 ms: .* has \(0, 160, 320\) ms"):
        MODEL.session(16000, 100)


def test_a_sample_rate_that_is_none_is_refused():
    with pytest.raises(AudioError, match="sample rate 0 Hz"):
        MODEL.session(0)


def test_gradients_are_not_kept():
    session = MODEL.session()
    session.push(SPEECH)
    states = session.resample_state, session.buffer_state, session.network_state
    assert all(not tensor.requires_grad for _, tensor in named_tensors(states))
    assert torch.is_grad_enabled()


def test_a_restored_session_can_be_told_to_keep_its_numerics(monkeypatch):
    session = MODEL.session()
    session.push(SPEECH)  # so long a piece is torch's business
    data = session.snapshot()
    anew, same = Session.restore(MODEL, data), Session.restore(MODEL, data, same_numerics=True)
    monkeypatch.setattr(type(MODEL.ways), "choose", lambda ways, num_frames: "another way")
    assert same.push(SHORT[:640]) == session.push(SHORT[:640])
    assert same.profile == session.profile
    monkeypatch.setattr(type(MODEL.ways), "choose", lambda ways, num_frames: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # it chooses by what comes next
        anew.push(SHORT[:640])
