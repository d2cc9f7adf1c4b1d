"""Many streams at once: each is told what it would be told alone, whatever the others do."""

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from audiossm.errors import AudioError, BusyError, ConfigError, SessionError, SnapshotError
from audiossm.nn import map_state
from audiossm.streaming import Engine, EngineLimits, FolderStore, MemoryStore, News, Word
from audiossm.streaming.stream import Finished, Flushed, Refused, Rewound, Stream
from tiny_model import make_transcriber, read_speech

MODEL = make_transcriber()
SPEECH = read_speech()[:32000]
OTHER = SPEECH[::-1].copy()


def run(
    test: Callable[[Engine], Awaitable[None]],
    *,
    store: MemoryStore | FolderStore | None = None,
    workers: int = 2,
    **limits: float,
) -> None:
    limits = {"capacity": 8} | limits

    async def main() -> None:
        async with Engine(MODEL, store, workers, EngineLimits(**limits)) as engine:
            await asyncio.wait_for(test(engine), 60)

    asyncio.run(main())


def words(news: list[News]) -> list[tuple[str, float]]:
    return [(item.event.word, item.event.start_s) for item in news if isinstance(item.event, Word)]


def alone(samples: np.ndarray, rate: int = 16000) -> list[tuple[str, float]]:
    stream = Stream(MODEL.session(rate))
    return words(stream.push(samples) + stream.finish())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def feed(engine: Engine, name: str, samples: np.ndarray, size: int = 1600) -> list[News]:
    news = []
    for at in range(0, len(samples), size):
        news += await engine.push(name, samples[at : at + size])
    return news


def test_streams_at_once_are_told_what_each_would_be_told_alone():
    async def talk(engine: Engine, samples: np.ndarray, rate: int, seed: int) -> None:
        rng = random.Random(seed)
        name = await engine.open(sample_rate=rate)
        news, at = [], 0
        while at < len(samples):
            size = rng.randint(1, 9000)
            news += await engine.push(name, samples[at : at + size])
            at += size
        news += await engine.finish(name)
        assert words(news) == alone(samples, rate) != []
        assert news[-1].event == Finished(len(samples))

    async def test(engine: Engine) -> None:
        kinds = [(SPEECH, 16000), (OTHER, 16000), (SPEECH, 8000), (-SPEECH, 44100)]
        await asyncio.gather(*(talk(engine, *kind, seed) for seed, kind in enumerate(kinds * 2)))
        assert engine.num_resident == 0

    run(test)


def test_pushes_that_nobody_awaits_keep_their_order():
    async def test(engine: Engine) -> None:
        name = await engine.open()
        futures = [engine.submit(name, SPEECH[at : at + 100]) for at in range(0, 32000, 100)]
        assert engine.progress(name).credit < 160000
        last = await engine.finish(name)
        news = [item for future in futures for item in future.result()] + last
        assert [item.seq for item in news] == list(range(1, len(news) + 1))
        assert words(news) == alone(SPEECH)
        assert engine.progress(name).credit == 160000
        assert engine.news(name, 0) == news

    run(test)


def test_a_flush_and_a_rewind_stand_where_they_were_asked_for():
    async def test(engine: Engine) -> None:
        name = await engine.open(keep_s=10)
        engine.submit(name, SPEECH[:16000])
        news = await engine.flush(name)
        assert news[-1].event == Flushed(16000)
        await engine.push(name, SPEECH[16000:24000])
        (item,) = await engine.rewind(name, 10000)
        assert isinstance(item.event, Rewound) and item.event.position == 14000
        (item,) = await engine.set_hotwords(name, ["Anna"])
        assert isinstance(item.event, Refused)
        assert engine.progress(name).durable == 24000  # a rewind is kept at once
        assert engine.progress(name).controls == 3

    run(test)


