"""Opus packets out of Ogg pages and out of WebM, as the bytes come, without any decoder."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from audiossm.audio.ogg import page_checksum
from audiossm.errors import AudioError

__all__ = [
    "Batch",
    "OggPackets",
    "PacketReader",
    "WebmPackets",
    "find_reader",
    "num_packet_samples",
]

RATE = 48000  # of all Opus time
MAX_PACKET = 61_440  # bytes: 48 frames of 1275 bytes, rounded up
MAX_HEAD = 4096  # bytes of what is said before the first packet


@dataclass(frozen=True)
class Batch:
    """Packets that follow one another.

    Attributes:
        packets: none of them is empty.
        begin: sample that they begin at, before anything is skipped, if the container tells that.
        end: sample that they end at, if it tells that.
        last: nothing follows; ``end`` may lie before the end of the last packet.
    """

    packets: list[bytes]
    begin: int | None = None
    end: int | None = None
    last: bool = False


class PacketReader(Protocol):
    """Takes a container's bytes, cut anywhere.

    Attributes:
        head: the identification header (RFC 7845, section 5.1), once it came.
    """

    head: bytes | None

    def push(self, data: bytes) -> Iterator[Batch]:
        """Yield what became whole.

        Raises:
            AudioError: it is damaged, or no Opus.
        """


def find_reader(data: bytes) -> PacketReader | None:
    """Return the reader for what begins so; None if more bytes are needed to tell.

    Raises:
        AudioError: neither Ogg nor WebM.
    """
    if data[:4] == b"OggS":
        return OggPackets()
    if data[:4] == WebmPackets.BEGIN:
        return WebmPackets()
    if any(begin.startswith(data) for begin in (b"OggS", WebmPackets.BEGIN)):
        return None
    raise AudioError("neither Ogg nor WebM: Opus comes in one of these")


def num_packet_samples(packet: bytes) -> int:
    """Return a packet's length in samples at 48000 Hz (RFC 6716, section 3.1).

    Raises:
        AudioError: no packet of Opus.
    """
    if not packet:
        raise AudioError("an empty packet: no Opus")
    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:
        frame = (480, 960, 1920, 2880)[config % 4]
    elif config < 16:
        frame = (480, 960)[config % 2]
    else:
        frame = (120, 240, 480, 960)[config % 4]
    count = (1, 2, 2, packet[1] & 0x3F if len(packet) > 1 else 0)[code]
    if not 0 < count * frame <= 5760:
        raise AudioError("a packet that no Opus encoder makes: is it damaged?")
    return count * frame


class OggPackets:
    """Packets of the first stream in Ogg (RFC 3533, RFC 7845)."""

    def __init__(self) -> None:
        self.head: bytes | None = None
        self._tags = False
        self._serial = b""
        self._rest = b""
        self._part = b""  # of a packet that goes on on the next page
        self._ended = False

    def push(self, data: bytes) -> Iterator[Batch]:
        """Yield a batch for each page."""
        self._rest += data
        while (page := self._take_page()) is not None:
            batch = self._read(page)
            if batch is not None:
                yield batch

    def _take_page(self) -> bytes | None:
        rest = self._rest
        if rest[:4] != b"OggS"[: len(rest)]:
            raise AudioError("a page is missing or damaged")
        if len(rest) < 27 or len(rest) < 27 + rest[26]:
            return None
        size = 27 + rest[26] + sum(rest[27 : 27 + rest[26]])
        if len(rest) < size:
            return None
        page, self._rest = rest[:size], rest[size:]
        if page_checksum(page) != page[22:26]:
            raise AudioError("a page is damaged (its checksum is wrong)")
        return page

    def _read(self, page: bytes) -> Batch | None:
        packets = self._split(page)
        serial = page[14:18]
        if page[5] & 2:  # a stream begins
            if self._serial and not self._ended and self.head is not None:
                # who resumes in the same connection begins anew; others are another track
                raise AudioError("another stream begins before the first one ends")
            self._serial, self._tags, self._ended = serial, False, False
            if len(packets) != 1 or packets[0][:8] != b"OpusHead":
                raise AudioError("the Ogg stream is no Opus")
            self.head = packets[0]
            return None
        if serial != self._serial:
            return None
        if not self._tags:
            if packets:
                self._tags = True
                if packets[0][:8] != b"OpusTags":
                    raise AudioError("the Ogg stream lacks its comment header")
                packets = packets[1:]
        self._ended = bool(page[5] & 4)
        end = int.from_bytes(page[6:14], "little", signed=True)
        if not packets and not self._ended:
            return None
        return Batch(packets, None, end if end >= 0 else None, self._ended)

    def _split(self, page: bytes) -> list[bytes]:
        """Return the packets that end on a page, and keep the begin of one that doesn't."""
        sizes = page[27 : 27 + page[26]]
        at = 27 + page[26]
        part = self._part if page[5] & 1 else b""
        packets = []
        for size in sizes:
            part += page[at : at + size]
            at += size
            # comments may hold a picture: they are passed over
            if len(part) > (MAX_PACKET if self._tags else 16 << 20):
                raise AudioError(f"a packet of more than {MAX_PACKET} bytes: no Opus")
            if size < 255:
                if part:
                    packets.append(part)
                part = b""
        self._part = part
        return packets


