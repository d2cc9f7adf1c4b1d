"""Many channels to one."""

import numpy as np

from audiossm.errors import ShapeError

__all__ = ["mix"]


def mix(audio: np.ndarray) -> np.ndarray:
    """Average the channels: (channels, samples) float32 -> (samples,) float32.

    A single channel is its index, ``audio[i]``, and needs no function.

    Raises:
        ShapeError: ``audio`` is not two-dimensional or has no channels.
    """
    if audio.ndim != 2 or audio.shape[0] == 0:
        raise ShapeError(f"mix takes audio (channels, samples), but got shape {audio.shape}")
    if audio.shape[0] == 1:
        return np.array(audio[0], dtype=np.float32)
    mean: np.ndarray = audio.mean(axis=0, dtype=np.float32)
    return mean
