"""Samples of speech to the bytes that a client asked for, as they come."""

import io

import numpy as np
import torch
from numpy.typing import NDArray

from audiossm.audio import Resampler, WavWriter
from audiossm.audio.container import ContainerStream
from audiossm.protocol.encoding import Encoding, encode_samples
from audiossm.protocol.openai_speech import PCM_RATE, SoundForm
from audiossm.streaming.speech_engine import Packer

__all__ = ["BarePacker", "make_file_packer"]

Samples = NDArray[np.float32]

# libsndfile's format and coding
CONTAINERS: dict[str, tuple[str, str]] = {
    "flac": ("FLAC", "PCM_16"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def make_file_packer(form: SoundForm, rate: int, comment: str) -> Packer:
    """Return what makes a file, or the bare samples that ``pcm`` is.

    Raises:
        AudioError: libsndfile was built without that format.
    """
    if form == "pcm":
        return BarePacker(rate, PCM_RATE, "s16")
    if form == "wav":
        return _WavPacker(rate, comment)
    file_format, coding = CONTAINERS[form]
    return _ContainerPacker(
        ContainerStream(rate, file_format=file_format, coding=coding, comment=comment)
    )


class BarePacker:
    """Samples and nothing else, at a rate of their own.

    Args:
        rate: of what comes, Hz.
        wanted: of what goes, Hz.
        encoding: of what goes.
    """

    def __init__(self, rate: int, wanted: int, encoding: Encoding) -> None:
        self.encoding = encoding
        self.resampler = Resampler(rate, wanted) if wanted != rate else None
        if self.resampler is not None:
            self.state = self.resampler.init_state(1)

    def write(self, samples: Samples) -> bytes:
        """Take the next samples."""
        if self.resampler is not None:
            row = torch.from_numpy(samples).unsqueeze(0)
            made, self.state = self.resampler.step(row, self.state)
            samples = made[0].numpy()
        return encode_samples(samples, self.encoding)

    def finish(self) -> bytes:
        """Return what a resampler held back."""
        if self.resampler is None:
            return b""
        return encode_samples(self.resampler.finish(self.state)[0].numpy(), self.encoding)


class _WavPacker:
    def __init__(self, rate: int, comment: str) -> None:
        self.stream = io.BytesIO()
        self.writer = WavWriter(self.stream, rate, 1, comment=comment)  # its length isn't known

    def write(self, samples: Samples) -> bytes:
        self.writer.write(samples[None])
        data = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        return data

    def finish(self) -> bytes:
        return b""


class _ContainerPacker:
    def __init__(self, stream: ContainerStream) -> None:
        self.stream = stream

    def write(self, samples: Samples) -> bytes:
        return self.stream.write(np.clip(samples, -1.0, 1.0))

    def finish(self) -> bytes:
        return self.stream.finish()
