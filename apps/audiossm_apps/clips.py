"""The speech that a measurement says over and over: files, a manifest's, or the shipped clip."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from audiossm.errors import AudioError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["RATE", "Clip", "add_clip_options", "read_clips"]

RATE = 16000


@dataclass(frozen=True)
class Clip:
    """A recording as (samples,) float32 at ``RATE``, with no more than 16 bits in a sample."""

    name: str
    samples: "NDArray[np.float32]"

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / RATE


def add_clip_options(parser: argparse.ArgumentParser) -> None:
    """Add the files and ``--manifest``."""
    parser.add_argument(
        "files", metavar="FILE", nargs="*", help="recordings of speech (default: the shipped clip)"
    )
    parser.add_argument("--manifest", metavar="FILE", help="take those of a manifest, JSON Lines")


def read_clips(files: list[str], manifest: str | None = None) -> list[Clip]:
    """Read recordings whole, at ``RATE``; the shipped clip if there are neither.

    Raises:
        AudioError: one can't be read, or has no samples.
        ManifestError: the manifest can't be read.
    """
    from audiossm.evaluate.recording import read_recording
    from audiossm.manifest import Utterance, read_manifest
    from audiossm.protocol import decode_samples, encode_samples
    from audiossm.streaming.capacity import shipped_clip

    utterances = [Utterance(key=name, text="", path=Path(name)) for name in files]
    if manifest is not None:
        utterances += read_manifest(manifest)
    if not utterances:
        path = shipped_clip()
        utterances = [Utterance(key=path.name, text="", path=path)]
    clips = []
    for utterance in utterances:
        samples = read_recording(utterance).at_rate(RATE)
        if not len(samples):
            raise AudioError(f"{utterance.key}: there is no audio in it")
        # what a client sends is what both ends listen to
        clips.append(Clip(utterance.key, decode_samples(encode_samples(samples, "s16"), "s16")))
    return clips
