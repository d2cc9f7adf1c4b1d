"""Scale-invariant signal-to-distortion ratio: how close two waveforms are, up to a gain."""

import math

from torch import Tensor

from audiossm.errors import AudioError, ShapeError

__all__ = ["MAX_SI_SDR", "si_sdr"]

MAX_SI_SDR = 100.0  # dB: what equal signals get; float32 samples can't tell more apart


def si_sdr(original: Tensor, decoded: Tensor) -> float:
    """Return SI-SDR in dB (Le Roux et al. 2019, arXiv:1811.02508, Eq. 5), at most 100 either way.

    The part of ``decoded`` that is a multiple of ``original``, over the rest. Means are left in, as
    the paper has it. It compares waveforms: a decoder that makes phases of its own is far below
    0 dB, however it sounds.

    Args:
        original: (samples,).
        decoded: as long, without delay.

    Raises:
        ShapeError: the signals differ in length, or are empty or not one-dimensional.
        AudioError: one of them is digital silence.
    """
    if original.dim() != 1 or original.shape != decoded.shape or not len(original):
        raise ShapeError(
            f"si_sdr takes two signals (samples,), got {(*original.shape,)}, {(*decoded.shape,)}"
        )
    s, estimate = original.double(), decoded.double()
    if not s.any() or not estimate.any():
        raise AudioError("nothing but digital silence")
    target = (estimate @ s) / (s @ s) * s
    rest = target - estimate
    largest = 10 ** (MAX_SI_SDR / 10)
    ratio = float(target @ target) / max(float(rest @ rest), 1e-300)
    return 10 * math.log10(min(max(ratio, 1 / largest), largest))
