"""16-bit WAV, written as the samples come: to a file or a pipe."""

import struct
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["WavWriter"]

_UNKNOWN = 0xFFFFFFFF  # what ffmpeg writes to a pipe; readers take it for "until the end"
_HEADER_SIZE = 44


class ByteFile(Protocol):
    """What bytes are written to."""

    def write(self, data: bytes, /) -> object: ...
    def seekable(self) -> bool: ...
    def seek(self, position: int, /) -> object: ...


class WavWriter:
    """Write samples behind a header that says how many they are, if that is known in time.

    Nothing is written before the first samples.

    Args:
        stream: at its first byte. If it can seek, the header is set right at the end.
        sample_rate: Hz.
        channels: how many.
        num_samples: of each channel, if it is known.
        comment: what the file says of itself, in a chunk LIST INFO ICMT.
    """

    def __init__(
        self,
        stream: ByteFile,
        sample_rate: int,
        channels: int,
        num_samples: int | None = None,
        *,
        comment: str | None = None,
    ) -> None:
        self._stream, self._sample_rate, self._channels = stream, sample_rate, channels
        self._info = b"" if comment is None else make_info(comment)
        self._promised, self._written = num_samples, 0

    def write(self, audio: NDArray[np.float32]) -> None:
        """Write (channels, samples); values outside [-1, 1] are clipped."""
        if not audio.shape[1]:
            return
        data = np.clip(np.rint(audio.T * 2.0**15), -(2**15), 2**15 - 1).astype("<i2").tobytes()
        self._stream.write(data if self._written else self._make_header(self._promised) + data)
        self._written += audio.shape[1]

    def finish(self) -> None:
        """Set the header right, where it isn't and can be."""
        if self._written and self._written != self._promised and self._stream.seekable():
            self._stream.seek(0)
            self._stream.write(self._make_header(self._written))

    def _make_header(self, num_samples: int | None) -> bytes:
        frame = 2 * self._channels
        size = _UNKNOWN if num_samples is None else num_samples * frame
        head = _HEADER_SIZE + len(self._info)
        if size > _UNKNOWN - head:
            size = _UNKNOWN
        riff = min(size + head - 8, _UNKNOWN)
        rate = self._sample_rate
        form = struct.pack("<HHIIHH", 1, self._channels, rate, rate * frame, frame, 16)
        start = struct.pack("<4sI8sI16s", b"RIFF", riff, b"WAVEfmt ", 16, form)
        return start + self._info + struct.pack("<4sI", b"data", size)


def make_info(comment: str) -> bytes:
    """Return a chunk that holds a comment."""
    text = comment.encode() + b"\0"
    text += b"\0" * (len(text) % 2)  # chunks begin at even places
    inner = b"INFOICMT" + struct.pack("<I", len(text)) + text
    return b"LIST" + struct.pack("<I", len(inner)) + inner
