"""Audio in: files, pipes and raw streams, read block by block in flat memory."""

import io
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, cast

import numpy as np

from audiossm.audio.container import ContainerSource
from audiossm.audio.growing import GrowingFile
from audiossm.audio.media import MediaSource, has_av, looks_like_media
from audiossm.audio.mp3 import looks_like_mp3, scan_mp3
from audiossm.audio.ogg import find_ogg_damage
from audiossm.audio.samples import LOUDEST
from audiossm.audio.wav import ByteStream, WavFormat, WavSource, is_wav, read_wav_header
from audiossm.errors import AudioError

__all__ = ["AudioReader", "open_audio", "open_stream"]


class _Source(Protocol):
    sample_rate: int
    channels: int
    num_samples: int | None
    least_samples: int  # fewer at the end mean that the audio was cut off
    seekable: bool
    problem: str | None  # set when the samples end for a bad reason

    def read(self, max_samples: int) -> np.ndarray: ...
    def seek(self, sample: int) -> None: ...
    def close(self) -> None: ...


class AudioReader:
    """Samples in the order of time; a context manager. Made by ``open_audio``.

    Bad audio fails late: the good samples before the damage come first, then ``AudioError``.

    Attributes:
        name: for messages.
        sample_rate: Hz.
        channels: how many.
        num_samples: per channel, as the header says; None when unknown, as on most pipes.
    """

    def __init__(self, source: _Source, name: str, resources: ExitStack) -> None:
        self.name = name
        self.sample_rate = source.sample_rate
        self.channels = source.channels
        self.num_samples = source.num_samples
        self._source = source
        self._resources = resources
        self._position = 0
        self._failure: str | None = None

    def read(self, max_samples: int) -> np.ndarray:
        """Return the next samples.

        Args:
            max_samples: at least 1. A file gives as many, except at its end; a pipe gives what
                has arrived, at least one.

        Returns:
            (channels, n) float32; integer formats lie in [-1, 1], float files are not clipped;
            n == 0 only at the end.

        Raises:
            AudioError: there are no samples at all, the audio is cut off or damaged here, or a
                sample is NaN, infinite or beyond ``LOUDEST``.
        """
        if max_samples < 1:
            raise AudioError(f"{self.name}: can't read {max_samples} samples; expected at least 1")
        if self._failure is not None:
            raise AudioError(self._failure)
        try:
            audio = self._source.read(max_samples)
        except OSError as exc:
            raise AudioError(
                f"{self.name}: reading fails after {self._tell_time()}: {exc.strerror or exc}"
            ) from exc
        if audio.shape[1] == 0:
            self._check_end()
        elif not (fits := np.abs(audio) <= LOUDEST).all():
            good = int(fits.all(axis=0).argmin())
            second = (self._position + good) / self.sample_rate
            fault = (
                f"is {np.abs(audio[:, good]).max():.4g}, far outside [-1, 1]"
                if np.isfinite(audio[:, good]).all()
                else "is NaN or infinite; expected numbers"
            )
            self._failure = f"{self.name}: the sample at {second:.3f} s {fault}"
            if good == 0:
                raise AudioError(self._failure)
            audio = audio[:, :good]
        self._position += audio.shape[1]
        return audio

    def blocks(self, num_samples: int) -> Iterator[np.ndarray]:
        """Read to the end in pieces of at most ``num_samples``, as ``read`` gives them."""
        while (audio := self.read(num_samples)).shape[1]:
            yield audio

    def seek(self, sample: int) -> None:
        """Go to a sample, counted from 0; the next ``read`` starts there.

        Raises:
            AudioError: this is a pipe, or ``sample`` lies outside the audio.
        """
        if not self._source.seekable:
            raise AudioError(f"{self.name}: a pipe can't be read twice: save it as a file first")
        if sample < 0 or (self.num_samples is not None and sample > self.num_samples):
            raise AudioError(f"{self.name}: there is no sample {sample}; it has {self.num_samples}")
        self._source.seek(sample)
        self._position, self._failure = sample, None

    def skip(self, num_samples: int) -> None:
        """Go on to where reading so many samples would have led, to the very bit.

        Only WAV and raw files are sought in: other decoders remember what they have seen.

        Raises:
            AudioError: there are fewer, or reading them fails.
        """
        target = self._position + num_samples
        if isinstance(self._source, WavSource) and self._source.seekable:
            self.seek(target)
        while self._position < target:
            if self.read(min(target - self._position, self.sample_rate)).shape[1] == 0:
                raise AudioError(f"{self.name}: ends before the sample {target}")

    def close(self) -> None:
        """Free what ``open_audio`` opened; a file object from the caller stays open."""
        self._resources.close()

    def __enter__(self) -> "AudioReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _tell_time(self) -> str:
        return f"{self._position / self.sample_rate:.2f} s"

    def _check_end(self) -> None:
        source = self._source
        if self._position < source.least_samples and source.num_samples is not None:
            promised = source.num_samples / self.sample_rate
            self._failure = (
                f"{self.name}: cut off: the header promises {promised:.2f} s, but only "
                f"{self._tell_time()} can be read; is the copy or download incomplete?"
            )
        elif source.problem is not None:
            self._failure = f"{self.name}: only {self._tell_time()} can be read: {source.problem}"
        elif self._position == 0:
            self._failure = f"{self.name}: has a header but no samples"
        if self._failure is not None:
            raise AudioError(self._failure)


