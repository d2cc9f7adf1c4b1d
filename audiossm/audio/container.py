"""Files that libsndfile decodes and encodes; the one module that imports soundfile."""

import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from audiossm.errors import AudioError

__all__ = [
    "ContainerSource",
    "ContainerStream",
    "ContainerWriter",
    "encode_container",
    "write_container",
]

# Decoding goes by a fixed block, so that what is read before damage doesn't depend on the caller.
_BLOCK = 4096
_SET_PAGE_LATENCY, _PAGE_MS = 0x1302, 50.0  # of sndfile.h; a page ends behind so much
_UNKNOWN_FROM = 1 << 60  # samples: libsndfile says "very many" for a length that it doesn't know


class ContainerSource:
    """Samples out of a FLAC, Ogg, Opus, MP3 or another file that libsndfile knows.

    Args:
        file: a path, or a seekable binary file at its first byte.
        name: of the file, for errors.
        damage: what is known to be wrong, which libsndfile would pass over in silence.
        promised_samples: the length by the file's own header, if the file has less.

    Raises:
        AudioError: libsndfile can't open it.
    """

    seekable = True

    def __init__(
        self,
        file: Path | BinaryIO,
        name: str,
        *,
        damage: str | None = None,
        promised_samples: int | None = None,
    ) -> None:
        import soundfile

        class SequentialFile(soundfile.SoundFile):  # type: ignore[misc]  # it ships no type hints
            # soundfile seeks after each read of a seekable file, which fails at the end of a FLAC
            # that was written to a pipe and doesn't know its length.
            def seekable(self) -> bool:
                return False

        self._error: type[Exception] = soundfile.LibsndfileError
        try:
            self._file: Any = SequentialFile(file)
        except soundfile.LibsndfileError as exc:
            reason = exc.error_string.rstrip(".")
            if reason.startswith("File does not exist"):  # its words for an MP3 without frames
                reason = "File is malformed"
            raise AudioError(
                f"{name}: not audio that can be read ({reason}); expected wav, flac, ogg, opus or "
                "mp3: convert it first, or is it damaged?"
            ) from exc
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        known = self._file.frames < _UNKNOWN_FROM
        self.num_samples: int | None = self._file.frames if known else None
        self.least_samples: int = self._file.frames if known else 0
        if damage is not None:
            self.least_samples = 0  # the damage says more than the length
        elif self._file.format in ("MP3", "OGG"):
            # MP3 of free format: libmpg123 estimates the length. Ogg: libsndfile goes by the last
            # page's time stamp, and packets lost before it make that a little too late.
            self.least_samples = max(0, int(0.98 * self.least_samples) - self.sample_rate // 5)
        if promised_samples is not None:
            self.num_samples = self.least_samples = promised_samples
        self.problem: str | None = None
        self._damage = damage
        self._rest = self._make_empty()

    def read(self, max_samples: int) -> np.ndarray:
        """Return (channels, n) float32 with n <= max_samples; less only at the end."""
        pieces, missing = [], max_samples
        while missing:
            if self._rest.shape[1] == 0:
                self._rest = self._decode()
                if self._rest.shape[1] == 0:
                    break
            pieces.append(self._rest[:, :missing])
            self._rest = self._rest[:, missing:]
            missing -= pieces[-1].shape[1]
        if not pieces:
            return self._make_empty()
        return np.ascontiguousarray(np.concatenate(pieces, axis=1))

    def _decode(self) -> np.ndarray:
        if self.problem is not None:
            return self._make_empty()
        try:
            block: np.ndarray = self._file.read(_BLOCK, dtype="float32", always_2d=True)
        except self._error as exc:
            reason = getattr(exc, "error_string", "").rstrip(".") or "no reason given"
            self.problem = f"decoding breaks off ({reason}): the file is damaged or cut short"
            return self._make_empty()
        if len(block) == 0:
            self.problem = self._damage
        return block.T

    def seek(self, sample: int) -> None:
        """Go to a sample."""
        self._rest, self.problem = self._make_empty(), None
        try:
            self._file.seek(sample)
        except self._error:
            self.problem = "seeking fails: the file is damaged or cut short"

    def close(self) -> None:
        """Close libsndfile's handle."""
        self._file.close()

    def _make_empty(self) -> np.ndarray:
        return np.zeros((self.channels, 0), np.float32)


class ContainerWriter:
    """Write a file that libsndfile encodes as the samples come.

    Args:
        path: where; the content of an old file goes.
        sample_rate: Hz.
        channels: how many.
        file_format: libsndfile's name of it.
        coding: libsndfile's name of that.
        comment: what the file says of itself.

    Raises:
        AudioError: libsndfile refuses the format, rate or number of channels.
        OSError: the file can't be written.
    """

    def __init__(
        self,
        path: Path,
        sample_rate: int,
        channels: int,
        *,
        file_format: str,
        coding: str,
        comment: str | None = None,
    ) -> None:
        import soundfile

        self._bytes = open(path, "wb")  # as in write_container
        try:
            self._file: Any = soundfile.SoundFile(
                self._bytes, "w", sample_rate, channels, coding, format=file_format
            )
            if comment is not None:
                self._file.comment = comment
        except (soundfile.LibsndfileError, ValueError) as exc:
            self._bytes.close()
            raise AudioError(getattr(exc, "error_string", str(exc)).rstrip(".")) from exc

    def write(self, audio: np.ndarray) -> None:
        """Write (channels, samples) float32.

        Raises:
            OSError: it can't be written.
        """
        self._file.write(audio.T)
        self._bytes.flush()

    def close(self) -> None:
        """Write what is left, and close the file.

        Raises:
            OSError: it can't be written.
        """
        self._file.close()
        self._bytes.close()


class ContainerStream:
    """Bytes of what libsndfile encodes, as they come, for who can't go back.

    A page of Opus has 60 ms; libsndfile's own have a second. What it would set right at the end,
    such as the number of samples in a FLAC's head, stays as it was said at first: unknown.

    Args:
        sample_rate: Hz.
        file_format: libsndfile's name of it.
        coding: libsndfile's name of that.
        comment: what the stream says of itself.

    Raises:
        AudioError: libsndfile refuses the format or the rate.
    """

    def __init__(
        self, sample_rate: int, *, file_format: str, coding: str, comment: str | None = None
    ) -> None:
        import soundfile

        self._bytes = _Forward()
        try:
            self._file: Any = soundfile.SoundFile(
                self._bytes, "w", sample_rate, 1, coding, format=file_format
            )
            if comment is not None:
                self._file.comment = comment
            if coding == "OPUS":  # soundfile has no name for this
                latency = soundfile._ffi.new("double *", _PAGE_MS)
                soundfile._snd.sf_command(self._file._file, _SET_PAGE_LATENCY, latency, 8)
        except (soundfile.LibsndfileError, ValueError) as exc:
            raise AudioError(getattr(exc, "error_string", str(exc)).rstrip(".")) from exc

    def write(self, samples: np.ndarray) -> bytes:
        """Take samples (samples,) float32 in [-1, 1]; return the bytes that are ready."""
        self._file.write(samples)
        return self._bytes.take()

    def finish(self) -> bytes:
        """Return the rest."""
        self._file.close()
        return self._bytes.take()


class _Forward:
    """A file for libsndfile, of which what was taken is gone and stays as it is."""

    def __init__(self) -> None:
        self._kept, self._start, self._at = bytearray(), 0, 0

    def take(self) -> bytes:
        data = bytes(self._kept)
        self._start += len(data)
        self._kept.clear()
        return data

    def write(self, data: Any) -> int:
        data = bytes(data)
        late = max(0, self._start - self._at)  # bytes that are gone
        at = self._at + late - self._start
        self._kept[at : at + len(data) - late] = data[late:]
        self._at += len(data)
        return len(data)

    def read(self, size: int = -1) -> bytes:
        return b""

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        end = self._start + len(self._kept)
        self._at = offset + (0, self._at, end)[whence]
        return self._at


def write_container(
    path: Path, audio: np.ndarray, sample_rate: int, *, file_format: str, coding: str
) -> None:
    """Write (channels, samples) float32 at ``sample_rate`` Hz.

    Raises:
        AudioError: libsndfile refuses the format, rate or number of channels.
        OSError: the file can't be written.
    """
    import soundfile

    # A file object, not a path: its errors say why, and libsndfile's don't.
    with open(path, "wb") as file:
        try:
            soundfile.write(file, audio.T, sample_rate, format=file_format, subtype=coding)
        except (soundfile.LibsndfileError, ValueError) as exc:
            raise AudioError(getattr(exc, "error_string", str(exc)).rstrip(".")) from exc


def encode_container(
    audio: np.ndarray,
    sample_rate: int,
    *,
    file_format: str,
    coding: str,
    compression: float | None = None,
) -> bytes:
    """Return what a file of (channels, samples) float32 would hold.

    Args:
        audio: the samples.
        sample_rate: Hz.
        file_format: libsndfile's name of it.
        coding: libsndfile's name of that.
        compression: libsndfile's 0 to 1; None is its own choice.

    Raises:
        AudioError: libsndfile refuses the format, rate or number of channels.
    """
    import soundfile

    file = io.BytesIO()
    options = {} if compression is None else {"compression_level": compression}
    try:
        soundfile.write(file, audio.T, sample_rate, coding, format=file_format, **options)
    except (soundfile.LibsndfileError, ValueError) as exc:
        raise AudioError(getattr(exc, "error_string", str(exc)).rstrip(".")) from exc
    return file.getvalue()
