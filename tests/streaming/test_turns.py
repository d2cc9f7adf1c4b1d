"""Whose turn it is and what is in it: grains of audio, who goes first, how many fit."""

import asyncio
import threading
import time

import numpy as np
import pytest

from audiossm.errors import BusyError
from audiossm.streaming import Engine, EngineLimits, capacity
from audiossm.streaming.dispatcher import TICK_S
from audiossm.streaming.pool import Pool
from audiossm.streaming.slot import FAVOUR_S, MAX_BEFORE, Slot, Wish
from audiossm.streaming.turns import GRAIN_S
from tiny_model import make_transcriber, read_speech

SPEECH = read_speech()[:32000]
GRAIN = 2560


def make_slot(*wishes: int | str) -> Slot:
    """A slot that was sent so many samples, or asked for something else."""
    slot = Slot("name", 16000, 1, 0.0)
    loop = asyncio.new_event_loop()
    for wish in wishes:
        if isinstance(wish, int):
            slot.put(Wish(loop.create_future(), samples=np.zeros(wish, np.float32)))
        else:
            slot.put(Wish(loop.create_future(), act=print, urgent=wish == "urgent"))
    loop.close()
    return slot


def taken(slot: Slot, grain: int = GRAIN) -> list[int | str]:
    return ["act" if w.samples is None else len(w.samples) for w in slot.take(3 * GRAIN, grain)]


def test_a_turn_has_whole_grains_of_what_nobody_waits_for():
    slot = make_slot(1600)
    assert taken(slot) == []
    slot.put(make_slot(1600).inbox[0])
    assert taken(slot) == [1600, 960]
    assert taken(slot) == []  # 640 are left
    slot.put(make_slot(20000).inbox[0])
    assert sum(taken(slot)) == 3 * GRAIN  # one turn's share
    assert sum(taken(slot)) == 3 * GRAIN
    assert sum(taken(slot)) == 2 * GRAIN
    assert taken(slot) == [] and sum(len(w.samples) for w in slot.inbox) == 160


def test_a_grain_of_one_sample_takes_what_there_is():
    assert taken(make_slot(1600), grain=1) == [1600]


def test_whoever_waits_for_an_answer_gets_one_without_a_whole_grain():
    slot = make_slot(1600, "act")
    assert [taken(slot), taken(slot)] == [[1600], ["act"]]
    slot = make_slot(100)
    slot.inbox[0].prompt = True
    assert taken(slot) == [100]


def test_samples_that_waited_long_enough_are_taken_once():
    slot = make_slot(100)
    slot.hurry = True
    assert taken(slot) == [100]
    slot.put(make_slot(100).inbox[0])
    assert taken(slot) == []


def test_an_urgent_wish_with_little_before_it_is_urgent():
    assert make_slot(1600, "urgent").is_urgent
    assert not make_slot(1600, "act").is_urgent and not make_slot().is_urgent
    assert not make_slot(*[100] * MAX_BEFORE, "urgent").is_urgent


def test_a_stream_is_favoured_now_and_then_only():
    slot = make_slot()
    assert slot.favour(0.0) and not slot.favour(FAVOUR_S / 2) and slot.favour(FAVOUR_S)


@pytest.mark.parametrize("waits_already", [False, True])
def test_an_urgent_job_goes_to_the_front_of_the_line(waits_already):
    urgent: set[str] = set()
    order: list[str] = []
    begin, done = threading.Event(), threading.Event()

    def turn(job: str) -> bool:
        begin.wait(10)
        order.append(job)
        if len(order) == 4:
            done.set()
        return False

    pool: Pool[str] = Pool(1, turn, lambda _: None, urgent.__contains__)
    pool.wake("first")
    while pool.num_waiting:
        time.sleep(0.001)
    for job in ("b", "c", *(["urgent"] if waits_already else [])):
        pool.wake(job)
    urgent.add("urgent")
    pool.wake("urgent")
    begin.set()
    assert done.wait(10)
    pool.close()
    assert order == ["first", "urgent", "b", "c"]


def test_with_more_streams_than_threads_audio_is_heard_in_grains_and_nothing_is_left_over():
    async def main() -> None:
        async with Engine(make_transcriber(), None, 1, EngineLimits(capacity=4)) as engine:
            names = [await engine.open() for _ in range(3)]
            while not engine.is_coarse:
                await asyncio.sleep(TICK_S / 10)
            piece = round(GRAIN_S * 16000) // 2
            futures = [engine.submit(names[0], SPEECH[:piece])]
            await engine.push(names[1], SPEECH[:piece])  # isn't kept waiting
            assert not futures[0].done() and engine.progress(names[0]).heard == 0
            futures.append(engine.submit(names[0], SPEECH[piece : 2 * piece]))
            await asyncio.wait_for(asyncio.gather(*futures), 10)
            assert engine.progress(names[0]).heard == 2 * piece
            # nothing follows: what is less than a grain is heard all the same
            await asyncio.wait_for(engine.submit(names[0], SPEECH[:100]), 10)

    asyncio.run(main())


def test_nobody_is_let_in_while_live_streams_lag_but_a_file_is_no_lag():
    async def main() -> None:
        async with Engine(make_transcriber(), None, 1, EngineLimits(capacity=9)) as engine:
            name = await engine.open()
            slot = engine.slots[name]
            slot.received = slot.backlog = 9600  # 0.6 s, within a second of its begin
            assert slot.is_live(time.monotonic()) and engine.lag_s == 0.6
            with pytest.raises(BusyError, match="0.6 s of a stream's audio"):
                await engine.open()
            slot.received = slot.backlog = 160_000
            assert not slot.is_live(time.monotonic()) and engine.lag_s == 0
            slot.since -= 8  # they came in 8 s
            assert slot.is_live(time.monotonic()) and engine.lag_s == 10
            slot.backlog = 0
            await engine.open()

    asyncio.run(main())


def test_the_capacity_is_what_the_threads_get_done(monkeypatch):
    def speak(*_: object) -> float:
        time.sleep(0.05)
        return 5.0

    monkeypatch.setattr(capacity, "speak", speak)
    one, two = (capacity.measure_capacity(make_transcriber(), n) for n in (1, 2))
    assert 20 < one <= 70 < two <= 140


def test_the_clip_that_measures_is_speech():
    clip = capacity.read_clip()
    assert len(clip) > 5 * 16000 and clip.dtype == np.float32 and np.abs(clip).max() > 0.05
