"""Files of codes (``.ssma``): written as the codes come, read as far as they are whole."""

import io
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from audiossm.audio.reader import open_stream
from audiossm.audio.wav import ByteStream
from audiossm.codec.code_layout import (
    END_SIZE,
    Layout,
    make_end,
    make_header,
    read_end,
    read_header,
)
from audiossm.codec.codes import CodeFormat, Codes
from audiossm.errors import AudioError, OutputError, ShapeError

__all__ = ["CodeBlock", "CodeReader", "CodeWriter", "open_codes", "read_codes", "write_codes"]


class ByteSink(Protocol):
    """What bytes are written to."""

    def write(self, data: bytes, /) -> object: ...


class CodeBlock(NamedTuple):
    """A stretch of frames."""

    codes: NDArray[np.int64]  # (channels, groups, frames)
    lost: bool  # damaged: the codes are zeros that stand for nothing


def _find_length(stream: ByteStream, size: int, layout: Layout) -> int | None:
    """Read a file's length from its last bytes, and come back to its first block."""
    start = len(layout.header)
    body = size - start - END_SIZE
    num_samples = None
    if body >= 0:
        stream.seek(size - END_SIZE)
        num_samples = read_end(stream.peek(END_SIZE), layout, -(-body // layout.full_size))
    stream.seek(start)
    return num_samples


class CodeWriter:
    """Write codes to a file or a pipe as they come.

    Nothing is written before there is something to write: the header comes with the first block.

    Args:
        stream: takes bytes.
        form: whose codes they are.
        comment: what the file says of itself: a line of 1 to 1024 bytes of UTF-8; None for nothing.

    Raises:
        ShapeError: a file can't hold this comment.
    """

    def __init__(self, stream: ByteSink, form: CodeFormat, *, comment: str | None = None) -> None:
        self.form = form
        self._stream = stream
        header = make_header(form, comment)
        self._layout = Layout(form, header)
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
        self._stream.write(self._due + make_end(num_samples, self._layout, self._index))

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
        comment: what the file says of itself; None if nothing.
        num_samples: of each channel, at the codec's rate; None until the end of a pipe, and for a
            file without its end.
        num_frames: frames read so far or passed over by ``seek``.
    """

    def __init__(
        self,
        stream: ByteStream,
        name: str,
        form: CodeFormat,
        comment: str | None,
        layout: Layout,
        num_samples: int | None,
        resources: ExitStack,
    ) -> None:
        self.name, self.form, self.comment, self.num_samples = name, form, comment, num_samples
        self._stream, self._layout, self._resources = stream, layout, resources
        self.num_frames = 0
        self._index = 0
        self._lost: list[tuple[int, int]] = []  # stretches of frames
        self._end_problem: str | None = None
        self._ended = False

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
            end = stream.peek(END_SIZE)
            if self._is_end(end):
                self._take_end(end)
                if stream.peek(1):
                    self._end_problem = "more bytes follow the end: are two files joined?"
                return None
        elif 0 < count <= self.form.frames_per_block:
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
            if len(self._stream.peek(size + END_SIZE)) < size + END_SIZE:
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

    def _is_end(self, record: bytes, more: int = 0) -> bool:
        return read_end(record, self._layout, self._index + more) is not None

    def _take_end(self, record: bytes) -> None:
        self._skip(END_SIZE)
        self.num_samples, self._ended = read_end(record, self._layout, self._index), True

    def _pass_over(self) -> CodeBlock | None:
        """Pass over what is no whole block: a damaged one, or the broken end of the file."""
        full = self._layout.full_size
        rest = self._stream.peek(full + END_SIZE)
        if len(rest) == full + END_SIZE:
            return self._take_lost(full, self.form.frames_per_block)
        if self._is_end(rest[-END_SIZE:], more=1):
            num_bytes = len(rest) - END_SIZE
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
            size = stream.seek(0, 2) if seekable else None
            ahead = ByteStream(stream)
            if seekable:
                ahead.seek(0)
            form, comment, header = read_header(ahead, name)
            layout = Layout(form, header)
            num_samples = None if size is None else _find_length(ahead, size, layout)
            kept = resources.pop_all()
            return CodeReader(ahead, name, form, comment, layout, num_samples, kept)
        except OSError as exc:
            raise AudioError(f"{name}: reading fails: {exc.strerror or exc}") from exc


def read_codes(source: str | Path | BinaryIO) -> Codes:
    """Read a whole file of codes.

    Raises:
        AudioError: it can't be read, or something of it is damaged or missing: ``open_codes`` gives
            the rest.
    """
    with open_codes(source) as reader:
        form = reader.form
        pieces = [np.zeros((form.channels, form.num_groups, 0), np.int64)]
        pieces += [block.codes for block in reader]
        if reader.problem is not None or reader.num_samples is None:
            raise AudioError(reader.problem or f"{reader.name}: has no end")
        return Codes(
            form=form,
            codes=np.concatenate(pieces, axis=2),
            num_samples=reader.num_samples,
            comment=reader.comment,
        )


def write_codes(path: str | Path, codes: Codes) -> None:
    """Write a file of codes.

    Raises:
        OutputError: it can't be written.
        ShapeError: the codes aren't what their format says, or a file can't hold their comment.
    """
    stream = io.BytesIO()
    writer = CodeWriter(stream, codes.form, comment=codes.comment)
    writer.write(codes.codes)
    writer.finish(codes.num_samples)
    try:
        Path(path).write_bytes(stream.getvalue())
    except OSError as exc:
        raise OutputError(f"{path}: can't be written: {exc.strerror or exc}") from exc