def open_audio(
    source: str | Path | BinaryIO,
    *,
    raw_rate: int | None = None,
    raw_channels: int = 1,
    name: str | None = None,
    follow_s: float | None = None,
) -> AudioReader:
    """Open audio for reading: wav, flac, ogg, opus, mp3, or raw 16-bit little-endian samples.

    With PyAV installed (the extra ``media``) also m4a, mp4, webm, mkv, aac and others: the first
    audio track.

    A WAV or raw pipe is decoded as its bytes arrive; any other pipe goes to a temporary file first.

    Args:
        source: a path, ``"-"`` for standard input, or a binary file, read from its first byte if it
            can seek.
        raw_rate: Hz; given, the bytes are raw samples without a header.
        raw_channels: interleaved channels of a raw stream.
        name: for messages; by default the path.
        follow_s: given, the file (WAV or raw) is still being written: reading waits for what comes,
            and ends when the file didn't grow for so many seconds. Its header's length isn't
            believed.

    Raises:
        AudioError: there is no audio to be had; the message says why, in a line.
    """
    with ExitStack() as resources:
        stream, path, name, seekable = open_stream(source, name, resources)
        if follow_s is not None:
            if path is None:
                raise AudioError(f"{name}: is not a file, so it can't be followed as it grows")
            stream = cast(BinaryIO, GrowingFile(stream, name, follow_s))
            seekable = False
        if raw_rate is not None:
            opened: _Source = _open_raw(stream, name, raw_rate, raw_channels, seekable)
        elif follow_s is not None:
            opened = _open_growing(stream, name)
        else:
            opened = _open_coded(stream, path, name, seekable, resources)
        resources.callback(opened.close)
        if raw_rate is None and opened.num_samples == 0:
            raise AudioError(f"{name}: has a header but no samples")
        return AudioReader(opened, name, resources.pop_all())


def open_stream(
    source: str | Path | BinaryIO, name: str | None, resources: ExitStack
) -> tuple[BinaryIO, Path | None, str, bool]:
    """Open bytes for reading, or say in a line why not.

    Returns:
        the stream; its path, if it is a regular file opened here; its name for messages; and
        whether it can seek.

    Raises:
        AudioError: it can't be opened.
    """
    if source == "-":
        if sys.stdin is None:
            raise AudioError("standard input is closed, so there is no audio to read from it")
        return sys.stdin.buffer, None, name or "standard input", False
    if isinstance(source, io.TextIOBase):
        raise AudioError(f"{name or 'audio stream'}: gives text, not bytes: open it in binary mode")
    if not isinstance(source, str | Path):
        seekable = bool(cast(Callable[[], bool], getattr(source, "seekable", bool))())
        if seekable:
            source.seek(0)
        own = getattr(source, "name", None)
        return source, None, name or (own if isinstance(own, str) else "audio stream"), seekable
    path = Path(source)
    name = name or str(path)
    try:
        file = resources.enter_context(open(path, "rb"))
    except FileNotFoundError as exc:
        raise AudioError(f"{name}: no such file") from exc
    except IsADirectoryError as exc:
        raise AudioError(f"{name}: is a folder; expected an audio file") from exc
    except PermissionError as exc:
        raise AudioError(f"{name}: no permission to read it") from exc
    except (OSError, ValueError) as exc:
        raise AudioError(f"{name}: can't be opened: {getattr(exc, 'strerror', exc)}") from exc
    regular = stat.S_ISREG(path.stat().st_mode)
    return file, path if regular else None, name, regular


