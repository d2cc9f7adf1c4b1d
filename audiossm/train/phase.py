"""How far a decoded signal's phases are from its original's."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["PhaseDistance", "PhaseLoss"]

WINDOWS = (256, 512, 1024)
LOW_WINDOWS = (512, 1024)  # which tell the harmonics of most voices apart
LOW_HZ = 2000


class PhaseDistance(NamedTuple):
    """Distances, means over three windows, the last two over the two longer ones."""

    spectra: Tensor  # (): between compressed complex spectra, over the recording's size
    drift: Tensor  # (): 1 - cos of phase differences from bin to bin and from time to time
    low: Tensor  # (): as ``spectra``, below 2 kHz alone
    angle: Tensor  # (): 1 - cos of phase differences there, whatever magnitudes are


class PhaseLoss(nn.Module):
    """Distances between complex spectra, which the spectral loss is deaf to.

    Spectra are compressed to |X|^0.5. The drift compares what a pulse's place and a tone's
    frequency do to phases, wherever the signal as a whole stands (as in arXiv:2305.07952, with
    cosines instead of unwrapped angles); each pair of bins weighs as much as the recording's
    compressed magnitude there. Hann windows, a hop of a quarter of the window.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        for window in WINDOWS:
            self.register_buffer(f"hann_{window}", torch.hann_window(window), persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> PhaseDistance:
        """Compare samples (batch, samples), at least the longest window, computed in float32."""
        spectra, drifts, low, angles = [], [], [], []
        with torch.autocast(output.device.type, enabled=False):
            both = torch.cat([output.float(), target.float()])
            for window in WINDOWS:
                z = torch.stft(
                    both,
                    window,
                    window // 4,
                    window=self.get_buffer(f"hann_{window}"),
                    center=False,
                    normalized=True,
                    return_complex=True,
                )
                power = z.real.square() + z.imag.square()
                z = torch.view_as_complex(
                    torch.view_as_real(z) * (power + 1e-6).pow(-0.25).unsqueeze(-1)
                )
                said, heard = z.chunk(2)
                spectra.append(distance(said, heard))
                if window in LOW_WINDOWS:
                    bins = LOW_HZ * window // self.sample_rate
                    ours, theirs = said[:, :bins], heard[:, :bins]
                    low.append(distance(ours, theirs))
                    angles.append(turn(ours, theirs, theirs.abs()))
                drifts += [
                    drift(said[:, 1:], said[:, :-1], heard[:, 1:], heard[:, :-1]),
                    drift(said[..., 1:], said[..., :-1], heard[..., 1:], heard[..., :-1]),
                ]
        return PhaseDistance(*(torch.stack(x).mean() for x in (spectra, drifts, low, angles)))


def distance(said: Tensor, heard: Tensor) -> Tensor:
    """Return the L1 distance between complex tensors over the size of the second."""
    far = torch.view_as_real(said - heard).abs().mean()
    return far / torch.view_as_real(heard).abs().mean().clamp(min=1e-4)


def drift(said: Tensor, said_before: Tensor, heard: Tensor, heard_before: Tensor) -> Tensor:
    """Compare the turn from one complex tensor to another with that of the recording."""
    ours, theirs = said * said_before.conj(), heard * heard_before.conj()
    return turn(ours, theirs, theirs.abs().sqrt())


def turn(ours: Tensor, theirs: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of 1 - cos of the angles between complex tensors, weighed."""
    # added to what is too weak to have a phase, 1e-6 makes it equal
    product = ours * theirs.conj() + 1e-6
    size = (product.real.square() + product.imag.square() + 1e-20).sqrt()
    weight = weight.detach()
    return (weight * (1 - product.real / size)).sum() / weight.sum().clamp(min=1e-4)
