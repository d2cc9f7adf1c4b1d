"""How far the spectra that a decoder makes samples of are from those that the samples have."""

from torch import Tensor, nn

from audiossm.codec.stft import CausalSTFT, STFTState

__all__ = ["ConsistencyLoss"]


class ConsistencyLoss(nn.Module):
    """Energy of the difference over that of both: 0 if they are equal, 1 if they are unrelated.

    Overlapping spectra that no signal has cancel each other in part; a decoder then overstates
    magnitudes to make up for it. Energies are divided by magnitudes, so that weak bins count too.

    Args:
        window: samples in a spectrum.
        hop: samples between two spectra.
    """

    def __init__(self, window: int, hop: int) -> None:
        super().__init__()
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
        return apart / (weight * power).sum().clamp(min=1e-4)
