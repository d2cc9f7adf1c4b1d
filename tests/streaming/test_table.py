"""A table of streams: each is told what its session tells, and moves to one and back."""

import copy
import random

import numpy as np
import pytest
import torch

from audiossm.errors import AudioError, BusyError, ConfigError, SessionError, ShapeError
from audiossm.streaming import Endpoint, EndpointRules, Event, Session, Transcriber, Word
from audiossm.streaming.session import DEFAULT_RULES
from audiossm.streaming.table import StreamTable
from tiny_model import make_transcriber, read_speech

MODEL = make_transcriber()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CARD = Transcriber(
    copy.deepcopy(MODEL.network),
    name=MODEL.name,
    model_hash=MODEL.hash,
    device=torch.device(DEVICE),
)
SPEECH = read_speech()[:40000]
QUIET = np.concatenate([np.zeros(50000, np.float32), SPEECH[:9000]])
FRAME = MODEL.config.frame_size
SOUNDS = [SPEECH, SPEECH[::-1].copy(), -0.7 * SPEECH[:33333], QUIET, SPEECH[:5]]
RULES = EndpointRules(silence_s=0.3, pause_s=0.1, longest_s=0.5)
LOOKAHEADS = [320, 0, 160, 320, 320]


def simple(events: list[Event]) -> list[tuple[object, ...]]:
    """Words and endpoints; times and words are exact, confidences nearly."""
    told: list[tuple[object, ...]] = []
    for event in events:
        if isinstance(event, Word):
            told.append((event.word, event.start_s, event.end_s, round(event.confidence, 2)))
        elif isinstance(event, Endpoint):
            told.append((event.rule, event.time_s, event.start_s, event.end_s))
    return sorted(told, key=str)


def alone(samples: np.ndarray, lookahead_ms: int = 320) -> list[tuple[object, ...]]:
    session = Session(MODEL, lookahead_ms=lookahead_ms, endpoints=RULES)
    return simple(session.push(samples) + session.finish())


def run(table: StreamTable, told: dict[int, list[Event]]) -> set[int]:
    """Tick until nothing is left; return who finished."""
    finished: set[int] = set()
    while table.start() or table.flights or table.done:
        heard = table.collect()
        if heard is not None:
            finished |= set(heard.finished.tolist())
            for slot, event in table.events(heard):
                told.setdefault(slot, []).append(event)
    return finished


def push(table: StreamTable, slot: int, samples: np.ndarray) -> None:
    table.push(np.array([slot]), samples[None])


def test_each_stream_is_told_what_its_session_tells():
    rng = random.Random(0)
    table = StreamTable(CARD, 7, max_rows=3, endpoints=RULES)
    table.open(1)  # it never says a word
    slots = [int(table.open(1, ms)[0]) for ms in LOOKAHEADS]
    told: dict[int, list[Event]] = {slot: [] for slot in slots}
    at = dict.fromkeys(slots, 0)
    sounds = dict(zip(slots, SOUNDS, strict=True))
    waiting, finished = set(slots), set()
    while waiting:
        for slot in list(waiting):
            size = rng.choice([1, 77, FRAME, FRAME, 2 * FRAME])
            if table.have[slot] + size > table.capacity:
                continue
            push(table, slot, sounds[slot][at[slot] : at[slot] + size])
            at[slot] += size
            if at[slot] >= len(sounds[slot]):
                table.finish([slot])
                waiting.remove(slot)
        table.start()  # another one may be on its way
        heard = table.collect() if len(table.flights) == 2 or rng.random() < 0.5 else None
        if heard is not None:
            finished |= set(heard.finished.tolist())
            for slot, event in table.events(heard):
                told[slot].append(event)
    finished |= run(table, told)
    assert finished == set(slots)
    for slot, sound, ms in zip(slots, SOUNDS, LOOKAHEADS, strict=True):
        assert simple(told[slot]) == alone(sound, ms)
    assert all(len(told[slot]) > 5 for slot in slots[:3])
    ends = {event.rule for slot in slots for event in told[slot] if isinstance(event, Endpoint)}
    assert ends >= {"length", "end"}
    table.close(slots)
    assert table.num_free == 6


def test_many_streams_are_pushed_in_one_call():
    table = StreamTable(CARD, 4)
    slots = table.open(3)
    rows = np.stack([SPEECH[:FRAME], SPEECH[FRAME : 2 * FRAME], SPEECH[:FRAME]])
    table.push(slots, rows)
    table.push(slots, rows)
    assert table.start() == 3 and table.start() == 3
    with pytest.raises(SessionError, match="2 steps are on their way"):
        table.start()
    first, second = table.collect(), table.collect()
    assert first.advanced.tolist() == second.advanced.tolist() == slots.tolist()
    assert table.collect() is None and table.tick() is None
    assert table.taken[slots].tolist() == [2, 2, 2]


