"""Sessions in seats that choose words by a beam, by letters or phones: told what each is alone."""

import asyncio
import copy
import random
from collections.abc import Awaitable, Callable, Iterator

import numpy as np
import pytest
import torch

from audiossm.decoding import DecoderName, make_decoder, units
from audiossm.decoding import ngram as ngrams
from audiossm.lexicon import Lexicon
from audiossm.pronouncer import Pronunciation
from audiossm.streaming import Engine, EngineLimits, MemoryStore, News, Transcriber, Word
from audiossm.streaming.stream import Finished, HotwordsSet, Stream
from small_ngrams import make_ngrams
from tiny_model import make_transcriber, read_speech

ALONE = make_transcriber()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SPEECH = read_speech()[:32000]
# in the tiny model's three phones, each of which is a letter, too
SAID = {"a": "a", "ant": "a n t", "aunt": "a n t", "tan": "t a n", "nat": "n a t", "an": "a n"}


class Spelled:
    """A pronouncer that says words as they are written."""

    def __init__(self, lexicon: Lexicon) -> None:
        del lexicon

    def pronounce_words(self, words: list[str]) -> list[Pronunciation]:
        return [Pronunciation(word, tuple(word), "model") for word in words]


@pytest.fixture(autouse=True, scope="module")
def lexicon() -> Iterator[None]:
    small = make_ngrams(("a tan ant", "an aunt", "nat an ant"))
    make_decoder.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lexicon, "load", lambda: Lexicon(SAID))
        patch.setattr(ngrams.NgramModel, "load", lambda: small)
        patch.setattr(units, "Pronouncer", Spelled)
        yield
    make_decoder.cache_clear()


def make_model(decoder: DecoderName) -> Transcriber:
    network = copy.deepcopy(ALONE.network)
    model = Transcriber(network, name="tiny", model_hash=ALONE.hash, device=torch.device(DEVICE))
    model.decoder = decoder
    return model


def run(decoder: DecoderName, test: Callable[[Engine], Awaitable[None]], seats: int = 8) -> None:
    async def main() -> None:
        limits = EngineLimits(capacity=8)
        async with Engine(make_model(decoder), MemoryStore(), None, limits, seats) as engine:
            await asyncio.wait_for(test(engine), 120)

    asyncio.run(main())


def words(news: list[News]) -> list[tuple[str, float, float]]:
    return [
        (item.event.word, item.event.start_s, item.event.end_s)
        for item in news
        if isinstance(item.event, Word)
    ]


def begin(decoder: DecoderName, rate: int = 16000) -> Stream:
    """A stream that sits nowhere."""
    model = copy.copy(ALONE)
    model.decoder = decoder
    return Stream(model.session(rate))


@pytest.mark.parametrize("seats", [8, 2], ids=["enough seats", "too few seats"])
@pytest.mark.parametrize("decoder", ["beam", "phones"])
def test_streams_in_seats_are_told_what_each_would_be_told_alone(decoder, seats):
    async def talk(engine: Engine, samples: np.ndarray, rate: int, seed: int) -> None:
        rng = random.Random(seed)
        name = await engine.open(sample_rate=rate)
        alone = begin(decoder, rate)
        news, expected, at = [], [], 0
        hot, flushed = sorted(rng.sample(range(len(samples)), 2))
        for stop in (hot, flushed, len(samples)):
            expected += alone.push(samples[at:stop])
            while at < stop:
                size = min(rng.randint(1, 9000), stop - at)
                news += await engine.push(name, samples[at : at + size])
                at += size
            if stop == hot:
                news += await engine.set_hotwords(name, [("tan", 2.0)])
                expected += alone.set_hotwords([("tan", 2.0)])
            elif stop == flushed:
                news += await engine.flush(name)
                expected += alone.flush()
        news += await engine.finish(name)
        expected += alone.finish()
        assert words(news) == words(expected) != []
        if decoder == "phones":  # by letters one can spell any word
            assert {word for word, *_ in words(news)} <= SAID.keys()
        assert any(isinstance(item.event, HotwordsSet) for item in news)
        assert [item.seq for item in news] == [item.seq for item in expected]
        assert news[-1].event == Finished(len(samples))

    async def test(engine: Engine) -> None:
        other = SPEECH[::-1].copy()
        kinds = [(SPEECH, 16000), (other, 16000), (SPEECH, 8000), (-SPEECH, 44100)]
        await asyncio.gather(*(talk(engine, *kind, seed) for seed, kind in enumerate(kinds * 2)))
        assert engine._seats.num_free == seats
        assert engine._seats.num_steps < engine._seats.num_frames  # some steps had several

    run(decoder, test, seats)


@pytest.mark.parametrize("decoder", ["beam", "phones"])
def test_a_beam_moves_between_a_seat_and_a_plain_session(decoder):
    async def test(engine: Engine) -> None:
        straight, stream = begin(decoder), begin(decoder)
        news = stream.push(SPEECH[:10000])
        name = await engine.restore(stream.snapshot())
        news += await engine.push(name, SPEECH[10000:20000])
        assert engine._seats.num_free == 7
        data = await engine.snapshot(name)
        back = Stream.restore(stream.session.transcriber, data)
        assert back.session.profile == f"slots-float32-{DEVICE}"
        news += back.push(SPEECH[20000:]) + back.finish()
        assert words(news) == words(straight.push(SPEECH) + straight.finish()) != []

    run(decoder, test)


@pytest.mark.parametrize("decoder", ["beam", "phones"])
def test_a_fork_and_a_rewind_are_told_the_same(decoder):
    async def test(engine: Engine) -> None:
        straight = begin(decoder)
        expected = words(straight.push(SPEECH) + straight.finish())
        name = await engine.open(keep_s=10)
        first = await engine.push(name, SPEECH[:20000])
        copied = await engine.fork(name)
        await engine.resume(copied.name)
        rest = await engine.push(copied.name, SPEECH[20000:]) + await engine.finish(copied.name)
        assert words(first) + words(rest) == expected != []
        (rewound,) = await engine.rewind(name, 8000)
        assert rewound.event.position == 12000
        kept = [item for item in first if item.seq <= rewound.event.keep]
        again = await engine.push(name, SPEECH[12000:]) + await engine.finish(name)
        assert words(kept) + words(again) == expected

    run(decoder, test)
