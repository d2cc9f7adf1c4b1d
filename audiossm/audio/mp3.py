"""MPEG audio, layer III: which bytes of a file are whole frames, and how many there are.

libsndfile stops where a file's header, or an estimate from its first bit rate, says that it ends:
too early for joined files and for a varying bit rate without a header. So frames are counted here,
and where the count is another one, the decoder gets a stream of whole frames with a true header.
"""

import io
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

__all__ = ["Mp3Scan", "looks_like_mp3", "scan_mp3"]

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBITS = {
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    0: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HEADER_KBITS = 9  # the place of a bit rate whose frames hold our header at any sample rate
_SURE = 3  # so many headers in a row are no chance
_PADDING = 1 << 13  # bytes: so much behind the last frame, such as zeros, is no reason to worry
_SEARCH = 1 << 16  # bytes read at once while looking for the next frame


class _Frame(NamedTuple):
    """What four bytes of frame header say."""

    size: int  # bytes
    samples: int
    sample_rate: int
    side_info: int  # bytes between frame header and data
    version: int


def _parse(head: bytes) -> _Frame | None:
    """Read a frame header; None if it is none, not layer III or of free format."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, kbits, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or kbits in (0, 15) or rate == 3:
        return None
    samples = 1152 if version == 3 else 576
    sample_rate = _RATES[version][rate]
    size = samples // 8 * 1000 * _KBITS[version][kbits - 1] // sample_rate + (head[2] >> 1 & 1)
    is_mono = head[3] >> 6 == 3
    side_info = (17 if is_mono else 32) if version == 3 else (9 if is_mono else 17)
    return _Frame(size, samples, sample_rate, side_info, version)


@dataclass(frozen=True)
class Mp3Scan:
    """What a walk over a file's frames found."""

    spans: tuple[tuple[int, int], ...]  # (first byte, end) of the runs of whole frames
    num_frames: int  # whole frames, without the one that holds the file's own header
    declared: int | None  # frames as the file's own header counts them
    frame_samples: int
    head: bytes  # the first frame's header
    damage: str | None

    @property
    def is_plain(self) -> bool:
        """Whether a decoder finds all frames in the file as it is."""
        return self.declared == self.num_frames and len(self.spans) == 1 and self.damage is None

    @property
    def promised_samples(self) -> int | None:
        """Samples per channel that the file's own header promises, if its end is missing."""
        if self.declared is None or self.declared <= self.num_frames + 1 or len(self.spans) > 1:
            return None
        return self.declared * self.frame_samples

    def open(self, file: BinaryIO) -> BinaryIO:
        """Give the whole frames alone, behind a header that says how many they are."""
        return io.BufferedReader(_Spans(file, self._make_header(), self.spans), 1 << 16)

    def _make_header(self) -> bytes:
        no_checksum, kbits = self.head[1] | 1, self.head[2] & 0x0C | _HEADER_KBITS << 4
        head = bytes([0xFF, no_checksum, kbits, self.head[3]])
        frame = _parse(head)
        assert frame is not None
        tag = b"Xing" + (1).to_bytes(4, "big") + self.num_frames.to_bytes(4, "big")
        return (head + bytes(frame.side_info) + tag).ljust(frame.size, b"\0")


def looks_like_mp3(head: bytes) -> bool:
    """Tell from the first bytes whether ``scan_mp3`` is worth trying."""
    return head[:3] == b"ID3" or _parse(head[:4]) is not None


def scan_mp3(file: BinaryIO) -> Mp3Scan | None:
    """Walk over all frames; None if the file has none of layer III at its beginning.

    Args:
        file: a seekable binary file; where it stands afterwards is undefined.
    """
    at = _skip_tags(file, 0)
    head = _read(file, at, 4)
    first = _parse(head)
    if first is None:
        return None
    start, spans, count = at, [], 0
    declared = _read_declared(_read(file, at, first.size))
    if declared is not None:
        at = start = at + first.size
    damage = None
    while True:
        frame = _parse_like(_read(file, at, 4), first)
        if frame is not None and _has_byte(file, at + frame.size - 1):
            at += frame.size
            count += 1
            continue
        if at > start:
            spans.append((start, at))
        if frame is not None:
            damage = damage or "the last frame is incomplete: is the copy or download cut short?"
        tagged = _skip_tags(file, at)
        start = _find_frames(file, tagged, first)
        if start < 0:
            left = file.seek(0, 2) - tagged
            if left > _PADDING and frame is None:
                damage = f"the last {left} bytes are no audio: is the file damaged?"
            break
        if start > tagged:
            second = count * first.samples / first.sample_rate
            damage = (
                f"{start - tagged} bytes at {second:.2f} s are no audio: the file is damaged there"
            )
        at = start
    if count == 0:
        return None
    return Mp3Scan(tuple(spans), count, declared, first.samples, head, damage)


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


def _has_byte(file: BinaryIO, at: int) -> bool:
    return len(_read(file, at, 1)) == 1


def _parse_like(head: bytes, first: _Frame) -> _Frame | None:
    """Read a frame header that agrees with the first one of the file."""
    frame = _parse(head)
    if frame is None or (frame.version, frame.sample_rate) != (first.version, first.sample_rate):
        return None
    return frame


def _skip_tags(file: BinaryIO, at: int) -> int:
    """Go past tags, which stand before, behind and, in joined files, between frames."""
    while True:
        head = _read(file, at, 32)
        if head[:3] == b"ID3" and len(head) >= 10:
            size = 0
            for byte in head[6:10]:
                size = size << 7 | byte & 0x7F
            at += 10 + size + (10 if head[5] & 0x10 else 0)
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            at += 32 + int.from_bytes(head[12:16], "little")
        elif head[:3] == b"TAG":
            at += 128
        else:
            return at


def _find_frames(file: BinaryIO, at: int, first: _Frame) -> int:
    """Find where frames follow one another, at ``at`` or later; -1 if nowhere."""
    while len(block := _read(file, at, _SEARCH)) >= 4:
        place = block.find(b"\xff", 0, len(block) - 3)
        while place >= 0:
            if _are_frames(file, at + place, first):
                return at + place
            place = block.find(b"\xff", place + 1, len(block) - 3)
        at += len(block) - 3
    return -1


def _are_frames(file: BinaryIO, at: int, first: _Frame) -> bool:
    for _ in range(_SURE):
        frame = _parse_like(_read(file, at, 4), first)
        if frame is None:
            return False
        at += frame.size
    return True


def _read_declared(data: bytes) -> int | None:
    """Read the number of frames that a Xing, Info or VBRI header in the first frame gives."""
    frame = _parse(data[:4])
    if frame is None or len(data) < frame.size:
        return None
    at = 4 + frame.side_info
    if data[at : at + 4] in (b"Xing", b"Info"):
        return int.from_bytes(data[at + 8 : at + 12], "big") if data[at + 7] & 1 else 0
    if data[36:40] == b"VBRI":
        return int.from_bytes(data[50:54], "big")
    return None


class _Spans(io.RawIOBase):
    """A header and then some spans of a file, as one file."""

    def __init__(self, file: BinaryIO, header: bytes, spans: tuple[tuple[int, int], ...]) -> None:
        self._file, self._header, self._spans, self._at = file, header, spans, 0
        self._size = len(header) + sum(end - start for start, end in spans)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed: any buffer
        data = self._take(len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _take(self, size: int) -> bytes:
        at = self._at
        if at < len(self._header):
            return self._header[at : at + size]
        at -= len(self._header)
        for start, end in self._spans:
            if at < end - start:
                return _read(self._file, start + at, min(size, end - start - at))
            at -= end - start
        return b""