@pytest.mark.parametrize("through_bytes", [False, True])
def test_a_stream_moves_into_a_session_and_back(through_bytes):
    table, told = StreamTable(CARD, 2, endpoints=RULES), {}
    slot = int(table.open()[0])
    for start in range(0, 15000, 500):
        push(table, slot, SPEECH[start : start + 500])
        run(table, told)
    session = table.take_out(slot)
    assert session.profile == f"slots-float32-{DEVICE}"
    if through_bytes:
        session = Session.restore(MODEL, session.snapshot())
    table.close([slot])
    # a session goes on with it
    events = [*told[slot], *session.push(SPEECH[15000:25000])]
    if through_bytes:
        session = Session.restore(MODEL, session.snapshot())
    # and then a slot again, beside another stream
    other = int(table.open()[0])
    push(table, other, SPEECH[:FRAME])
    again, later = table.put_in(session), {}
    for start in range(25000, 40000, 1000):
        push(table, again, SPEECH[start : start + 1000])
        run(table, later)
    table.finish([again])
    assert run(table, later) == {again}
    assert simple(events + later[again]) == alone(SPEECH)


def test_a_taken_out_state_is_the_sessions_own():
    table = StreamTable(CARD, 1)
    (slot,) = table.open()
    push(table, slot, SPEECH[:FRAME])
    run(table, {})
    push(table, slot, SPEECH[FRAME : 2 * FRAME + 100])
    run(table, {})
    session = Session(MODEL)
    session.push(SPEECH[: 2 * FRAME + 100])
    session.network_state = session.network_state  # turned back
    ours, theirs = table.take_out(int(slot))._arrays(), session._arrays()
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype
        np.testing.assert_allclose(ours[name], array, rtol=1e-3, atol=1e-3, err_msg=name)


def test_a_spoiled_stream_is_told_and_the_others_go_on():
    table, told = StreamTable(CARD, 3, endpoints=RULES), {}
    slots = table.open(3)
    for start in range(0, 12 * FRAME, FRAME):
        table.push(slots, np.tile(SPEECH[start : start + FRAME], (len(slots), 1)))
        if start == 5 * FRAME:
            table.slots.state.lower[0].ssm[int(slots[1])] = np.nan
        heard = table.tick()
        for slot, event in table.events(heard):
            told.setdefault(slot, []).append(event)
        if len(heard.failed):
            assert heard.failed.tolist() == [slots[1]] and start == 5 * FRAME
            slots = slots[[0, 2]]
    with pytest.raises(SessionError, match="take no samples"):
        push(table, 1, SPEECH[:10])
    with pytest.raises(SessionError, match="can't be taken out"):
        table.take_out(1)
    table.close([1])
    assert int(table.open()[0]) == 1
    table.finish(slots)
    assert run(table, told) == {0, 2}
    assert simple(told[0]) == simple(told[2]) == alone(SPEECH[: 12 * FRAME])


def test_no_slot_no_room_no_sound():
    table = StreamTable(CARD, 2, buffer_frames=2)
    slots = table.open(2)
    with pytest.raises(BusyError, match="1 streams, but 0 slots are free"):
        table.open()
    with pytest.raises(ConfigError, match="look-ahead of 7 ms"):
        table.open(0, 7)
    with pytest.raises(BusyError, match=f"a stream may have {2 * FRAME}"):
        table.push(slots, np.zeros((2, 2 * FRAME + 1), np.float32))
    bad = np.zeros((2, 10), np.float32)
    bad[1, 3] = np.nan
    with pytest.raises(AudioError, match=f"slot {slots[1]}: sample nan at 0.000 s"):
        table.push(slots, bad)
    assert not table.have.any() and not table.received.any()
    with pytest.raises(ShapeError, match="push takes"):
        table.push(slots, np.zeros((2, 10)))
    with pytest.raises(ConfigError, match="can't take a session"):
        table.put_in(Session(MODEL, endpoints=EndpointRules(pause_s=1)))
    with pytest.raises(BusyError, match="all 2 slots"):
        table.put_in(Session(MODEL))
    push(table, int(slots[0]), SPEECH[: FRAME + 5])
    with pytest.raises(SessionError, match="has a frame waiting"):
        table.take_out(int(slots[0]))
    table.start()
    with pytest.raises(SessionError, match="is in a step on its way"):
        table.close([int(slots[0])])
    with pytest.raises(ConfigError, match="0 buffer_frames"):
        StreamTable(CARD, 2, buffer_frames=0)
    assert DEFAULT_RULES == table.endpoints
