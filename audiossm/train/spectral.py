"""How far a decoded signal is from its original, in spectra of several resolutions."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from audiossm.codec.stft import mel_filters
from audiossm.train.ranks import ALONE, Ranks

__all__ = ["SpectralDistance", "SpectralLoss"]

# windows in samples, each with a number of mel bands that its bins can tell apart
MEL_WINDOWS = ((64, 10), (128, 20), (256, 40), (512, 60), (1024, 80), (2048, 120))
MAGNITUDE_WINDOWS = (512, 1024)
# long ones, which tell most voices' harmonics apart
PEAK_WINDOWS = (512, 1024, 2048)


class SpectralDistance(NamedTuple):
    """Distances, means over everything, the first two in powers of ten."""

    mel: Tensor  # (): log-mel bands, all windows
    magnitude: Tensor  # (): bins, the two windows that speech is mostly looked at with
    peaks: Tensor  # (): roots of bins, three windows, over the recording's: what is loud counts


class SpectralLoss(nn.Module):
    """L1 between log-mel bands at six resolutions, log-magnitudes at two, and their roots at three.

    A logarithm has as much of a harmonic's peak as of the valley beside it, and what can't be known
    comes out in between. The root, near to how loud a sound is, has more of the peak.

    Hann windows, a hop of a quarter of the window, spectra scaled by 1 / sqrt(window), so that
    noise has one level in all of them.

    Args:
        sample_rate: Hz.
        floor: magnitudes below it count as equal; 1e-4 is noise 76 dB below full scale.
    """

    def __init__(self, sample_rate: int, floor: float = 1e-4) -> None:
        super().__init__()
        self.floor = floor
        for window, num_mels in MEL_WINDOWS:
            filters = mel_filters(num_mels, window // 2 + 1, sample_rate)
            self.register_buffer(f"filters_{window}", filters, persistent=False)
            self.register_buffer(f"hann_{window}", torch.hann_window(window), persistent=False)

    def forward(self, output: Tensor, target: Tensor, ranks: Ranks = ALONE) -> SpectralDistance:
        """Compare samples (batch, samples), at least the longest window, computed in float32.

        Of several processes' ``ranks`` the means of distances are those of the whole batch.
        """
        with torch.autocast(output.device.type, enabled=False):
            both = torch.cat([output.float(), target.float()])
            mels, magnitudes, peaks = [], [], []
            for window, _ in MEL_WINDOWS:
                hann = self.get_buffer(f"hann_{window}")
                spectra = torch.stft(
                    both,
                    window,
                    window // 4,
                    window=hann,
                    center=False,
                    normalized=True,
                    return_complex=True,
                ).abs()
                bands = spectra.transpose(1, 2) @ self.get_buffer(f"filters_{window}")
                mels.append(self.distance(bands))
                if window in MAGNITUDE_WINDOWS:
                    magnitudes.append(self.distance(spectra))
                if window in PEAK_WINDOWS:
                    said, heard = (spectra + 1e-6).sqrt().chunk(2)
                    peaks.append((said - heard).abs().mean() / ranks.mean(heard.mean()))
        return SpectralDistance(*(torch.stack(x).mean() for x in (mels, magnitudes, peaks)))

    def distance(self, both: Tensor) -> Tensor:
        """Compare the first half of the rows with the second, as logarithms."""
        a, b = both.clamp(min=self.floor).log10().chunk(2)
        return (a - b).abs().mean()
