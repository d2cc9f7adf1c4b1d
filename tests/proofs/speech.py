"""Recordings of any length, made by repeating the committed ones."""

from itertools import cycle
from pathlib import Path

import soundfile

__all__ = ["write_speech"]

FOLDER = Path(__file__).parent.parent / "speech"


def write_speech(path: Path, seconds: float, sample_rate: int = 16000, channels: int = 1) -> None:
    """Write a 16-bit wav of exactly ``seconds``; every channel holds the same speech."""
    sentences = [
        samples
        for samples, rate in (
            soundfile.read(name, dtype="float32") for name in sorted(FOLDER.glob("*.flac"))
        )
        if rate == 16000 and samples.ndim == 1
    ]
    if sample_rate != 16000:
        import torch

        from audiossm.audio import resample

        rows = (torch.from_numpy(samples).unsqueeze(0) for samples in sentences)
        sentences = [resample(row, 16000, sample_rate)[0].numpy() for row in rows]
    left = round(seconds * sample_rate)
    with soundfile.SoundFile(path, "w", sample_rate, channels, "PCM_16") as file:
        for samples in cycle(sentences):
            if not left:
                return
            part = samples[:left]
            file.write(part if channels == 1 else part[:, None].repeat(channels, axis=1))
            left -= len(part)
