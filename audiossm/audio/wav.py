"""WAV and raw PCM, decoded as the bytes arrive: what a live pipe needs."""

import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from audiossm.errors import AudioError

__all__ = ["ByteStream", "WavFormat", "WavSource", "is_wav", "read_wav_header"]

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_MAX_HEADER = 16 << 20  # bytes
# Writers that can't go back to fill in the length leave one of these: Python's wave and GStreamer
# 0, ffmpeg the other two.
_UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)
# On a pipe, anything from here on is a placeholder as well: sox writes 0x7FFFF000, arecord
# 0x80000000.
_PLACEHOLDER_FROM = 0x7FFFF000


class ByteStream:
    """Bytes that come when they come, with a look ahead."""

    def __init__(self, raw: BinaryIO) -> None:
        self.raw = raw
        self._ahead = bytearray()
        self._read1 = getattr(raw, "read1", raw.read)

    def peek(self, num_bytes: int) -> bytes:
        """Return the next bytes without taking them; fewer only at the end of the stream."""
        while len(self._ahead) < num_bytes:
            piece = self._read1(num_bytes - len(self._ahead))
            if not piece:
                break
            self._ahead += piece
        return bytes(self._ahead[:num_bytes])

    def read(self, max_bytes: int) -> bytes:
        """Take what is there now, at least one byte; empty only at the end of the stream."""
        if not self._ahead:
            return self._read1(max_bytes) or b""
        piece = bytes(self._ahead[:max_bytes])
        del self._ahead[:max_bytes]
        return piece

    def seek(self, position: int) -> None:
        """Go to a byte of a seekable stream."""
        self._ahead.clear()
        self.raw.seek(position)


@dataclass(frozen=True, kw_only=True)
class WavFormat:
    """How samples lie in the bytes."""

    sample_rate: int
    channels: int
    sample_bytes: int
    is_float: bool
    start: int = 0  # byte of the first sample
    num_bytes: int | None = None  # of all samples; None: until the stream ends

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return self.sample_bytes * self.channels


def is_wav(head: bytes) -> bool:
    """Tell from the first 12 bytes whether this is a (little-endian) WAV stream."""
    return head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE"


def read_wav_header(stream: ByteStream, name: str, *, live: bool) -> WavFormat | None:
    """Look ahead over the chunks up to the samples; nothing is taken from ``stream``.

    Args:
        stream: at the first byte of a stream for which ``is_wav`` holds.
        name: of the stream, for errors.
        live: the stream is a pipe, whose writer may not have known its length.

    Returns:
        The format, or None if the samples are coded in a way that is not read here.

    Raises:
        AudioError: the header is cut short or makes no sense.
    """
    riff_size = int.from_bytes(stream.peek(8)[4:], "little")
    body: bytes | None = None
    long_size: int | None = None
    at = 12
    while True:
        tag, size = _read_chunk(stream, at, name)
        at += 8
        if tag == b"data":
            break
        if at + size > _MAX_HEADER:
            raise AudioError(f"{name}: WAV chunk {tag!r} has {size} bytes before any audio")
        if tag == b"fmt ":
            body = stream.peek(at + size)[at:]
        elif tag == b"ds64":
            long_size = int.from_bytes(stream.peek(at + 16)[at + 8 :], "little")
        at += size + size % 2
    if body is None or len(body) < 16:
        raise AudioError(f"{name}: the WAV header has no usable 'fmt ' chunk before the audio")
    known: int | None = size
    if size in _UNKNOWN_SIZES or (live and size >= _PLACEHOLDER_FROM):
        # Size 0 is the truth where the file says that other chunks follow.
        no_samples = size == 0 and at - 8 < riff_size < _PLACEHOLDER_FROM
        known = 0 if no_samples else None
        if long_size is not None and 0 < long_size < 1 << 62:
            known = long_size
    return _parse_format(body, at, known, name)


def _read_chunk(stream: ByteStream, at: int, name: str) -> tuple[bytes, int]:
    head = stream.peek(at + 8)[at:]
    if len(head) < 8:
        raise AudioError(f"{name}: the WAV header is cut short: there is no 'data' chunk")
    return head[:4], int.from_bytes(head[4:], "little")


