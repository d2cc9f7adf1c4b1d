"""Files that only FFmpeg's decoders read, through PyAV; the one module that imports av."""

import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from audiossm.errors import AudioError, DependencyError
from audiossm.suffixes import MEDIA

__all__ = ["MediaSource", "has_av", "load_av", "looks_like_media"]

# Formats by their content. Playlists aren't among them: they would open other files, and addresses.
_DEMUXERS = "aac,ac3,amr,asf,avi,caf,eac3,flv,matroska,mov,mp3,mpeg,mpegts,ogg,wav,webm"
# A silence of this many seconds in the time stamps is one; less is how coarse they are.
_LEAST_GAP_S, _MOST_GAP_S = 0.06, 3600
_ZEROS = 1 << 16  # samples at once


def load_av(why: str) -> ModuleType:
    """Import PyAV.

    Args:
        why: what is said if it is not installed.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import av
    except ImportError as exc:
        raise DependencyError(why) from exc
    module: ModuleType = av
    return module


def has_av() -> bool:
    """Tell whether PyAV is installed."""
    try:
        load_av("")
    except DependencyError:
        return False
    return True


def looks_like_media(head: bytes, name: str) -> bool:
    """Tell from the first 12 bytes and the name whether FFmpeg may read what libsndfile can't."""
    return (
        head[4:8] == b"ftyp"
        or head[:4] in (b"\x1aE\xdf\xa3", b"0&\xb2u", b"FLV\x01", b"#!AM", b"\0\0\1\xba")
        or (head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"WAVE"))
        or (head[:1] == b"\xff" and head[1:2] in (b"\xf1", b"\xf9", b"\xf0", b"\xf8"))
        or Path(name).suffix.lower() in MEDIA
    )


class MediaSource:
    """The first audio track of a container, block by block, its time as the container tells it.

    Where the track begins late or has a hole, there is silence: words of a film keep its times.

    Args:
        stream: a seekable binary file.
        name: of the file, for errors.

    Raises:
        AudioError: FFmpeg can't read it, or there is no sound in it.
        DependencyError: PyAV is not installed.
    """

    seekable = True

    def __init__(self, stream: BinaryIO, name: str) -> None:
        av = load_av(
            f"{name}: PyAV, which reads it, is not installed: pip install 'audiossm[media]'"
        )
        av.logging.set_level(av.logging.PANIC)  # what is wrong, we say
        self._av, self._stream, self._name = av, stream, name
        self.problem: str | None = None
        self.least_samples = 0
        self._container: Any = None
        self._rest = np.zeros((0, 0), np.float32)
        self._open()
        self.channels: int = self._rest.shape[0]
        self.num_samples = self._tell_length()
        # time stamps of the end are rounded, and may count what the encoder added
        least = 0 if self.num_samples is None else int(0.98 * self.num_samples)
        self.least_samples = max(0, least - self.sample_rate // 5)

    def read(self, max_samples: int) -> np.ndarray:
        """Return (channels, n) float32 with n <= max_samples; less only at the end."""
        pieces, missing = [self._rest[:, :0]], max_samples
        while missing:
            if self._rest.shape[1] == 0:
                block = next(self._blocks, None)
                if block is None:
                    break
                self._rest = block
            pieces.append(self._rest[:, :missing])
            self._rest = self._rest[:, missing:]
            missing -= pieces[-1].shape[1]
        return np.ascontiguousarray(np.concatenate(pieces, axis=1))

    def seek(self, sample: int) -> None:
        """Go to a sample, by reading up to it: containers seek to about where they are told."""
        self._open()
        self.problem = None
        while sample and (skipped := self.read(min(sample, _ZEROS)).shape[1]):
            sample -= skipped

    def close(self) -> None:
        """Close FFmpeg's handles."""
        if self._container is not None:
            self._container.close()

    def _open(self) -> None:
        """Begin at the first sample, with the first block, which alone tells the format."""
        av = self._av
        self.close()
        self._stream.seek(0)
        try:
            self._container = av.open(
                self._stream,
                options={"format_whitelist": _DEMUXERS, "protocol_whitelist": "none"},
                metadata_errors="replace",
            )
        except (av.FFmpegError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or str(exc)
            raise AudioError(f"{self._name}: not audio that can be read ({reason})") from exc
        if not self._container.streams.audio:
            raise AudioError(f"{self._name}: there is no sound in it")
        self._track = self._container.streams.audio[0]
        self.sample_rate = 0
        self._blocks = self._decode()
        first = next(self._blocks, None)
        if first is None:
            raise AudioError(f"{self._name}: {self.problem or 'has a header but no samples'}")
        self._rest = first

    def _decode(self) -> Iterator[np.ndarray]:
        """Yield (channels, samples) float32, at least one sample each."""
        av = self._av
        resampler: Any = None
        done = 0
        begin_s = (self._container.start_time or 0) / 1e6
        try:
            for frame in self._container.decode(self._track):
                if resampler is None:
                    self.sample_rate = frame.sample_rate
                    # of format only: rate and layout stay
                    resampler = av.AudioResampler("fltp", frame.layout, frame.sample_rate)
                if frame.pts is not None:
                    late_s = float(frame.pts * frame.time_base) - begin_s - done / self.sample_rate
                    late = round(late_s * self.sample_rate)
                    while _LEAST_GAP_S < late_s < _MOST_GAP_S and late:
                        silence = np.zeros((len(frame.layout.channels), min(late, _ZEROS)))
                        yield silence.astype(np.float32)
                        done, late = done + silence.shape[1], late - silence.shape[1]
                for converted in resampler.resample(frame):
                    block: np.ndarray = converted.to_ndarray()
                    if block.shape[1]:
                        done += block.shape[1]
                        yield block
        except (av.FFmpegError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or str(exc)
            self.problem = f"decoding breaks off ({reason}): the file is damaged or cut short"
            self.least_samples = 0  # the damage says more than the length

    def _tell_length(self) -> int | None:
        """Return how many samples there are by the container, None if only decoding could tell."""
        track, container = self._track, self._container
        if not {"mov", "matroska"} & set(container.format.name.split(",")):
            return None  # FFmpeg guesses from the first frames' size
        if track.duration is not None and track.time_base is not None:
            length_s = float(track.duration * track.time_base)
        elif len(container.streams) == 1 and container.duration is not None:
            length_s = container.duration / 1e6
        else:
            return None
        return round(length_s * self.sample_rate) if 0 < length_s < math.inf else None
