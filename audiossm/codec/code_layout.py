"""The bytes of a file of codes (``.ssma``): its header, blocks and end.

All integers are little-endian. A file is a header, blocks, and an end:

    header  7 bytes magic; u8 version; u16 length of the rest; the codec's ``codes_hash`` (16
            bytes), sample rate (u32), frame size in samples (u16), codes of a group (u32),
            channels, groups and frames of a block (u8 each), the codec's name in UTF-8, in version
            2 a zero and a comment in UTF-8; CRC-32 of all of that
    block   u8 frames; codes; CRC-32
    end     u8 0; samples of each channel (u64); CRC-32

Codes lie frame after frame, in each all channels, in each all groups, in whole bits: 10 for one of
1000, which is 0.3 % more than the tightest packing and can be read without big numbers. Every
block but the last has as many frames as the header says, so that block ``i`` is found without
reading the others. A checksum starts from that of the header and the block's number: a block in a
wrong place, or of another file, is a damaged one. The length stands at the end because the writer
of a pipe learns it there; a file without an end was cut short.

The comment says of generated speech that it is that. Only files that have one are version 2, which
older readers refuse by its number: all others are version 1, to the bit as they always were.

The suffix isn't ``.asc``: that one is a signature's (application/pgp-signature).
"""

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audiossm.audio.wav import ByteStream
from audiossm.codec.codes import CodeFormat
from audiossm.errors import AudioError, ShapeError

__all__ = ["END_SIZE", "Layout", "make_end", "make_header", "read_end", "read_header"]

_MAGIC = b"\x89ssma\r\n"
_PLAIN, _COMMENTED = 1, 2  # versions
_FIXED = struct.Struct("<16sIHIBBB")
_LENGTH = struct.Struct("<H")
_CRC = struct.Struct("<I")
_END = struct.Struct("<BQ")
END_SIZE = _END.size + _CRC.size
_MAX_SAMPLES = 1 << 62
_MAX_COMMENT = 1024  # bytes


