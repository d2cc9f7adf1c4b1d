"""Opus of live sockets to samples, off the event loop."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import numpy as np
from numpy.typing import NDArray

from audiossm.audio.opus import OpusStream
from audiossm.errors import AudioError, ProtocolError

__all__ = ["decode_opus"]

Samples = NDArray[np.float32]
BLOCK_S = 0.5


async def decode_opus(stream: OpusStream, data: bytes) -> AsyncIterator[Samples]:
    """Yield what a message has, in blocks: little bytes may be much sound.

    Raises:
        ProtocolError: no Opus, or damaged.
    """
    packets = stream.push(data)
    while True:
        try:
            block = await asyncio.to_thread(_take, packets)
        except AudioError as exc:
            raise ProtocolError(str(exc), "bad-audio") from exc
        if not len(block):
            return
        yield block


def _take(packets: Iterator[Samples]) -> Samples:
    parts, left = [np.zeros(0, np.float32)], round(BLOCK_S * OpusStream.sample_rate)
    for part in packets:
        parts.append(part)
        left -= len(part)
        if left <= 0:
            break
    return np.concatenate(parts)
