"""Audio made for tests: noise, WAV headers of any kind, pipes, and ways to read them whole."""

import io
import struct

import numpy as np
import pytest
import soundfile

from audiossm.audio import AudioReader
from audiossm.errors import AudioError


def make_audio(samples: int = 4000, channels: int = 2) -> np.ndarray:
    noise = np.random.default_rng(3).uniform(-0.9, 0.9, (channels, samples))
    return noise.astype(np.float32)


def encode(
    audio: np.ndarray, rate: int = 16000, file_format: str = "WAV", coding: str = "PCM_16"
) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, audio.T, rate, format=file_format, subtype=coding)
    return file.getvalue()


def make_wav(
    body: bytes,
    *,
    code: int = 1,
    channels: int = 1,
    rate: int = 16000,
    bits: int = 16,
    align: int | None = None,
    size: int | None = None,
    riff_size: int = 0,
    before: bytes = b"",
) -> bytes:
    align = channels * ((bits + 7) // 8) if align is None else align
    fields = struct.pack("<HHIIHH", code, channels, rate, rate * align, align, bits)
    size = len(body) if size is None else size
    head = b"RIFF" + struct.pack("<I", riff_size) + b"WAVE" + before
    return (
        head + b"fmt " + struct.pack("<I", 16) + fields + b"data" + struct.pack("<I", size) + body
    )


def forget_length(flac: bytes) -> bytes:
    """Say in a FLAC header that the number of samples is unknown, as an encoder on a pipe does."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]


class Pipe(io.RawIOBase):
    """A stream that can't seek and hands out its bytes a few at a time."""

    def __init__(self, data: bytes, piece: int = 7) -> None:
        self._data, self._piece = data, piece

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        part = self._data[: min(self._piece, len(buffer))]
        self._data = self._data[len(part) :]
        buffer[: len(part)] = part
        return len(part)


def make_pipe(data: bytes, piece: int = 7) -> io.BufferedReader:
    return io.BufferedReader(Pipe(data, piece))


def read_all(reader: AudioReader, block: int = 1000) -> np.ndarray:
    with reader:
        return np.concatenate(list(reader.blocks(block)), axis=1)


def read_until_error(reader: AudioReader, block: int = 1000) -> tuple[np.ndarray, str]:
    pieces = [np.zeros((reader.channels, 0), np.float32)]
    with reader:
        with pytest.raises(AudioError) as caught:
            pieces.extend(reader.blocks(block))
        with pytest.raises(AudioError) as again:
            reader.read(1)
    assert str(again.value) == str(caught.value)
    assert "\n" not in str(caught.value)
    return np.concatenate(pieces, axis=1), str(caught.value)