@dataclass(frozen=True)
class Layout:
    """Where the bytes of blocks are."""

    form: CodeFormat
    header: bytes

    @property
    def full_size(self) -> int:
        """Bytes of a block that isn't the last one."""
        return self.block_size(self.form.frames_per_block)

    @property
    def frame_bits(self) -> int:
        """Bits of a frame's codes, of all channels."""
        return self.form.channels * self.form.num_groups * self.form.code_bits

    def block_size(self, num_frames: int) -> int:
        """Bytes of a block."""
        return 1 + -(-num_frames * self.frame_bits // 8) + _CRC.size

    def frames_in(self, block_size: int) -> int:
        """Invert ``block_size``; no more than a block has."""
        bits = 8 * max(0, block_size - 1 - _CRC.size)
        return min(bits // self.frame_bits, self.form.frames_per_block)

    def seal(self, record: bytes, index: int) -> bytes:
        """Add the checksum of a block, or of the end after ``index`` blocks."""
        # without the header's own checksum: with it, all headers have the same one
        seed = zlib.crc32(index.to_bytes(8, "little"), zlib.crc32(self.header[: -_CRC.size]))
        return record + _CRC.pack(zlib.crc32(record, seed))

    def is_sealed(self, record: bytes, index: int) -> bool:
        """Tell whether the checksum is the one that ``seal`` adds there."""
        return self.seal(record[: -_CRC.size], index) == record

    def pack(self, codes: NDArray[np.int64]) -> bytes:
        """Write (channels, groups, frames) as a block without its checksum."""
        shifts = np.arange(self.form.code_bits - 1, -1, -1)
        bits = codes.transpose(2, 0, 1)[..., np.newaxis] >> shifts & 1
        return bytes([codes.shape[2]]) + np.packbits(bits.astype(np.uint8)).tobytes()

    def unpack(self, block: bytes) -> NDArray[np.int64]:
        """Read what ``pack`` wrote and ``seal`` sealed."""
        num_frames = block[0]
        packed = np.frombuffer(block[1 : -_CRC.size], np.uint8)
        bits = np.unpackbits(packed, count=num_frames * self.frame_bits)
        weights = 1 << np.arange(self.form.code_bits - 1, -1, -1)
        codes = bits.reshape(num_frames, self.form.channels, self.form.num_groups, -1) @ weights
        return np.ascontiguousarray(codes.transpose(1, 2, 0))


def make_header(form: CodeFormat, comment: str | None = None) -> bytes:
    """Write what a file begins with.

    Raises:
        ShapeError: a file can't hold this comment.
    """
    fixed = _FIXED.pack(
        bytes.fromhex(form.codes_hash),
        form.sample_rate,
        form.frame_size,
        form.num_codes,
        form.channels,
        form.num_groups,
        form.frames_per_block,
    )
    body, version = fixed + form.model.encode(), _PLAIN
    if comment is not None:
        check_comment(comment)
        body, version = body + b"\0" + comment.encode(), _COMMENTED
    data = _MAGIC + bytes([version]) + _LENGTH.pack(len(body)) + body
    return data + _CRC.pack(zlib.crc32(data))


def check_comment(comment: str) -> None:
    """Refuse a comment that no file of codes has."""
    if not comment.isprintable() or not 1 <= len(comment.encode()) <= _MAX_COMMENT:
        raise ShapeError(
            f"a comment of codes has 1 to {_MAX_COMMENT} bytes of printable UTF-8, not "
            f"{comment[:80]!r}"
        )


def read_header(stream: ByteStream, name: str) -> tuple[CodeFormat, str | None, bytes]:
    """Take a header from a stream: what it says, its comment if it has one, and its bytes.

    Raises:
        AudioError: there is no header, or it is damaged or of another version.
    """
    start = len(_MAGIC) + 1
    head = stream.peek(start + _LENGTH.size)
    if not head:
        raise AudioError(f"{name}: is empty (0 bytes)")
    if head[: len(_MAGIC)] != _MAGIC or len(head) < start:
        raise AudioError(f"{name}: not a file of codes; expected what 'audiossm codec encode' made")
    version = head[len(_MAGIC)]
    if version not in (_PLAIN, _COMMENTED):
        raise AudioError(
            f"{name}: codes in format version {version}, but this audiossm reads versions "
            f"{_PLAIN} and {_COMMENTED}"
        )
    damaged = AudioError(f"{name}: the header is damaged or cut short: take an intact copy")
    if len(head) < start + _LENGTH.size:
        raise damaged
    (length,) = _LENGTH.unpack(head[start:])
    data = stream.peek(len(head) + length + _CRC.size)
    body = data[len(head) : len(head) + length]
    whole = len(data) == len(head) + length + _CRC.size and length >= _FIXED.size
    if not whole or _CRC.pack(zlib.crc32(data[: -_CRC.size])) != data[-_CRC.size :]:
        raise damaged
    digest, *numbers = _FIXED.unpack(body[: _FIXED.size])
    rate, frame_size, num_codes, channels, groups, frames = numbers
    model, comment = body[_FIXED.size :], None
    try:
        if version == _COMMENTED:
            model, _, told = model.partition(b"\0")
            comment = told.decode()
            check_comment(comment)
        form = CodeFormat(
            model=model.decode(),
            codes_hash=digest.hex(),
            sample_rate=rate,
            frame_size=frame_size,
            num_codes=num_codes,
            channels=channels,
            num_groups=groups,
            frames_per_block=frames,
        )
    except (UnicodeDecodeError, ShapeError) as exc:  # sealed, so somebody meant it
        raise AudioError(f"{name}: the header makes no sense ({exc})") from exc
    stream.read(len(data))
    return form, comment, data


def make_end(num_samples: int, layout: Layout, index: int) -> bytes:
    """Write the end after ``index`` blocks."""
    return layout.seal(_END.pack(0, num_samples), index)


def read_end(record: bytes, layout: Layout, index: int) -> int | None:
    """Read the length from the end after ``index`` blocks; None if this isn't that."""
    if len(record) != END_SIZE or not layout.is_sealed(record, index):
        return None
    zero, num_samples = _END.unpack(record[: _END.size])
    return num_samples if zero == 0 and num_samples < _MAX_SAMPLES else None
