"""What samples may be: numbers that a model can go on from."""

import numpy as np
from numpy.typing import NDArray

from audiossm.errors import AudioError

__all__ = ["LOUDEST", "check_samples"]

LOUDEST = 1e4  # full scale is 1; from 1e19 on, float32 overflows and a session never recovers


def check_samples(samples: NDArray[np.floating], position: int, sample_rate: int) -> None:
    """Refuse what would spoil a session for ever.

    Args:
        samples: (..., samples) float.
        position: how many samples came before these.
        sample_rate: Hz, to tell the time of a bad one.

    Raises:
        AudioError: a sample is not finite or beyond ``LOUDEST``.
    """
    if np.abs(samples).max(initial=0.0) <= LOUDEST:  # NaN isn't
        return
    bad = np.argwhere(~(np.abs(samples) <= LOUDEST))
    if len(bad):
        first = bad[bad[:, -1].argmin()]
        value, second = samples[tuple(first)], (position + first[-1]) / sample_rate
        fault = "far outside [-1, 1]" if np.isfinite(value) else "not a finite number"
        raise AudioError(f"sample {value:.4g} at {second:.3f} s is {fault}")