def _open_raw(stream: BinaryIO, name: str, rate: int, channels: int, seekable: bool) -> _Source:
    if rate <= 0 or channels <= 0:
        raise AudioError(
            f"{name}: raw audio with {channels} channels at {rate} Hz; expected both above 0"
        )
    num_bytes = _measure(stream) if seekable else None
    if num_bytes == 0:
        raise AudioError(f"{name}: is empty (0 bytes)")
    layout = WavFormat(
        sample_rate=rate, channels=channels, sample_bytes=2, is_float=False, num_bytes=num_bytes
    )
    return WavSource(ByteStream(stream), layout, seekable=seekable)


def _open_growing(stream: BinaryIO, name: str) -> _Source:
    ahead = ByteStream(stream)
    if not (head := ahead.peek(12)):
        raise AudioError(f"{name}: is empty (0 bytes)")
    layout = read_wav_header(ahead, name, live=True) if is_wav(head) else None
    if layout is None:
        raise AudioError(f"{name}: only WAV and raw samples can be followed as they grow")
    return WavSource(ahead, replace(layout, num_bytes=None), seekable=False)


def _open_coded(
    stream: BinaryIO, path: Path | None, name: str, seekable: bool, resources: ExitStack
) -> _Source:
    ahead = ByteStream(stream)
    damage: str | None = None
    promised: int | None = None
    try:
        head = ahead.peek(12)
        if not head:
            raise AudioError(f"{name}: is empty (0 bytes)")
        layout = read_wav_header(ahead, name, live=not seekable) if is_wav(head) else None
        if layout is not None:
            if seekable and layout.num_bytes is None:
                layout = replace(layout, num_bytes=_measure(stream) - layout.start)
                ahead.seek(0)
            return WavSource(ahead, layout, seekable=seekable)
        if Path(name).suffix.lower() == ".raw":
            raise AudioError(f"{name}: raw samples have no header: give their rate (raw_rate)")
        if not seekable:
            stream = _spool(ahead, resources)
        if head[:4] == b"OggS":
            damage = find_ogg_damage(stream)
        elif looks_like_mp3(head) and (scan := scan_mp3(stream)) is not None:
            damage, promised = scan.damage, scan.promised_samples
            if not scan.is_plain:
                stream, path = scan.open(stream), None
        stream.seek(0)
    except OSError as exc:
        raise AudioError(f"{name}: reading fails: {exc.strerror or exc}") from exc
    try:
        return ContainerSource(
            stream if path is None else path, name, damage=damage, promised_samples=promised
        )
    except AudioError as exc:
        if not looks_like_media(head, name):
            raise
        if not has_av():
            raise AudioError(
                f"{name}: this kind of file is read by PyAV, which is not installed: "
                "pip install 'audiossm[media]'"
            ) from exc
    try:
        return MediaSource(stream, name)
    except OSError as exc:
        raise AudioError(f"{name}: reading fails: {exc.strerror or exc}") from exc


def _measure(stream: BinaryIO) -> int:
    size = stream.seek(0, 2)
    stream.seek(0)
    return size


def _spool(ahead: ByteStream, resources: ExitStack) -> BinaryIO:
    spool = cast(BinaryIO, resources.enter_context(tempfile.TemporaryFile()))
    shutil.copyfileobj(cast(BinaryIO, ahead), spool)
    return spool
