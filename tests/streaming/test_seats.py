"""Sessions in seats: stepped together on a device, told what each would be told alone."""

import asyncio
import copy
import random
import time
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
import torch

from audiossm.errors import SessionError
from audiossm.streaming import Engine, EngineLimits, MemoryStore, News, Session, Transcriber, Word
from audiossm.streaming.seats import CardSeats
from audiossm.streaming.stream import Finished, Stream
from tiny_model import make_transcriber, read_speech

ALONE = make_transcriber()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SPEECH = read_speech()[:32000]
OTHER = SPEECH[::-1].copy()


def make_model() -> Transcriber:
    network = copy.deepcopy(ALONE.network)
    return Transcriber(network, name="tiny", model_hash=ALONE.hash, device=torch.device(DEVICE))


def run(test: Callable[[Engine], Awaitable[None]], seats: int = 8, **limits: float) -> None:
    async def main() -> None:
        model = make_model()
        async with Engine(
            model, MemoryStore(), None, EngineLimits(**({"capacity": 8} | limits)), seats
        ) as engine:
            await asyncio.wait_for(test(engine), 120)
        assert model.seats is None

    asyncio.run(main())


def words(news: list[News]) -> list[tuple[str, float]]:
    return [(item.event.word, item.event.start_s) for item in news if isinstance(item.event, Word)]


def alone(samples: np.ndarray, rate: int = 16000) -> list[tuple[str, float]]:
    stream = Stream(ALONE.session(rate))
    return words(stream.push(samples) + stream.finish())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("seats", [8, 2], ids=["enough seats", "too few seats"])
def test_streams_in_seats_are_told_what_each_would_be_told_alone(seats):
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
        assert engine._seats.num_free == seats
        assert engine._seats.num_steps < engine._seats.num_frames  # some steps had several

    run(test, seats)


def test_a_flush_and_a_rewind_stand_where_they_were_asked_for():
    async def test(engine: Engine) -> None:
        name = await engine.open(keep_s=10)
        news = await engine.push(name, SPEECH[:16000])
        flushed = await engine.flush(name)
        await engine.rewind(name, 4000)
        rest = await engine.push(name, SPEECH[12000:]) + await engine.finish(name)
        stream = Stream(ALONE.session(), keep_s=10)
        expected = stream.push(SPEECH[:16000])
        assert words(news) == words(expected)
        assert words(flushed) == words(stream.flush())
        stream.rewind(4000)
        assert words(rest) == words(stream.push(SPEECH[12000:]) + stream.finish())

    run(test)


def test_idle_streams_leave_their_seats_and_come_back():
    async def test(engine: Engine) -> None:
        names = [await engine.open() for _ in range(2)]
        news = [await engine.push(name, SPEECH[:16000]) for name in names]
        assert engine._seats.num_free < 2
        await until(lambda: engine._seats.num_free == 2)  # both sleep
        assert engine.num_resident == 0
        for i, name in enumerate(names):
            news[i] += await engine.push(name, SPEECH[16000:])
            news[i] += await engine.finish(name)
            assert words(news[i]) == alone(SPEECH)

    run(test, 2, capacity=2, idle_s=0.5)


def test_a_stream_moves_between_a_seat_and_a_plain_session(caplog):
    async def test(engine: Engine) -> None:
        caplog.set_level("INFO", "audiossm")
        stream = Stream(ALONE.session())
        news = stream.push(SPEECH[:10000])
        name = await engine.restore(stream.snapshot())
        news += await engine.push(name, SPEECH[10000:20000])
        data = await engine.snapshot(name)
        back = Stream.restore(ALONE, data)
        assert back.session.profile == f"slots-float32-{DEVICE}"
        news += back.push(SPEECH[20000:]) + back.finish()
        assert words(news) == alone(SPEECH)
        assert f"profile slots-float32-{DEVICE} goes on as torch-float32-cpu" in caplog.text

    run(test)


def test_a_spoiled_stream_fails_alone():
    async def test(engine: Engine) -> None:
        names = [await engine.open() for _ in range(3)]
        news = [await engine.push(name, SPEECH[:8000]) for name in names]
        slots, place = engine._seats.slots, engine.slots[names[1]].stream.session.stepper._bound
        slots.state.lower[0].ssm[place.place] = torch.nan
        with pytest.raises(SessionError, match="no number"):
            await engine.push(names[1], SPEECH[8000:16000])
        assert "no number" in str(engine.progress(names[1]).failure)
        for i in (0, 2):
            news[i] += await engine.push(names[i], SPEECH[8000:]) + await engine.finish(names[i])
            assert words(news[i]) == alone(SPEECH)
        await engine.close(names[1])
        # the next one finds its seat clean
        name = await engine.open()
        again = await engine.push(name, SPEECH) + await engine.finish(name)
        assert words(again) == alone(SPEECH)

    run(test, 3)


def test_a_step_that_fails_is_told_to_all_who_wait_for_it(monkeypatch):
    model = make_model()
    seats = CardSeats(model, 1)
    try:
        session = Session(model)
        session.push(SPEECH[:2000])
        monkeypatch.setattr(seats.slots, "step", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.push(SPEECH[2000:4000])
        monkeypatch.undo()
        session.push(SPEECH[4000:6000])
    finally:
        seats.close()
    with pytest.raises(SessionError, match="engine was closed"):
        session.push(SPEECH[6000:9000])
    started = time.monotonic()
    Session(model).push(SPEECH)
    assert time.monotonic() - started < 60
