"""Ogg pages: whether a file has all of them, whole; a decoder skips bad ones in silence."""

import zlib
from typing import BinaryIO

__all__ = ["find_ogg_damage", "page_checksum"]

_HEADER = 27  # bytes before the table of segments
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


def page_checksum(page: bytes) -> bytes:
    """Return a page's checksum, a CRC-32 that takes the highest bit of each byte first."""
    plain = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
    # zlib takes the lowest bit first, and inverts what comes in and goes out
    found = zlib.crc32(plain, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return found.to_bytes(4, "big").translate(_REVERSED)