def _parse_format(body: bytes, start: int, num_bytes: int | None, name: str) -> WavFormat | None:
    code, channels, rate, _, align, bits = struct.unpack("<HHIIHH", body[:16])
    if code == _EXTENSIBLE and len(body) >= 26:
        code = int.from_bytes(body[24:26], "little")
    if code not in (_PCM, _FLOAT):
        return None
    if channels == 0 or rate == 0:
        raise AudioError(f"{name}: the WAV header says {channels} channels at {rate} Hz")
    width = align // channels
    usable = (4, 8) if code == _FLOAT else (1, 2, 3, 4)
    if align % channels or width not in usable or not 0 < bits <= 8 * width:
        kind = "float" if code == _FLOAT else "integer"
        raise AudioError(
            f"{name}: {bits}-bit {kind} samples in {align} bytes for {channels} channels are not "
            "supported; expected 8, 16, 24 or 32-bit integers or 32 or 64-bit floats"
        )
    if num_bytes is not None:
        num_bytes -= num_bytes % align
    return WavFormat(
        sample_rate=rate,
        channels=channels,
        sample_bytes=width,
        is_float=code == _FLOAT,
        start=start,
        num_bytes=num_bytes,
    )


class WavSource:
    """Samples out of a stream of bytes.

    Args:
        stream: at its first byte.
        layout: where the samples are and how they are coded.
        seekable: whether ``stream`` can go back; such a stream gives whole blocks, another one
            what has arrived.
    """

    def __init__(self, stream: ByteStream, layout: WavFormat, *, seekable: bool) -> None:
        self.sample_rate = layout.sample_rate
        self.channels = layout.channels
        self.num_samples = (
            None if layout.num_bytes is None else layout.num_bytes // layout.frame_bytes
        )
        self.least_samples = self.num_samples or 0
        self.seekable = seekable
        self.problem: str | None = None
        self._stream = stream
        self._layout = layout
        self._partial = b""
        self._left = layout.num_bytes
        self._skip_header()

    def read(self, max_samples: int) -> np.ndarray:
        """Return (channels, n) float32 with n <= max_samples; n == 0 only at the end."""
        frame = self._layout.frame_bytes
        wanted = max_samples * frame
        if self._left is not None:
            wanted = min(wanted, self._left)
        data = self._partial
        while len(data) < (wanted if self.seekable else min(frame, wanted)):
            piece = self._stream.read(wanted - len(data))
            if not piece:
                break
            data = data + piece if data else piece
        whole = len(data) - len(data) % frame
        self._partial = data[whole:]
        if self._left is not None:
            self._left -= whole
        if whole == 0 and self._partial:
            count = len(self._partial)
            self.problem = (
                f"{count} byte{'s are' if count > 1 else ' is'} left over at the end, but a sample "
                f"has {frame}: is the format wrong, or the end cut off?"
            )
        return _decode(data[:whole], self._layout)

    def _skip_header(self) -> None:
        left = self._layout.start
        while left and (piece := self._stream.read(left)):
            left -= len(piece)

    def seek(self, sample: int) -> None:
        """Go to a sample; the caller has seen that ``seekable`` holds."""
        offset = sample * self._layout.frame_bytes
        self._stream.seek(self._layout.start + offset)
        self._partial, self.problem = b"", None
        if self._layout.num_bytes is not None:
            self._left = max(0, self._layout.num_bytes - offset)

    def close(self) -> None:
        """Do nothing: who opened the stream closes it."""


def _decode(data: bytes, layout: WavFormat) -> np.ndarray:
    audio: np.ndarray
    if layout.is_float:
        with np.errstate(over="ignore"):  # too large a float64 becomes inf, which the reader names
            audio = np.frombuffer(data, f"<f{layout.sample_bytes}").astype(np.float32)
    elif layout.sample_bytes == 1:
        audio = (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    elif layout.sample_bytes == 3:
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        audio = wide.view("<i4")[:, 0].astype(np.float32) * np.float32(2.0**-31)
    else:
        integers = np.frombuffer(data, f"<i{layout.sample_bytes}")
        audio = integers.astype(np.float32) * np.float32(2.0 ** (1 - 8 * layout.sample_bytes))
    return np.ascontiguousarray(audio.reshape(-1, layout.channels).T)
