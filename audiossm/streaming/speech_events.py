"""What a stream of speech tells: its sound, its words, and what of the text it can't say."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Skipped", "Sound", "SpeechEvent", "SpokenWord"]


@dataclass(frozen=True)
class Sound:
    """The next samples of the speech, in [-1, 1] or a little beyond, and their codes.

    The codec's delay is taken away at the beginning: the first samples are less than a frame, and
    the last ones come with no codes.
    """

    samples: NDArray[np.float32]  # (samples,) at the codec's rate
    codes: NDArray[np.int64]  # (groups, frames)


@dataclass(frozen=True)
class SpokenWord:
    """A word as it was written, and when it is said; its last sound may follow, within 100 ms."""

    word: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Skipped:
    """A piece of the text that can't be said."""

    text: str


SpeechEvent = Sound | SpokenWord | Skipped
