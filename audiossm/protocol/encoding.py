"""Samples as bytes: linear in 16 bits or float32, and G.711 in its two laws; Opus unread."""

from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from audiossm.errors import ProtocolError

__all__ = [
    "ENCODINGS",
    "LOUDEST",
    "OPUS_PREROLL",
    "OPUS_RATE",
    "Encoding",
    "Opus",
    "decode_samples",
    "encode_samples",
    "sample_width",
]

Encoding = Literal["s16", "f32", "mulaw", "alaw"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
Samples = NDArray[np.float32]

LOUDEST = 1e4  # what a session takes; full scale is 1
OPUS_RATE = 48000  # Hz
OPUS_PREROLL = 3840  # samples at that rate: 80 ms, after which a decoder has found in


@dataclass(frozen=True)
class Opus:
    """Bytes of Ogg or WebM with Opus in it, cut anywhere; a decoder makes samples of them."""

    data: bytes


def sample_width(encoding: Encoding) -> int:
    """Return the bytes of a sample."""
    return {"s16": 2, "f32": 4}.get(encoding, 1)


def decode_samples(data: bytes, encoding: Encoding) -> Samples:
    """Turn bytes, little endian, into samples (samples,) float32; 16 bits fill [-1, 1).

    Raises:
        ProtocolError: not whole samples, or floats that are no sound.
    """
    width = sample_width(encoding)
    if len(data) % width:
        raise ProtocolError(
            f"{len(data)} bytes of audio are not whole samples of {width} bytes", "bad-audio"
        )
    if encoding == "s16":
        return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
    if encoding == "f32":
        samples = np.frombuffer(data, "<f4").astype(np.float32)
        if not np.abs(samples).max(initial=0.0) <= LOUDEST:  # NaN isn't
            raise ProtocolError(
                f"a sample is no number, or beyond {LOUDEST:g}: full scale is 1", "bad-audio"
            )
        return samples
    table: Samples = _table(encoding)[np.frombuffer(data, np.uint8)]
    return table


def encode_samples(samples: Samples, encoding: Encoding) -> bytes:
    """Turn samples in [-1, 1] into bytes; what is louder is clipped, but for f32."""
    if encoding == "f32":
        return np.asarray(samples, "<f4").tobytes()
    whole = np.clip(np.rint(np.asarray(samples) * 32768), -32768, 32767).astype(np.int64)
    if encoding == "s16":
        return whole.astype("<i2").tobytes()
    codes, levels = _levels(encoding)
    # the nearest of two neighbours
    right = np.clip(np.searchsorted(levels, whole), 1, len(levels) - 1)
    nearer = right - (whole - levels[right - 1] <= levels[right] - whole)
    found: bytes = codes[nearer].tobytes()
    return found


@cache
def _table(encoding: str) -> Samples:
    """Return the sample of each byte (256,), by ITU-T G.711."""
    byte = np.arange(256)
    if encoding == "mulaw":
        inverted = ~byte & 0xFF
        size = (((inverted & 0x0F) << 3) + 0x84 << ((inverted & 0x70) >> 4)) - 0x84
        value = np.where(inverted & 0x80, -size, size)
    else:
        toggled = byte ^ 0x55
        segment, low = (toggled & 0x70) >> 4, (toggled & 0x0F) << 4
        size = np.where(segment == 0, low + 8, low + 0x108 << np.maximum(segment - 1, 0))
        value = np.where(toggled & 0x80, size, -size)
    return (value / 32768).astype(np.float32)


@cache
def _levels(encoding: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the bytes in the order of their samples, and those samples in 16 bits."""
    values = np.rint(_table(encoding) * 32768).astype(np.int64)
    order = np.argsort(values, kind="stable")
    return order.astype(np.uint8), values[order]
