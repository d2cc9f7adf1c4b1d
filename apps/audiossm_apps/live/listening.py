"""A whole recording through one stream of an engine."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from audiossm.audio import mix
from audiossm.audio.reader import AudioReader
from audiossm.streaming import Engine
from audiossm.streaming.stream import Told

__all__ = ["Listening", "listen_to"]

BLOCK_S = 2.0


@dataclass
class Listening:
    """What is told of a recording, as it comes; ``num_samples`` were read so far."""

    events: AsyncIterator[Told]
    num_samples: int = 0


async def listen_to(
    engine: Engine, reader: AudioReader, hotwords: Sequence[tuple[str, float]] = ()
) -> Listening:
    """Begin a stream for a recording, its channels averaged; who iterates drives it.

    Hot words that can't be listened for are refused in its events.

    Raises:
        BusyError: there is no room now.
        AudioError: a sample rate that can't be. Damage is raised by ``events``, where it comes.
    """
    name = await engine.open(sample_rate=reader.sample_rate)
    # nobody comes back for it: if the answer is given up, the engine forgets it in time
    engine.detach(name, engine.token(name))
    listening = Listening(iter_nothing())
    listening.events = _tell(engine, reader, name, hotwords, listening)
    return listening


async def _tell(
    engine: Engine,
    reader: AudioReader,
    name: str,
    hotwords: Sequence[tuple[str, float]],
    listening: Listening,
) -> AsyncIterator[Told]:
    size, seq = round(BLOCK_S * reader.sample_rate), 0
    news = await engine.set_hotwords(name, hotwords) if hotwords else []
    try:
        ended = False
        while True:
            seq += len(news)
            engine.confirm(name, seq)
            for item in news:
                yield item.event
            if ended:
                return
            audio = await asyncio.to_thread(reader.read, size)
            listening.num_samples += audio.shape[-1]
            ended = not audio.shape[-1]
            news = await (engine.finish(name) if ended else engine.push(name, mix(audio)))
    finally:
        await engine.close(name)


async def iter_nothing() -> AsyncIterator[Told]:
    """Yield nothing."""
    return
    yield  # what makes it an iterator
