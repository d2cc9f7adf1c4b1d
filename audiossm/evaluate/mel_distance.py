"""Log-mel distance: how far two signals are from each other in two mel spectrograms."""

from functools import lru_cache

import torch
from torch import Tensor

from audiossm.codec.stft import mel_filters
from audiossm.errors import ShapeError

__all__ = ["mel_distance"]

# windows in samples, each with as many mel bands as its bins can tell apart at 16 kHz
WINDOWS = ((512, 60), (2048, 120))
FLOOR = 1e-4  # magnitude that counts as silence: that of noise 76 dB below full scale


def mel_distance(a: Tensor, b: Tensor, sample_rate: int) -> float:
    """Return the mean of ``|log10 A^2 - log10 B^2|`` over bands, frames and windows.

    A and B are mel bands of the magnitude spectra: Hann windows of 512 and 2048 samples, a quarter
    of the window apart, scaled by 1 / sqrt(window), 60 and 120 bands from 20 Hz to the Nyquist
    frequency, no less than 1e-4. 1 is 10 dB; 0 is equality. The training loss is a formula of its
    own, so that changing that one doesn't change what was measured.

    Args:
        a: (samples,) in [-1, 1].
        b: likewise.
        sample_rate: Hz, of both.

    Raises:
        ShapeError: the signals differ in length, or are empty or not one-dimensional.
    """
    if a.dim() != 1 or a.shape != b.shape or not len(a):
        raise ShapeError(
            f"mel_distance takes two signals (samples,), got {(*a.shape,)}, {(*b.shape,)}"
        )
    distances = []
    for window, num_bands in WINDOWS:
        spectra = torch.stft(
            torch.stack([a, b]).float(),
            window,
            window // 4,
            window=torch.hann_window(window),
            pad_mode="constant",  # zeros: a mirror image needs as many samples as it adds
            normalized=True,
            return_complex=True,
        ).abs()
        bands = spectra.transpose(1, 2) @ get_filters(num_bands, window, sample_rate)
        logs = 2 * bands.clamp(min=FLOOR).log10()
        distances.append((logs[0] - logs[1]).abs().mean())
    return float(torch.stack(distances).mean())


@lru_cache(maxsize=8)
def get_filters(num_bands: int, window: int, sample_rate: int) -> Tensor:
    """Return the filters (bins, bands), made once."""
    return mel_filters(num_bands, window // 2 + 1, sample_rate)
