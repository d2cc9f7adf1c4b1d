"""Audio out: one call that writes a whole file."""

from pathlib import Path

import numpy as np

from audiossm.audio.container import write_container
from audiossm.errors import AudioError, OutputError, ShapeError
from audiossm.whole import write_beside

__all__ = ["write_audio"]

_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
}


def write_audio(path: str | Path, audio: np.ndarray, sample_rate: int) -> None:
    """Write a file whose format follows from its suffix: 16-bit wav or flac, ogg or opus.

    The file appears whole or not at all. Values outside [-1, 1] are clipped.

    Args:
        path: where; an existing file is replaced.
        audio: (channels, samples) float32 in [-1, 1].
        sample_rate: Hz; for opus 8000, 12000, 16000, 24000 or 48000.

    Raises:
        ShapeError: ``audio`` is not (channels, samples).
        OutputError: the suffix is unknown, there are no samples, some are NaN or infinite, or
            writing fails.
    """
    path = Path(path)
    if audio.ndim != 2 or audio.shape[0] == 0:
        raise ShapeError(f"write_audio takes (channels, samples), but got shape {audio.shape}")
    if path.suffix.lower() not in _FORMATS:
        raise OutputError(
            f"{path}: can't write {path.suffix or 'a file without suffix'!r}; "
            f"expected one of {', '.join(_FORMATS)}"
        )
    if audio.shape[1] == 0:
        raise OutputError(f"{path}: there are no samples to write")
    if not np.isfinite(audio).all():
        raise OutputError(f"{path}: the audio has NaN or infinite values")
    file_format, coding = _FORMATS[path.suffix.lower()]
    try:
        with write_beside(path) as part:
            write_container(part, audio, sample_rate, file_format=file_format, coding=coding)
    except AudioError as exc:
        raise OutputError(
            f"{path}: {audio.shape[0]} channels at {sample_rate} Hz can't be written: {exc}"
        ) from exc
    except OSError as exc:
        raise OutputError(f"{path}: can't be written: {exc.strerror or exc}") from exc
