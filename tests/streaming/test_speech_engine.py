"""Texts that are said at once: each as it would be alone, and none of them for ever."""

import asyncio
import time

import numpy as np
import pytest

from audiossm.errors import BusyError, ModelError, SessionError
from audiossm.streaming import Skipped, Sound, SpeechEngine, SpeechLimits, SpokenWord
from audiossm.streaming.speech_engine import Packed, SaidAll, SpeechOrder
from tiny_speaker import TEXT, make_speaker

SPEAKER = make_speaker()


class Floats:
    """Packs samples as they are."""

    def __init__(self, rate):
        assert rate == 16000

    def write(self, samples):
        return samples.tobytes()

    def finish(self):
        return b""


def alone(text, **options):
    session = SPEAKER.session(**options)
    return [*session.push(text), *session.finish()]


def samples_of(events):
    sounds = [event.samples for event in events if isinstance(event, Sound)]
    return np.concatenate([np.zeros(0, np.float32), *sounds])


def join(told):
    data = b"".join(item.data for item in told if isinstance(item, Packed))
    return np.frombuffer(data, np.float32)


def words_of(events):
    return [event for event in events if isinstance(event, SpokenWord | Skipped)]


def run(test, has_seats=None, **limits):
    async def main():
        limits.setdefault("capacity", 8)
        async with SpeechEngine(SPEAKER, 2, SpeechLimits(**limits), has_seats=has_seats) as engine:
            await asyncio.wait_for(test(engine), 60)

    asyncio.run(main())


def test_texts_at_once_are_said_as_each_alone_however_they_are_cut():
    async def say(engine, text, seed, size):
        utterance = await engine.begin(SpeechOrder(seed=seed, speed=1.2), Floats)
        for at in range(0, len(text), size):
            utterance.push(text[at : at + size])
            await asyncio.sleep(0)
        utterance.finish()
        told = [item async for item in utterance.events()]
        expected = alone(text, seed=seed, speed=1.2)
        np.testing.assert_array_equal(join(told), samples_of(expected))
        assert words_of(told) == words_of(expected)
        assert told[-1] == SaidAll(len(samples_of(expected)), is_end=True)

    async def test(engine):
        texts = [TEXT, f"{TEXT} ☃ hello.", "Hello there.", ""]
        await asyncio.gather(*(say(engine, text, i, 5 + i) for i, text in enumerate(texts)))
        assert not engine.saying
        assert engine.meters.begun == 4 and engine.meters.cancelled == 0

    run(test)


def test_ten_texts_in_seats_are_said_as_each_alone_and_a_seat_is_free_at_once():
    async def say(engine, number):
        utterance = await engine.begin(SpeechOrder(seed=number), Floats)
        utterance.push("Hello ☃")
        utterance.flush()
        utterance.push("a river.")
        utterance.finish()
        told = [item async for item in utterance.events()]
        first, second = alone("Hello ☃", seed=number), alone("a river.", seed=number + 1)
        both = np.concatenate([samples_of(first), samples_of(second)])
        np.testing.assert_allclose(join(told), both, atol=2e-5)
        said = [item for item in words_of(told) if isinstance(item, SpokenWord)]
        assert [word.word for word in said] == ["Hello", "a", "river."]
        assert [item.text for item in words_of(told) if isinstance(item, Skipped)] == ["☃"]
        assert told[-1] == SaidAll(len(both), is_end=True)

    async def test(engine):
        long = await engine.begin(SpeechOrder(), Floats)
        long.push(TEXT * 50)
        async for item in long.events():
            if isinstance(item, Packed):
                break
        await asyncio.gather(*(say(engine, number) for number in range(9)))
        with pytest.raises(BusyError, match="all 10 places"):
            await asyncio.gather(*(engine.begin(SpeechOrder(), Floats) for _ in range(10)))
        before = engine.seats.num_steps
        long.close()
        while engine.seats.num_free < 10:
            await asyncio.sleep(0.001)
        assert engine.seats.num_steps - before <= 8  # the turn that it was in, and another
        assert engine.seats.num_frames > 1.5 * engine.seats.num_steps

    run(test, has_seats=True, capacity=10)


