"""Errors of pitch: what a decoder makes of the fundamental frequency of a voice."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from audiossm.errors import DependencyError, ShapeError

__all__ = ["PitchErrors", "PitchTrack", "count_pitch_errors", "require_librosa", "track_pitch"]

LOWEST, HIGHEST = 60.0, 500.0  # Hz
WINDOW_S, HOP_S = 0.064, 0.02
# Semitones between two candidates: 0.1, librosa's own, takes three times as long. Rounding to these
# is an error of 6 cents, far below those that are looked for.
RESOLUTION = 0.2
GROSS = 0.2  # further off than this fraction: another pitch, not the same one a little wrong


class PitchTrack(NamedTuple):
    """The pitch of a voice each 20 ms, in Hz; (frames,) each."""

    pitch: NDArray[np.float64]  # probabilistic YIN: NaN where there is no voice
    guess: NDArray[np.float64]  # YIN: the best there is, voice or not


@dataclass(frozen=True)
class PitchErrors:
    """Counts that add up over recordings, of frames of 20 ms."""

    frames: int = 0
    voicing_errors: int = 0  # voiced in one signal only
    voiced: int = 0  # in both
    gross_errors: int = 0  # of those, more than 20 % off
    square_cents: float = 0.0  # sum over those voiced in both, gross ones and all
    original_voiced: int = 0
    guess_errors: int = 0  # of those, YIN's guess more than 20 % off

    def __add__(self, other: "PitchErrors") -> "PitchErrors":
        return PitchErrors(
            self.frames + other.frames,
            self.voicing_errors + other.voicing_errors,
            self.voiced + other.voiced,
            self.gross_errors + other.gross_errors,
            self.square_cents + other.square_cents,
            self.original_voiced + other.original_voiced,
            self.guess_errors + other.guess_errors,
        )

    @property
    def voicing_error(self) -> float | None:
        """Voicing decision error: the fraction of frames voiced in one signal only."""
        return self.voicing_errors / self.frames if self.frames else None

    @property
    def gross_error(self) -> float | None:
        """Gross pitch error: the fraction of frames voiced in both that are over 20 % off."""
        return self.gross_errors / self.voiced if self.voiced else None

    @property
    def guess_error(self) -> float | None:
        """YIN's gross errors over all frames voiced in the original.

        Where the decoded signal is so noisy that none of it counts as voice, this still tells
        whether its pitch is there.
        """
        return self.guess_errors / self.original_voiced if self.original_voiced else None

    @property
    def rmse_cents(self) -> float | None:
        """Root mean square error in hundredths of a semitone, over frames voiced in both."""
        return math.sqrt(self.square_cents / self.voiced) if self.voiced else None


def track_pitch(samples: Tensor, sample_rate: int) -> PitchTrack:
    """Track the pitch of a voice from 60 to 500 Hz.

    YIN (de Cheveigne and Kawahara 2002) and probabilistic YIN (Mauch and Dixon 2014) of librosa.

    Args:
        samples: (samples,) in [-1, 1].
        sample_rate: Hz.

    Raises:
        DependencyError: librosa is not installed.
    """
    require_librosa()
    import librosa

    audio = samples.double().numpy()
    options: dict[str, Any] = {
        "sr": sample_rate,
        "fmin": LOWEST,
        "fmax": HIGHEST,
        "frame_length": round(WINDOW_S * sample_rate),
        "hop_length": round(HOP_S * sample_rate),
    }
    pitch, _, _ = librosa.pyin(audio, resolution=RESOLUTION, **options)
    return PitchTrack(np.asarray(pitch, np.float64), librosa.yin(audio, **options))


def count_pitch_errors(original: PitchTrack, decoded: PitchTrack) -> PitchErrors:
    """Compare two tracks: the measures of Chu and Alwan (2009), root mean square error, and YIN's.

    Raises:
        ShapeError: they differ in length.
    """
    if original.pitch.shape != decoded.pitch.shape:
        raise ShapeError(
            f"two tracks (frames,) of one length, got {original.pitch.shape}, {decoded.pitch.shape}"
        )
    here, there = np.isfinite(original.pitch), np.isfinite(decoded.pitch)
    both = here & there
    ratio = decoded.pitch[both] / original.pitch[both]
    guess = decoded.guess[here] / original.pitch[here]
    return PitchErrors(
        frames=len(here),
        voicing_errors=int((here != there).sum()),
        voiced=int(both.sum()),
        gross_errors=int((np.abs(ratio - 1) > GROSS).sum()),
        square_cents=float(np.square(1200 * np.log2(ratio)).sum()),
        original_voiced=int(here.sum()),
        guess_errors=int((np.abs(guess - 1) > GROSS).sum()),
    )


def require_librosa() -> None:
    """Raise ``DependencyError`` if librosa, which tracks pitch, is missing."""
    try:
        import librosa  # noqa: F401  asked for its presence only
    except ImportError as exc:
        raise DependencyError(
            "pitch is tracked by librosa, which is not installed: pip install 'audiossm[eval]'"
        ) from exc
