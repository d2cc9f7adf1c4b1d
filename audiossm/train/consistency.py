"""How far the spectra that a decoder makes samples of are from those that the samples have."""

import torch
from torch import Tensor, nn

from audiossm.codec.stft import CausalSTFT, STFTState
from audiossm.train.ranks import ALONE, Ranks

__all__ = ["ConsistencyLoss"]


class ConsistencyLoss(nn.Module):
    """Energy of the difference over that of both: 0 if they are equal, 1 if they are unrelated.

    Overlapping spectra that no signal has cancel each other in part; a decoder then overstates
    magnitudes to make up for it. Energies are divided by magnitudes, so that weak bins count too.

    Args:
        window: samples in a spectrum.
        hop: samples between two spectra.
        ranks: the processes whose rows together are a batch.
    """

    def __init__(self, window: int, hop: int, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.ranks = ranks
        self.stft = CausalSTFT(window, hop)

    def forward(self, spectra: Tensor, samples: Tensor) -> Tensor:
        """Compare (rows, spectra, 2 * bins) with (rows, samples), which they cover exactly."""
        samples = samples.float()
        tail = self.stft.window - self.stft.hop
        found, _ = self.stft.step(samples[:, tail:], STFTState(samples[:, :tail]))
        spectra = spectra.float()
        power = found.square() + spectra.square()
        real, imaginary = power.detach().chunk(2, dim=-1)
        weight = (real + imaginary + 1e-6).rsqrt().repeat(1, 1, 2)
        apart = (weight * (spectra - found).square()).sum()
        apart, energy = self.ranks.whole(torch.stack([apart, (weight * power).sum()]))
        far: Tensor = apart / energy.clamp(min=1e-4 / self.ranks.count)
        return far