def test_the_event_loop_is_free_while_others_compute():
    async def test(engine: Engine) -> None:
        names = [await engine.open() for _ in range(4)]
        futures = [engine.submit(name, np.tile(SPEECH, 5)) for name in names]
        late = []
        while not all(future.done() for future in futures):
            started = time.perf_counter()
            await asyncio.sleep(0.005)
            late.append(time.perf_counter() - started)
        assert len(late) > 10 and sorted(late)[len(late) // 2] < 0.1

    run(test)


def test_a_stream_with_much_to_say_does_not_starve_the_others():
    async def test(engine: Engine) -> None:
        greedy, modest = await engine.open(), await engine.open()
        future = engine.submit(greedy, np.tile(SPEECH, 10))  # 20 s
        await asyncio.sleep(0)
        await engine.push(modest, SPEECH[:1600])
        await engine.push(modest, SPEECH[1600:3200])
        assert not future.done()
        assert engine.progress(greedy).credit == 0
        await engine.room(greedy)
        assert engine.progress(greedy).credit > 0
        await engine.close(greedy)
        with pytest.raises(SessionError):
            await future

    run(test, workers=1)


def test_who_comes_when_all_places_are_taken_is_told_when_to_come_again():
    async def test(engine: Engine) -> None:
        names = [await engine.open(), await engine.open()]
        assert engine.is_full
        with pytest.raises(BusyError, match="all 2 places") as caught:
            await engine.open()
        assert caught.value.retry_s == 5
        await engine.finish(names[0])
        assert not engine.is_full
        await engine.open()
        assert engine.meters.refused == 1

    run(test, capacity=2)


def test_nobody_is_let_in_while_turns_wait_too_long():
    async def test(engine: Engine) -> None:
        name = await engine.open()
        for _ in range(200):
            engine.meters.wait.add(1.0)
        other = await engine.open()
        futures = [engine.submit(who, np.tile(SPEECH, 4)) for who in (name, other)]
        await until(lambda: engine._pool.num_waiting > 0)
        with pytest.raises(BusyError, match="overloaded"):
            await engine.open()
        await asyncio.gather(*futures)

    run(test, workers=1)


def test_an_idle_stream_makes_room_and_wakes_as_it_was(tmp_path):
    async def test(engine: Engine) -> None:
        first = await engine.open()
        news = await feed(engine, first, SPEECH[:16000])
        await asyncio.sleep(0.06)
        second = await engine.open()  # takes the place of the first
        await until(lambda: engine.slots[first].stream is None)
        assert engine.num_resident == 1 and engine.meters.hibernated == 1
        await asyncio.sleep(0.06)
        news += await feed(engine, first, SPEECH[16000:])
        news += await engine.finish(first)
        assert words(news) == alone(SPEECH)
        assert [item.seq for item in news] == list(range(1, len(news) + 1))
        assert words(await engine.finish(second)) == []

    run(test, store=FolderStore(tmp_path), capacity=1, spare_s=0.05)


def test_idle_streams_cost_no_compute():
    async def test(engine: Engine) -> None:
        names = [await engine.open() for _ in range(8)]
        news = [await engine.push(name, SPEECH[:9000]) for name in names]
        await until(lambda: not engine.backlog_s)
        turns, spent_s = engine.meters.turn.count, time.process_time()
        await asyncio.sleep(1.0)
        assert engine.meters.turn.count == turns
        assert time.process_time() - spent_s < 0.1  # of all threads
        for name, told in zip(names, news, strict=True):  # they are all there
            told += await engine.push(name, SPEECH[9000:]) + await engine.finish(name)
            assert words(told) == alone(SPEECH)

    run(test)


def test_a_stream_that_slept_too_long_says_so():
    async def test(engine: Engine) -> None:
        name = await engine.open()
        await engine.push(name, SPEECH)
        await until(lambda: not engine.slots[name].resident and not engine.slots[name].inbox)
        await until(lambda: engine.slots[name].stream is None)
        engine.store.delete(name)
        with pytest.raises(SessionError, match="slept too long"):
            await engine.push(name, SPEECH)

    run(test, idle_s=0.1)


def test_a_stream_goes_on_in_another_engine_and_what_was_told_is_told_again(tmp_path):
    async def first(engine: Engine) -> None:
        name = await engine.open()
        news = await feed(engine, name, SPEECH[:20000])
        seen.update(name=name, news=news, durable=engine.progress(name).durable)
        engine.confirm(name, 2)

    async def second(engine: Engine) -> None:
        name = seen["name"]
        await engine.resume(name)
        at = engine.progress(name)
        assert at.received == at.durable >= max(seen["durable"], 8000)
        told = {item.seq: item for item in seen["news"]}
        again = engine.news(name, 2)
        again += await feed(engine, name, SPEECH[at.received :], 700)
        again += await engine.finish(name)
        assert again[0].seq == 3
        for item in again:
            if item.seq in told:
                assert words([item]) == words([told[item.seq]])
        merged = told | {item.seq: item for item in again}
        assert words([merged[seq] for seq in sorted(merged)]) == alone(SPEECH)

    seen: dict = {}
    store = FolderStore(tmp_path)
    run(first, store=store, snapshot_s=0.5)
    run(second, store=store)


def test_a_finished_stream_can_be_asked_again_for_what_it_told(tmp_path):
    async def first(engine: Engine) -> None:
        name = await engine.open()
        await engine.push(name, SPEECH)
        await engine.finish(name)
        seen.update(name=name, news=engine.news(name, 0))

    async def second(engine: Engine) -> None:
        await engine.resume(seen["name"])
        assert engine.news(seen["name"], 0) == seen["news"]
        assert engine.progress(seen["name"]).finished
        with pytest.raises(SessionError, match="finished"):
            await engine.push(seen["name"], SPEECH)
        engine.confirm(seen["name"], 5)
        with pytest.raises(SessionError, match="gone"):
            engine.news(seen["name"], 4)
        await engine.close(seen["name"])
        with pytest.raises(SessionError, match="no such stream"):
            await engine.resume(seen["name"])

    seen: dict = {}
    store = FolderStore(tmp_path)
    run(first, store=store)
    run(second, store=store)


def test_who_resumes_owns_the_stream_and_the_engine_before_lets_it_go():
    async def test(engine: Engine) -> None:
        name = await engine.open()
        token = engine.token(name)
        await engine.push(name, SPEECH[:8000])
        async with Engine(MODEL, engine.store, 1, EngineLimits(capacity=1)) as other:
            await other.resume(name)
            again = await engine.resume(name)  # on the first machine, which knows nothing of that
            assert engine.owns(name, again) and not engine.owns(name, token)
            with pytest.raises((SessionError, SnapshotError), match="resumed elsewhere"):
                for _ in range(100):
                    await engine.push(name, SPEECH[8000:])
            assert words(await other.push(name, SPEECH))

    run(test, snapshot_s=0.1)


def test_a_fork_is_resumed_by_its_own_name():
    async def test(engine: Engine) -> None:
        name = await engine.open()
        news = await engine.push(name, SPEECH[:16000])
        copy, *where = await engine.fork(name)
        assert where == [engine.progress(name).seq, 16000, 0]
        await engine.resume(copy)
        assert engine.progress(copy).received == 16000
        rest = await feed(engine, name, OTHER) + await engine.finish(name)
        other = await feed(engine, copy, SPEECH[16000:]) + await engine.finish(copy)
        assert words(news + other) == alone(SPEECH)
        assert words(news + rest) != words(news + other)

    run(test)


def test_snapshot_bytes_begin_another_stream():
    async def test(engine: Engine) -> None:
        name = await engine.open(sample_rate=8000)
        await engine.push(name, SPEECH[:9000])
        copy = await engine.restore(await engine.snapshot(name))
        rest = await engine.push(name, SPEECH[9000:]) + await engine.finish(name)
        assert await engine.push(copy, SPEECH[9000:]) + await engine.finish(copy) == rest
        with pytest.raises(SnapshotError):
            await engine.restore(b"junk")

    run(test)


@pytest.mark.parametrize(
    "samples", [np.full(9, np.nan, np.float32), np.zeros((2, 9)), np.ones(9, int)]
)
def test_what_is_no_sound_is_refused_and_the_stream_goes_on(samples):
    async def test(engine: Engine) -> None:
        name = await engine.open()
        with pytest.raises(AudioError):
            await engine.push(name, samples)
        assert engine.progress(name).received == 0
        assert words(await engine.push(name, SPEECH) + await engine.finish(name)) == alone(SPEECH)

    run(test)


def test_a_stream_whose_state_is_spoiled_fails_alone():
    async def test(engine: Engine) -> None:
        bad, good = await engine.open(), await engine.open()
        await engine.push(bad, SPEECH[:8000])
        session = engine.slots[bad].stream.session
        session.network_state = map_state(
            lambda t: t * np.nan if t.is_floating_point() else t, session.network_state
        )
        with pytest.raises(SessionError, match="no number"):
            await engine.push(bad, SPEECH[8000:])
        with pytest.raises(SessionError, match="failed"):
            await engine.flush(bad)
        assert "no number" in engine.progress(bad).failure
        assert engine.meters.failed == 1 and engine.num_resident == 1
        assert words(await engine.push(good, SPEECH) + await engine.finish(good)) == alone(SPEECH)
        await engine.resume(bad)  # from what was kept before
        assert engine.progress(bad).received == 0

    run(test)


def test_a_stuck_step_is_given_up_and_the_others_go_on(monkeypatch):
    hold = threading.Event()
    push = Stream.push

    def stick(self: Stream, samples: np.ndarray) -> list[News]:
        if 777 <= len(samples) < 900:
            hold.wait(20)
        return push(self, samples)

    monkeypatch.setattr(Stream, "push", stick)

    async def test(engine: Engine) -> None:
        bad, good = await engine.open(), await engine.open()
        stuck = engine.submit(bad, SPEECH[:777])
        later = engine.submit(bad, SPEECH[:100])
        told = await engine.push(good, SPEECH)  # the only worker is stuck: another one comes
        with pytest.raises(SessionError, match="given up"):
            await later
        with pytest.raises(SessionError, match="given up"):
            await stuck
        hold.set()
        assert words(told + await engine.finish(good)) == alone(SPEECH)
        assert engine.meters.stuck == 1

    run(test, workers=1, stuck_s=0.5)


def test_a_store_that_takes_nothing_costs_durability_only(monkeypatch):
    store = MemoryStore()

    def refuse(name: str, data: bytes, epoch: int) -> None:
        raise SnapshotError("the disk is full")

    async def test(engine: Engine) -> None:
        name = await engine.open()
        monkeypatch.setattr(store, "put", refuse)
        news = await feed(engine, name, SPEECH)
        assert engine.progress(name).durable == 0
        assert engine.meters.lost_snapshots > 0
        assert words(news + await engine.finish(name)) == alone(SPEECH)

    run(test, store=store, snapshot_s=0.2, idle_s=0.01)


def test_draining_keeps_all_and_lets_nobody_in():
    async def test(engine: Engine) -> None:
        names = [await engine.open() for _ in range(3)]
        for name in names:
            engine.submit(name, SPEECH[:20000])
        await engine.drain()
        assert all(engine.progress(name).durable == 20000 for name in names)
        with pytest.raises(BusyError, match="going down"):
            await engine.open()

    run(test)


def test_silence_on_the_line_makes_durable_catch_up_without_any_sample():
    async def test(engine: Engine) -> None:
        name = await engine.open()
        await engine.push(name, SPEECH[:1000])
        turn = engine.progress(name).turn
        assert engine.progress(name).durable == 0
        assert (await engine.changed(name, turn)).durable == 1000

    run(test, snapshot_s=0.3)


def test_what_cannot_begin_leaves_nothing():
    async def test(engine: Engine) -> None:
        for wrong, error in (
            ({"lookahead_ms": 77}, ConfigError),
            ({"hotwords": ["Anna"]}, ConfigError),
            ({"sample_rate": 10}, AudioError),
        ):
            with pytest.raises(error):
                await engine.open(**wrong)
        assert not engine.slots
        for call in (engine.flush, engine.resume, engine.finish, engine.fork, engine.snapshot):
            with pytest.raises(SessionError, match="no such stream"):
                await call("x")
        await engine.close("x")

    run(test)


def test_nobody_on_the_other_end_for_long_is_forgotten_but_kept():
    async def test(engine: Engine) -> None:
        name = await engine.open()
        await engine.push(name, SPEECH[:5000])
        engine.detach(name, engine.token(name))
        await until(lambda: name not in engine.slots)
        await engine.resume(name)
        assert engine.progress(name).received == 5000

    run(test, idle_s=0.1)


def test_a_capacity_is_measured():
    async def main() -> None:
        async with Engine(MODEL, num_workers=1) as engine:
            assert engine.capacity >= 1

    asyncio.run(main())


def test_a_slow_store_holds_nobody_up_and_an_old_snapshot_never_follows_a_newer_one(monkeypatch):
    store = MemoryStore()
    put = store.put
    late = threading.Event()

    def put_late(name: str, data: bytes, epoch: int) -> None:
        if threading.current_thread().name.startswith("audiossm-store"):
            late.wait(20)
        put(name, data, epoch)

    monkeypatch.setattr(store, "put", put_late)

    async def test(engine: Engine) -> None:
        name = await engine.open(keep_s=5)
        news = await feed(engine, name, SPEECH)
        assert words(news) and engine.progress(name).durable == 0
        rewinding = engine.rewind(name, 100)  # is kept at once, after the one that is on its way
        await asyncio.sleep(0.05)
        assert not rewinding.done()
        late.set()
        await rewinding
        await until(lambda: not engine.slots[name].writing)
        assert engine.progress(name).durable == 32000
        assert Stream.restore(MODEL, store.get(name)[0]).controls == 1

    run(test, store=store, snapshot_s=0.2)


def test_a_closed_stream_leaves_nothing_in_a_slow_store():
    class Slow(MemoryStore):
        def put(self, name: str, data: bytes, epoch: int) -> None:
            time.sleep(0.05)
            super().put(name, data, epoch)

    store = Slow()

    async def test(engine: Engine) -> None:
        name = await engine.open()
        await engine.push(name, SPEECH)
        await engine.finish(name)  # its snapshot is still being written
        await engine.close(name)

    run(test, store=store)  # to the end of all threads
    assert not store.kept
