"""Ogg pages: how they are made; whether a file has all of them, as decoders skip bad ones."""

import struct
import zlib
from collections.abc import Sequence
from typing import BinaryIO

__all__ = ["find_ogg_damage", "make_page", "page_checksum"]

_HEADER = 27  # bytes before the table of segments
_FIRST_PAGE = 2  # flag: the stream begins with this page
_LAST_PAGE = 4  # flag: the stream ends with this page
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def find_ogg_damage(file: BinaryIO) -> str | None:
    """Walk over the pages (RFC 3533, section 6) and say what is wrong, or None.

    Args:
        file: a seekable binary file; where it stands afterwards is undefined.
    """
    file.seek(0)
    next_page: dict[bytes, int] = {}  # for each stream that goes on, its next page number
    ended = False
    while head := file.read(_HEADER):
        if ended and not next_page:
            if head[:4] == b"OggS":
                return "another stream follows, but only the first is read: split the file"
            return None  # what stands behind the end, such as a tag, is no audio
        segments = file.read(head[26]) if len(head) == _HEADER else b""
        body = file.read(sum(segments))
        if head[:4] != b"OggS"[: len(head)]:
            return "a page is missing or damaged: is the copy or download faulty?"
        if len(head) < _HEADER or len(segments) < head[26] or len(body) < sum(segments):
            return "the last page is incomplete: is the copy or download cut short?"
        if page_checksum(head + segments + body) != head[22:26]:
            return "a page is damaged (its checksum is wrong): is the copy or download faulty?"
        stream, number = head[14:18], int.from_bytes(head[18:22], "little")
        if number != next_page.get(stream, number):
            return "pages are missing in the middle: is the copy or download faulty?"
        next_page[stream] = number + 1
        if head[5] & _LAST_PAGE:
            del next_page[stream]
            ended = True
    if next_page:
        return "the last page is missing: was the recording, copy or download cut short?"
    return None


def make_page(
    packets: Sequence[bytes], position: int, number: int, serial: int, *, last: bool = False
) -> bytes:
    """Return a page of whole packets (RFC 3533, section 6); a stream begins with number 0.

    Args:
        packets: so few and small that they fit: 255 segments of 255 bytes, each packet's last one
            shorter than that.
        position: the granule position: where the stream stands after them.
        number: of the page.
        serial: of the stream.
        last: the stream ends here.
    """
    lacing = b"".join(
        b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets
    )
    assert len(lacing) <= 255, f"{len(lacing)} segments don't fit in a page of 255"
    flags = (0 if number else _FIRST_PAGE) | (_LAST_PAGE if last else 0)
    head = struct.pack("<4sBBqIII", b"OggS", 0, flags, position, serial, number, 0)
    page = head + bytes([len(lacing)]) + lacing + b"".join(packets)
    return page[:22] + page_checksum(page) + page[26:]


def page_checksum(page: bytes) -> bytes:
    """Return a page's checksum, a CRC-32 that takes the highest bit of each byte first."""
    plain = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
    # zlib takes the lowest bit first, and inverts what comes in and goes out
    found = zlib.crc32(plain, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return found.to_bytes(4, "big").translate(_REVERSED)