def test_a_flush_says_all_before_it_and_times_go_on():
    async def test(engine):
        utterance = await engine.begin(SpeechOrder(seed=7), Floats)
        utterance.push("Hello there")
        utterance.flush()
        utterance.push("the old house")
        told = []
        async for item in utterance.events():
            told.append(item)
            if isinstance(item, SaidAll) and not item.is_end:
                utterance.finish()
        first, second = alone("Hello there", seed=7), alone("the old house", seed=8)
        both = np.concatenate([samples_of(first), samples_of(second)])
        np.testing.assert_array_equal(join(told), both)
        shift_s = len(samples_of(first)) / 16000
        expected = [word.start_s for word in words_of(first)]
        expected += [word.start_s + shift_s for word in words_of(second)]
        assert [word.start_s for word in words_of(told)] == pytest.approx(expected)

    run(test)


def test_nobody_is_let_in_where_there_is_no_room_and_a_place_is_free_at_once():
    async def test(engine):
        first = await engine.begin(SpeechOrder(), Floats)
        with pytest.raises(BusyError, match="all 1 places") as caught:
            await engine.begin(SpeechOrder(), Floats)
        assert caught.value.retry_s == 5.0
        first.push(TEXT)
        first.close()
        second = await engine.begin(SpeechOrder(), Floats)
        second.push("Hello")
        second.finish()
        assert len(join([item async for item in second.events()]))
        assert engine.meters.refused == 1 and engine.meters.cancelled == 1
        with pytest.raises(ModelError, match="no voice"):
            await engine.begin(SpeechOrder(voice="../etc/passwd.safetensors"), Floats)
        assert not engine.saying  # who was refused has no place

    run(test, capacity=1)


def test_what_is_closed_tells_nothing_more():
    async def test(engine):
        utterance = await engine.begin(SpeechOrder(), Floats)
        utterance.push(TEXT * 20)
        told = []
        async for item in utterance.events():
            told.append(item)
            if isinstance(item, SpokenWord):
                utterance.close()
        assert isinstance(told[-1], SpokenWord)
        made = utterance.num_samples
        await asyncio.sleep(0.3)
        at_most = utterance.num_samples
        await asyncio.sleep(0.2)
        assert utterance.num_samples == at_most < made + 16000

    run(test)


def test_speech_that_nobody_reads_is_not_made_without_end():
    async def test(engine):
        utterance = await engine.begin(SpeechOrder(), Floats)
        utterance.push(TEXT * 4)
        utterance.finish()
        before = -1
        while utterance.num_samples != before:
            before = utterance.num_samples
            await asyncio.sleep(0.5)
        assert 8000 <= before <= 8000 + 4000
        told = [item async for item in utterance.events()]
        np.testing.assert_array_equal(join(told), samples_of(alone(TEXT * 4)))

    run(test, max_ahead_s=0.5)


def test_the_first_sound_comes_before_the_others_go_on():
    async def read(utterance):
        return [item async for item in utterance.events()]

    async def test(engine):
        busy = [await engine.begin(SpeechOrder(), Floats) for _ in range(6)]
        reading = [asyncio.create_task(read(utterance)) for utterance in busy]
        for utterance in busy:
            utterance.push(TEXT * 5)
        await asyncio.sleep(0.3)
        utterance = await engine.begin(SpeechOrder(), Floats)
        others = [other.num_samples for other in busy]
        utterance.push("Hello there. ")
        started = time.monotonic()
        async for item in utterance.events():
            if isinstance(item, Packed):
                break
        spent_s = time.monotonic() - started
        made = [other.num_samples - was for other, was in zip(busy, others, strict=True)]
        # each of the two threads may have been in a turn, and then have one more to do
        assert sum(map(bool, made)) <= 5, (made, spent_s)
        for other in busy:
            other.close()
        await asyncio.gather(*reading)

    run(test)


def test_what_breaks_one_text_is_told_and_breaks_no_other():
    class Broken(Floats):
        def write(self, samples):
            raise SessionError("spoiled")

    async def test(engine):
        bad = await engine.begin(SpeechOrder(), Broken)
        good = await engine.begin(SpeechOrder(), Floats)
        for utterance in (bad, good):
            utterance.push("Hello there.")
            utterance.finish()
        with pytest.raises(SessionError, match="spoiled"):
            async for _ in bad.events():
                pass
        bad.close()
        assert len(join([item async for item in good.events()]))
        assert engine.meters.failed == 1 and not engine.saying

    run(test)


def test_the_capacity_is_measured_where_nobody_says_it():
    async def test(engine):
        assert engine.capacity >= 1

    run(test, capacity=None)