@dataclass
class WebmPackets:
    """Packets of the first Opus track in WebM, also in one that is written as it is recorded."""

    BEGIN = b"\x1a\x45\xdf\xa3"  # EBML
    INSIDE = (
        0x18538067,
        0x1654AE6B,
        0xAE,
        0x1F43B675,
        0xA0,
    )  # Segment, Tracks, entry, Cluster, group
    NUMBER, CODEC, PRIVATE, SCALE, TIME = 0xD7, 0x86, 0x63A2, 0x2AD7B1, 0xE7
    BLOCKS = (0xA3, 0xA1)  # in a cluster, and in a group
    INFO = 0x1549A966

    head: bytes | None = None
    _rest: bytes = b""
    _skip: int = 0
    _track: dict[int, bytes] = field(default_factory=dict)
    _number: int = 0
    _scale: int = 1_000_000  # nanoseconds of a tick
    _time: int = 0  # of the cluster, in ticks

    def push(self, data: bytes) -> Iterator[Batch]:
        """Yield a batch for each block."""
        self._rest += data
        while True:
            if self._skip:
                skipped = min(self._skip, len(self._rest))
                self._rest, self._skip = self._rest[skipped:], self._skip - skipped
            element = self._take()
            if element is None:
                return
            batch = self._read(*element)
            if batch is not None:
                yield batch

    def _take(self) -> tuple[int, bytes] | None:
        """Return an element that matters, or None if more bytes are needed."""
        while not self._skip:
            found = _read_number(self._rest, 0, keep=True)
            size = None if found is None else _read_number(self._rest, found[1])
            if found is None or size is None:
                return None
            kind, (length, start) = found[0], size
            unknown = length == (1 << 7 * (start - found[1])) - 1
            if kind in (*self.INSIDE, self.INFO):
                self._rest = self._rest[start:]
                return kind, b""
            wanted = kind in (
                *self.BLOCKS,
                self.NUMBER,
                self.CODEC,
                self.PRIVATE,
                self.SCALE,
                self.TIME,
            )
            if unknown:
                raise AudioError("a WebM element without a length, where it needs one")
            if not wanted:
                self._skip = length
                self._rest = self._rest[start:]
                skipped = min(self._skip, len(self._rest))
                self._rest, self._skip = self._rest[skipped:], self._skip - skipped
                continue
            if length > MAX_PACKET + 16:
                raise AudioError(f"a WebM block of {length} bytes: no Opus")
            if len(self._rest) < start + length:
                return None
            body = self._rest[start : start + length]
            self._rest = self._rest[start + length :]
            return kind, body
        return None

    def _read(self, kind: int, body: bytes) -> Batch | None:
        if kind == 0xAE:
            self._track = {}
        elif kind in (self.NUMBER, self.CODEC, self.PRIVATE):
            self._track[kind] = body
            if len(self._track) == 3 and self.head is None:
                if self._track[self.CODEC].rstrip(b"\0") == b"A_OPUS":
                    self.head = self._track[self.PRIVATE][:MAX_HEAD]
                    self._number = int.from_bytes(self._track[self.NUMBER], "big")
        elif kind == self.SCALE:
            self._scale = int.from_bytes(body, "big")
        elif kind == self.TIME:
            self._time = int.from_bytes(body, "big")
        elif kind in self.BLOCKS:
            return self._read_block(body)
        return None

    def _read_block(self, body: bytes) -> Batch | None:
        if self.head is None:
            raise AudioError("the WebM has no track of Opus")
        found = _read_number(body, 0)
        if found is None or len(body) < found[1] + 3:
            raise AudioError("a WebM block is damaged")
        number, at = found
        if number != self._number:
            return None
        if body[at + 2] & 0x06:
            raise AudioError("a WebM block with several frames in it isn't read")
        ticks = self._time + int.from_bytes(body[at : at + 2], "big", signed=True)
        packet = body[at + 3 :]
        if not packet:
            raise AudioError("a WebM block is empty")
        return Batch([packet], round(ticks * self._scale * RATE / 1e9), None)


def _read_number(data: bytes, at: int, keep: bool = False) -> tuple[int, int] | None:
    """Read EBML's number of any length; return it and where it ends, None if it isn't whole."""
    if at >= len(data):
        return None
    first = data[at]
    if not first:
        raise AudioError("a WebM element is damaged")
    length = 9 - first.bit_length()
    if at + length > len(data):
        return None
    value = int.from_bytes(data[at : at + length], "big")
    return (value if keep else value & (1 << 7 * length) - 1), at + length
