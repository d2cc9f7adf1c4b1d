"""The recordings of a manifest as samples at 16 kHz, and the words for the machine they run on."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from audiossm.audio import mix, open_audio, resample
from audiossm.manifest import Utterance

__all__ = ["SAMPLE_RATE", "describe", "read_samples"]

SAMPLE_RATE = 16000


def read_samples(utterance: Utterance) -> NDArray[np.float32]:
    """Read a whole recording, its channels mixed: (samples,) float32 at ``SAMPLE_RATE``."""
    with open_audio(utterance.open(), name=utterance.key) as reader:
        rate = reader.sample_rate
        samples = np.concatenate([mix(block) for block in reader.blocks(rate)])
    if rate == SAMPLE_RATE:
        return samples
    return resample(torch.from_numpy(samples)[None], rate, SAMPLE_RATE)[0].numpy()


def describe(machine: Mapping[str, str | int]) -> str:
    """Put what ``describe_machine`` returned in one line."""
    return (
        f"{machine['processor']}, device {machine['device']}, {machine['threads']} of "
        f"{machine['cores']} threads, torch {machine['torch']}"
    )
