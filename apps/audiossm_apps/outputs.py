"""Results on their way out: plain text, JSON, JSON Lines, subtitles and bytes."""

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Protocol

from audiossm.cues import CueShape
from audiossm.errors import OutputError
from audiossm.subtitles import format_srt, format_vtt

if TYPE_CHECKING:
    from rich.live import Live

    from audiossm.streaming import Reading, Token, Transcript, Word, WrittenWord

__all__ = [
    "FORMATS",
    "ByteOutput",
    "LiveText",
    "TranscriptWriter",
    "make_writer",
    "open_bytes",
    "open_output",
    "write_text",
]

FORMATS = ("txt", "json", "jsonl", "srt", "vtt")


class TranscriptWriter(Protocol):
    """Takes events as they come, and each transcript once it is complete."""

    def token(self, token: "Token") -> None:
        """Take one piece of a word that isn't complete yet."""

    def word(self, word: "Word | WrittenWord") -> None:
        """Take the next word of the current transcript."""

    def done(self, name: str, transcript: "Transcript") -> None:
        """Take the current transcript as a whole."""

    def close(self) -> None:
        """Write what ends the output."""


def make_writer(
    kind: str,
    stream: IO[str],
    *,
    as_list: bool,
    as_they_come: bool,
    shape: CueShape | None = None,
) -> TranscriptWriter:
    """Make the writer of one of ``FORMATS``.

    Args:
        kind: the format.
        stream: where to write; each piece is flushed, so whatever stops us loses nothing.
        as_list: JSON is a list of objects with ``file`` in each, not one object.
        as_they_come: plain text is written word by word, not when a transcript is complete.
        shape: of subtitles.
    """
    match kind:
        case "txt":
            return TextWriter(stream, as_they_come)
        case "json":
            return JsonListWriter(stream) if as_list else JsonWriter(stream)
        case "jsonl":
            return JsonLinesWriter(stream)
    return SubtitleWriter(stream, kind, shape)


class _LateFile(io.TextIOWrapper):
    """A text file whose old content goes when there is new: a failed run leaves it alone."""

    fresh = True

    def write(self, text: str) -> int:
        if self.fresh:
            self.fresh = False
            with contextlib.suppress(OSError):  # a pipe or a device has no content to lose
                self.truncate(0)
        return super().write(text)


@contextlib.contextmanager
def open_output(path: str | None) -> Iterator[IO[str]]:
    """Open the file that a result goes to; standard output without one.

    An old file keeps its content until the first write.

    Raises:
        OutputError: nothing can be written there.
    """
    if path in (None, "-"):
        yield sys.stdout
        return
    try:
        stream = _LateFile(Path(path).open("ab"), encoding="utf-8")
    except OSError as exc:
        raise OutputError(f"{path}: can't write there: {exc.strerror or exc}") from exc
    try:
        yield stream
    finally:
        # each piece was flushed as it was written: what fails here has been told already
        with contextlib.suppress(OSError):
            stream.close()


def write_text(stream: IO[str], text: str) -> None:
    """Write a piece of a result at once, so that whatever stops us loses nothing.

    Raises:
        OutputError: it can't be written.
    """
    is_standard = stream is sys.stdout
    with _telling("standard output" if is_standard else getattr(stream, "name", "output")):
        stream.write(text)
        stream.flush()


@contextlib.contextmanager
def _telling(name: str) -> Iterator[None]:
    """Turn what the system says of a failed write into our line."""
    try:
        yield
    except BrokenPipeError:
        raise  # nobody reads on: not worth a word
    except OSError as exc:
        raise OutputError(f"{name}: can't write the result: {exc.strerror or exc}") from exc


class ByteOutput:
    """Bytes on their way to a file or a pipe, each piece at once.

    Args:
        file: where to; the content of an old file goes with the first write.
        name: for messages.
        seekable: whether the header of what is written may be set right later.

    Attributes:
        is_fresh: whether nothing was written yet.
    """

    def __init__(self, file: BinaryIO, name: str, *, seekable: bool) -> None:
        self._file, self._name, self._seekable = file, name, seekable
        self.is_fresh = True

    def write(self, data: bytes) -> None:
        """Write a piece.

        Raises:
            OutputError: it can't be written.
        """
        with _telling(self._name):
            if self.is_fresh and self._seekable:
                self._file.truncate(0)
            self.is_fresh = False
            self._file.write(data)
            self._file.flush()

    def seekable(self) -> bool:
        """Tell whether ``seek`` works."""
        return self._seekable

    def seek(self, position: int) -> None:
        """Go to a byte."""
        with _telling(self._name):
            self._file.seek(position)


