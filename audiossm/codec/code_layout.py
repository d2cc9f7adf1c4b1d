"""The bytes of a file of codes (``.ssma``): its header, blocks and end.

All integers are little-endian. A file is a header, blocks, and an end:

    header  8 bytes magic and version; u16 length of the rest; the codec's ``codes_hash`` (16
            bytes), sample rate (u32), frame size in samples (u16), codes of a group (u32),
            channels, groups and frames of a block (u8 each), the codec's name in UTF-8; CRC-32 of
            all of that
    block   u8 frames; codes; CRC-32
    end     u8 0; samples of each channel (u64); CRC-32

Codes lie frame after frame, in each all channels, in each all groups, in whole bits: 10 for one of
1000, which is 0.3 % more than the tightest packing and can be read without big numbers. Every
block but the last has as many frames as the header says, so that block ``i`` is found without
reading the others. A checksum starts from that of the header and the block's number: a block in a
wrong place, or of another file, is a damaged one. The length stands at the end because the writer
of a pipe learns it there; a file without an end was cut short.

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

_MAGIC = b"\x89ssma\r\n\x01"  # the last byte is the version
_FIXED = struct.Struct("<16sIHIBBB")
_LENGTH = struct.Struct("<H")
_CRC = struct.Struct("<I")
_END = struct.Struct("<BQ")
END_SIZE = _END.size + _CRC.size
_MAX_SAMPLES = 1 << 62


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


def make_header(form: CodeFormat) -> bytes:
    """Write what a file begins with."""
    fixed = _FIXED.pack(
        bytes.fromhex(form.codes_hash),
        form.sample_rate,
        form.frame_size,
        form.num_codes,
        form.channels,
        form.num_groups,
        form.frames_per_block,
    )
    body = fixed + form.model.encode()
    data = _MAGIC + _LENGTH.pack(len(body)) + body
    return data + _CRC.pack(zlib.crc32(data))


def read_header(stream: ByteStream, name: str) -> tuple[CodeFormat, bytes]:
    """Take a header from a stream: what it says, and its bytes.

    Raises:
        AudioError: there is no header, or it is damaged or of another version.
    """
    head = stream.peek(len(_MAGIC) + _LENGTH.size)
    if not head:
        raise AudioError(f"{name}: is empty (0 bytes)")
    if head[: len(_MAGIC) - 1] != _MAGIC[: len(head)][:-1] or len(head) < len(_MAGIC):
        raise AudioError(f"{name}: not a file of codes; expected what 'audiossm codec encode' made")
    if head[len(_MAGIC) - 1] != _MAGIC[-1]:
        raise AudioError(
            f"{name}: codes in format version {head[len(_MAGIC) - 1]}, but this audiossm reads "
            f"version {_MAGIC[-1]}"
        )
    damaged = AudioError(f"{name}: the header is damaged or cut short: take an intact copy")
    if len(head) < len(_MAGIC) + _LENGTH.size:
        raise damaged
    (length,) = _LENGTH.unpack(head[len(_MAGIC) :])
    data = stream.peek(len(head) + length + _CRC.size)
    body = data[len(head) : len(head) + length]
    whole = len(data) == len(head) + length + _CRC.size and length >= _FIXED.size
    if not whole or _CRC.pack(zlib.crc32(data[: -_CRC.size])) != data[-_CRC.size :]:
        raise damaged
    digest, *numbers = _FIXED.unpack(body[: _FIXED.size])
    rate, frame_size, num_codes, channels, groups, frames = numbers
    try:
        form = CodeFormat(
            model=body[_FIXED.size :].decode(),
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
    return form, data


def make_end(num_samples: int, layout: Layout, index: int) -> bytes:
    """Write the end after ``index`` blocks."""
    return layout.seal(_END.pack(0, num_samples), index)


def read_end(record: bytes, layout: Layout, index: int) -> int | None:
    """Read the length from the end after ``index`` blocks; None if this isn't that."""
    if len(record) != END_SIZE or not layout.is_sealed(record, index):
        return None
    zero, num_samples = _END.unpack(record[: _END.size])
    return num_samples if zero == 0 and num_samples < _MAX_SAMPLES else None
