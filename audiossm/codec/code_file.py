"""Files of codes (``.ssma``): written as the codes come, read as far as they are whole.

All integers are little-endian. A file is a header, blocks, and an end:

    header  8 bytes magic and version; u16 length of the rest; model hash (16 bytes), sample rate
            (u32), frame size in samples (u16), codes of a group (u32), channels, groups and frames
            of a block (u8 each), the model's name in UTF-8; CRC-32 of all of that
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
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from audiossm.audio.reader import open_stream
from audiossm.audio.wav import ByteStream
from audiossm.codec.codes import CodeFormat
from audiossm.errors import AudioError, ShapeError

__all__ = ["CodeBlock", "CodeReader", "CodeWriter", "open_codes"]

_MAGIC = b"\x89ssma\r\n\x01"  # the last byte is the version
_FIXED = struct.Struct("<16sIHIBBB")
_LENGTH = struct.Struct("<H")
_CRC = struct.Struct("<I")
_END = struct.Struct("<BQ")
_END_SIZE = _END.size + _CRC.size
_MAX_SAMPLES = 1 << 62


class ByteSink(Protocol):
    """What bytes are written to."""

    def write(self, data: bytes, /) -> object: ...


class CodeBlock(NamedTuple):
    """A stretch of frames."""

    codes: NDArray[np.int64]  # (channels, groups, frames)
    lost: bool  # damaged: the codes are zeros that stand for nothing


@dataclass(frozen=True)
class _Layout:
    """Where the bytes of blocks are."""

    frame_shape: tuple[int, int]  # channels, groups
    code_bits: int
    frames_per_block: int
    header: bytes

    @property
    def full_size(self) -> int:
        return self.block_size(self.frames_per_block)

    @property
    def frame_bits(self) -> int:
        return self.frame_shape[0] * self.frame_shape[1] * self.code_bits

    def block_size(self, num_frames: int) -> int:
        return 1 + -(-num_frames * self.frame_bits // 8) + _CRC.size

    def frames_in(self, block_size: int) -> int:
        """Invert ``block_size``; no more than a block has."""
        bits = 8 * max(0, block_size - 1 - _CRC.size)
        return min(bits // self.frame_bits, self.frames_per_block)

    def seal(self, record: bytes, index: int) -> bytes:
        """Add the checksum of a block, or of the end after ``index`` blocks."""
        # without the header's own checksum: with it, all headers have the same one
        seed = zlib.crc32(index.to_bytes(8, "little"), zlib.crc32(self.header[: -_CRC.size]))
        return record + _CRC.pack(zlib.crc32(record, seed))

    def is_sealed(self, record: bytes, index: int) -> bool:
        return self.seal(record[: -_CRC.size], index) == record

    def pack(self, codes: NDArray[np.int64]) -> bytes:
        """Write (channels, groups, frames) as a block without its checksum."""
        shifts = np.arange(self.code_bits - 1, -1, -1)
        bits = codes.transpose(2, 0, 1)[..., np.newaxis] >> shifts & 1
        return bytes([codes.shape[2]]) + np.packbits(bits.astype(np.uint8)).tobytes()

    def unpack(self, block: bytes) -> NDArray[np.int64]:
        """Read what ``pack`` wrote and ``seal`` sealed."""
        num_frames = block[0]
        packed = np.frombuffer(block[1 : -_CRC.size], np.uint8)
        bits = np.unpackbits(packed, count=num_frames * self.frame_bits).astype(np.int64)
        weights = 1 << np.arange(self.code_bits - 1, -1, -1)
        codes = bits.reshape(num_frames, *self.frame_shape, self.code_bits) @ weights
        return np.ascontiguousarray(codes.transpose(1, 2, 0))


def _lay_out(form: CodeFormat, header: bytes) -> _Layout:
    bits = max(1, (form.num_codes - 1).bit_length())
    return _Layout((form.channels, form.num_groups), bits, form.frames_per_block, header)


def _write_header(form: CodeFormat) -> bytes:
    fixed = _FIXED.pack(
        bytes.fromhex(form.model_hash),
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


def _read_header(stream: ByteStream, name: str) -> tuple[CodeFormat, bytes]:
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
            model_hash=digest.hex(),
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


class CodeWriter:
    """Write codes to a file or a pipe as they come.

    Nothing is written before there is something to write: the header comes with the first block.

    Args:
        stream: takes bytes.
        form: whose codes they are.
    """

    def __init__(self, stream: ByteSink, form: CodeFormat) -> None:
        self.form = form
        self._stream = stream
        header = _write_header(form)
        self._layout = _lay_out(form, header)
        self._waiting = np.zeros((form.channels, form.num_groups, 0), np.int64)
        self._index = 0
        self._due = header  # what goes out before the next block

    def write(self, codes: NDArray[np.int64]) -> None:
        """Take the next codes (channels, groups, frames), any number of frames.

        Raises:
            ShapeError: another shape, or a code that the format hasn't.
        """
        form = self.form
        if codes.shape[:-1] != (form.channels, form.num_groups):
            raise ShapeError(
                f"codes are {codes.shape}, but this file takes ({form.channels} channels, "
                f"{form.num_groups} groups, frames)"
            )
        if codes.size and not 0 <= codes.min() <= codes.max() < form.num_codes:
            raise ShapeError(
                f"codes lie between {codes.min()} and {codes.max()}, but this file's between 0 and "
                f"{form.num_codes - 1}"
            )
        codes = np.concatenate([self._waiting, codes], axis=2)
        size = form.frames_per_block
        ready = codes.shape[2] // size * size
        for at in range(0, ready, size):
            self._write_block(codes[..., at : at + size])
        self._waiting = codes[..., ready:]

    def finish(self, num_samples: int) -> None:
        """Write the rest, and how many samples each channel has at the codec's rate."""
        if self._waiting.shape[2]:
            self._write_block(self._waiting)
        end = self._layout.seal(_END.pack(0, num_samples), self._index)
        self._stream.write(self._due + end)

    def _write_block(self, codes: NDArray[np.int64]) -> None:
        block = self._layout.seal(self._layout.pack(codes), self._index)
        self._stream.write(self._due + block)
        self._due, self._index = b"", self._index + 1