@contextlib.contextmanager
def open_bytes(path: str) -> Iterator[ByteOutput]:
    """Do for bytes what ``open_output`` does for text; ``-`` is standard output.

    Without a result, there is no new file.

    Raises:
        OutputError: nothing can be written there.
    """
    if path == "-":
        # never seekable: it may be a file that others have written to
        yield ByteOutput(sys.stdout.buffer, "standard output", seekable=False)
        return
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)
    is_new = not os.path.exists(path)
    try:
        file = os.fdopen(os.open(path, flags, 0o666), "wb")
    except OSError as exc:
        raise OutputError(f"{path}: can't write there: {exc.strerror or exc}") from exc
    try:
        output = ByteOutput(file, path, seekable=file.seekable() and Path(path).is_file())
        yield output
    finally:
        with contextlib.suppress(OSError):  # as above
            file.close()
            if is_new and output.is_fresh:
                os.unlink(path)


class _Writer:
    """Keeps only complete transcripts: what most formats want."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream

    def token(self, token: "Token") -> None:
        pass

    def word(self, word: "Word | WrittenWord") -> None:
        pass

    def close(self) -> None:
        pass

    def write(self, text: str) -> None:
        write_text(self.stream, text)


class TextWriter(_Writer):
    """The text alone, a line for each transcript."""

    def __init__(self, stream: IO[str], as_they_come: bool) -> None:
        super().__init__(stream)
        self.as_they_come = as_they_come
        self.begun = False

    def word(self, word: "Word | WrittenWord") -> None:
        if self.as_they_come:
            self.write(f" {word.text}" if self.begun else word.text)
            self.begun = True

    def done(self, name: str, transcript: "Transcript") -> None:
        self.write("\n" if self.as_they_come else f"{transcript.text}\n")
        self.begun = False


class JsonWriter(_Writer):
    """One object."""

    def done(self, name: str, transcript: "Transcript") -> None:
        self.write(json.dumps(_to_json(transcript), indent=2) + "\n")


class JsonListWriter(_Writer):
    """A list of objects, each with its file."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(stream)
        self.begun = False

    def done(self, name: str, transcript: "Transcript") -> None:
        text = json.dumps({"file": name, **_to_json(transcript)}, indent=2)
        self.write((",\n" if self.begun else "[\n") + text)
        self.begun = True

    def close(self) -> None:
        self.write("\n]\n" if self.begun else "[]\n")


class JsonLinesWriter(_Writer):
    """An object a line, each with its file."""

    def done(self, name: str, transcript: "Transcript") -> None:
        record = {"file": name, **_to_json(transcript)}
        self.write(json.dumps(record) + "\n")


class SubtitleWriter(_Writer):
    """A subtitle file."""

    def __init__(self, stream: IO[str], kind: str, shape: CueShape | None) -> None:
        super().__init__(stream)
        self.format = format_srt if kind == "srt" else format_vtt
        self.shape = shape

    def done(self, name: str, transcript: "Transcript") -> None:
        self.write(self.format(transcript.words, self.shape))


class LiveText:
    """Plain text on a terminal: full lines stand, the last line grows, unfinished words are dim."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(highlight=False, markup=False, emoji=False)
        self.line, self.partial = "", ""
        self.live: Live | None = None

    def token(self, token: "Token") -> None:
        """Tokens come with their words; what comes before is ``unfinished``."""

    def unfinished(self, partial: str) -> None:
        """Show what was heard after the last word and may still change."""
        if partial != self.partial:
            self.partial = partial
            self._show()

    def word(self, word: "Word | WrittenWord") -> None:
        self.partial = ""
        longer = f"{self.line} {word.text}".lstrip()
        if len(longer) >= self.console.width and self.line:
            self.console.print(self.line)
            longer = word.text
        self.line = longer
        self._show()

    def done(self, name: str, transcript: "Transcript") -> None:
        self.close()
        self.console.print(self.line)
        self.line = ""

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None
        self.partial = ""

    def _show(self) -> None:
        from rich.live import Live
        from rich.text import Text

        if self.live is None:
            self.live = Live(console=self.console, transient=True, auto_refresh=False)
            self.live.start()
        partial = f" {self.partial.strip()}" if self.line else self.partial.strip()
        self.live.update(Text.assemble(self.line, (partial, "dim")), refresh=True)


def _to_json(transcript: "Transcript") -> dict[str, Any]:
    from audiossm.streaming import WrittenWord

    return {
        "text": transcript.text,
        "duration_s": round(transcript.duration_s, 3),
        "model": transcript.model,
        "words": [
            {
                "word": word.word,
                **({"text": word.text} if isinstance(word, WrittenWord) else {}),
                "start_s": round(word.start_s, 3),
                "end_s": round(word.end_s, 3),
                "confidence": round(word.confidence, 4),
            }
            for word in transcript.words
        ],
        "segments": [
            {
                "start_s": round(segment.start_s, 3),
                "end_s": round(segment.end_s, 3),
                "text": segment.text,
                "confidence": round(segment.confidence, 4),
                **_alternatives(segment.alternatives),
            }
            for segment in transcript.segments
        ],
        **_alternatives(transcript.alternatives),
    }


def _alternatives(readings: "Sequence[Reading]") -> dict[str, Any]:
    if not readings:
        return {}
    return {"alternatives": [{"text": r.text, "score": round(r.score, 3)} for r in readings]}
