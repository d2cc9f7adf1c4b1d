"""A manifest's recording, read whole."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from audiossm.audio import mix, open_audio, resample
from audiossm.manifest import Utterance

__all__ = ["Recording", "read_recording"]


@dataclass(frozen=True)
class Recording:
    """An utterance's samples: (samples,) float32, channels averaged."""

    key: str
    samples: NDArray[np.float32]
    sample_rate: int

    @property
    def length_s(self) -> float:
        """Seconds."""
        return len(self.samples) / self.sample_rate

    def at_rate(self, sample_rate: int) -> NDArray[np.float32]:
        """Return (samples,) float32 at another rate, in Hz."""
        samples = torch.from_numpy(self.samples).unsqueeze(0)
        return resample(samples, self.sample_rate, sample_rate)[0].numpy()


def read_recording(utterance: Utterance) -> Recording:
    """Read an utterance whole."""
    name = utterance.key if utterance.shard else None
    with open_audio(utterance.open(), name=name) as reader:
        audio = np.concatenate(list(reader.blocks(reader.sample_rate)), axis=1)
        return Recording(utterance.key, mix(audio), reader.sample_rate)