class CodeReader:
    """Codes in the order of time; a context manager. Made by ``open_codes``.

    What is damaged is passed over, and ``problem`` tells of it afterwards.

    Attributes:
        name: for messages.
        form: whose codes they are.
        num_samples: of each channel, at the codec's rate; None until the end of a pipe, and for a
            file without its end.
        num_frames: frames read so far or passed over by ``seek``.
    """

    def __init__(
        self, stream: ByteStream, name: str, size: int | None, resources: ExitStack
    ) -> None:
        self.name = name
        self._stream, self._size, self._resources = stream, size, resources
        self.form, header = _read_header(stream, name)
        self._layout = _lay_out(self.form, header)
        self.num_frames = 0
        self.num_samples: int | None = None
        self._index = 0
        self._lost: list[tuple[int, int]] = []  # stretches of frames
        self._end_problem: str | None = None
        self._ended = False
        if size is not None:
            self._find_end(size)

    def read(self) -> CodeBlock | None:
        """Return the next block; None at the end, whatever ended it.

        Raises:
            AudioError: the bytes can't be read.
        """
        try:
            return self._read()
        except OSError as exc:
            raise AudioError(f"{self.name}: reading fails: {exc.strerror or exc}") from exc

    def _read(self) -> CodeBlock | None:
        layout, stream = self._layout, self._stream
        if self._ended:
            return None
        head = stream.peek(1)
        count = head[0] if head else 0
        if head and count == 0:
            end = stream.peek(_END_SIZE)
            if self._is_end(end):
                self._take_end(end)
                if stream.peek(1):
                    self._end_problem = "more bytes follow the end: are two files joined?"
                return None
        elif 0 < count <= layout.frames_per_block:
            block = stream.peek(layout.block_size(count))
            if len(block) == layout.block_size(count) and layout.is_sealed(block, self._index):
                codes = layout.unpack(block)
                if codes.size and codes.max() >= self.form.num_codes:  # sealed, but nonsense
                    codes[:] = 0
                    return self._take_lost(len(block), count)
                stream.read(len(block))
                self._index += 1
                self.num_frames += count
                return CodeBlock(codes, lost=False)
        return self._pass_over()

    def __iter__(self) -> Iterator[CodeBlock]:
        """Read to the end."""
        while (block := self.read()) is not None:
            yield block

    def seek(self, frame: int) -> None:
        """Go to the block of a frame, or to the end; only before the first ``read``.

        ``num_frames`` tells where that block begins.

        Raises:
            AudioError: some have been read.
        """
        if self._index or self._ended:
            raise AudioError(f"{self.name}: codes are read once, from the front")
        size = self._layout.full_size
        for _ in range(frame // self.form.frames_per_block):
            # an end, a short block or less than a block: read() sees to them
            if len(self._stream.peek(size + _END_SIZE)) < size + _END_SIZE:
                break
            self._skip(size)
            self._index += 1
            self.num_frames += self.form.frames_per_block

    @property
    def problem(self) -> str | None:
        """What was wrong with what has been read, in a line."""
        found = []
        if self._lost:
            spans = [f"{self._tell(a)} to {self._tell(b)} s" for a, b in self._lost[:3]]
            more = len(self._lost) - len(spans)
            found.append(
                f"damaged from {', '.join(spans)}{f' and in {more} more places' if more else ''}"
            )
        if self._end_problem is not None:
            found.append(self._end_problem)
        return f"{self.name}: {'; '.join(found)}" if found else None

    def close(self) -> None:
        """Free what ``open_codes`` opened."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _tell(self, frame: int) -> str:
        return f"{frame * self.form.frame_size / self.form.sample_rate:.2f}"

    def _find_end(self, size: int) -> None:
        """Read a file's length from its last bytes, and come back."""
        start = len(self._layout.header)
        body = size - start - _END_SIZE
        if body >= 0:
            self._stream.seek(size - _END_SIZE)
            end = self._stream.peek(_END_SIZE)
            if self._layout.is_sealed(end, -(-body // self._layout.full_size)):
                self.num_samples = self._read_end(end)
        self._stream.seek(start)

    def _is_end(self, record: bytes, more: int = 0) -> bool:
        return (
            len(record) == _END_SIZE
            and self._layout.is_sealed(record, self._index + more)
            and self._read_end(record) is not None
        )

    def _read_end(self, record: bytes) -> int | None:
        zero, num_samples = _END.unpack(record[: _END.size])
        return num_samples if zero == 0 and num_samples < _MAX_SAMPLES else None

    def _take_end(self, record: bytes) -> None:
        self._skip(_END_SIZE)
        self.num_samples, self._ended = self._read_end(record), True

    def _pass_over(self) -> CodeBlock | None:
        """Pass over what is no whole block: a damaged one, or the broken end of the file."""
        full = self._layout.full_size
        rest = self._stream.peek(full + _END_SIZE)
        if len(rest) == full + _END_SIZE:
            return self._take_lost(full, self.form.frames_per_block)
        if self._is_end(rest[-_END_SIZE:], more=1):
            num_bytes = len(rest) - _END_SIZE
            return self._take_lost(num_bytes, self._layout.frames_in(num_bytes))
        self._ended = True
        self._end_problem = (
            f"cut short after {self._tell(self.num_frames)} s"
            if len(rest) < full
            else f"damaged after {self._tell(self.num_frames)} s"
        ) + ": is the copy or download incomplete?"
        return None

    def _take_lost(self, num_bytes: int, num_frames: int) -> CodeBlock:
        self._skip(num_bytes)
        first, last = self.num_frames, self.num_frames + num_frames
        if self._lost and self._lost[-1][1] == first:
            first, _ = self._lost.pop()
        self._lost.append((first, last))
        self._index += 1
        self.num_frames = last
        shape = self.form.channels, self.form.num_groups, num_frames
        return CodeBlock(np.zeros(shape, np.int64), lost=True)

    def _skip(self, num_bytes: int) -> None:
        while num_bytes and (piece := self._stream.read(num_bytes)):
            num_bytes -= len(piece)


def open_codes(source: str | Path | BinaryIO, *, name: str | None = None) -> CodeReader:
    """Open a file of codes.

    Args:
        source: a path, ``"-"`` for standard input, or a binary file.
        name: for messages; by default the path.

    Raises:
        AudioError: it can't be opened, is no file of codes, or its header is damaged.
    """
    with ExitStack() as resources:
        stream, _, name, seekable = open_stream(source, name, resources)
        try:
            size = None
            if seekable:
                size = stream.seek(0, 2)
                stream.seek(0)
            return CodeReader(ByteStream(stream), name, size, resources.pop_all())
        except OSError as exc:
            raise AudioError(f"{name}: reading fails: {exc.strerror or exc}") from exc
