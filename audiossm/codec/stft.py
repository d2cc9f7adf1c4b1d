"""The causal STFT that the encoder sees: frames end at the newest sample."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from audiossm.errors import ShapeError
from audiossm.nn.streaming import StreamingModule
from audiossm_kernels.operators import exporting, stft

__all__ = ["CausalSTFT", "STFTState", "mel_filters"]


class STFTState(NamedTuple):
    """What the transform remembers."""

    tail: Tensor  # (batch, window - hop): the newest samples


class CausalSTFT(StreamingModule[STFTState]):
    """Hann-windowed spectra of the newest ``window`` samples, every ``hop`` samples.

    The transform is one matrix product: it exports as it stands, and a stream and a file go
    through the same arithmetic.

    Args:
        window: samples in a spectrum.
        hop: samples between two spectra.
    """

    def __init__(self, window: int, hop: int) -> None:
        super().__init__()
        self.window, self.hop, self.num_bins = window, hop, window // 2 + 1
        time = torch.arange(window, dtype=torch.float64)
        angle = 2 * math.pi / window * torch.outer(time, time[: self.num_bins])
        hann = torch.hann_window(window, dtype=torch.float64).unsqueeze(1)
        basis = torch.cat([hann * angle.cos(), -hann * angle.sin()], dim=1)
        self.register_buffer("basis", (basis / math.sqrt(window)).float(), persistent=False)
        self.basis: Tensor
        # of most graphs, which have a transform and need no basis, the largest matrix of all
        frame_window = (hann.squeeze(1) / math.sqrt(window)).float()
        self.register_buffer("frame_window", frame_window, persistent=False)
        self.frame_window: Tensor

    def init_state(self, batch: int) -> STFTState:
        return STFTState(self.basis.new_zeros(batch, self.window - self.hop))

    def step(self, x: Tensor, state: STFTState) -> tuple[Tensor, STFTState]:
        """Transform samples (batch, samples), a multiple of ``hop``.

        Returns:
            (batch, samples / hop, 2 * (window / 2 + 1)) float32, real parts before imaginary ones,
            scaled by 1 / sqrt(window); and the state.

        Raises:
            ShapeError: no samples, or not a multiple of ``hop``.
        """
        if x.dim() != 2 or x.shape[1] < 1 or x.shape[1] % self.hop:
            raise ShapeError(
                f"CausalSTFT takes (batch, samples), a multiple of {self.hop}, got {(*x.shape,)}"
            )
        samples = torch.cat([state.tail, x], dim=1)
        keep = self.window - self.hop
        tail = samples.narrow(1, samples.shape[1] - keep, keep).clone()
        # the operator is slow where the window is no power of two
        if exporting() and self.window & (self.window - 1) == 0:
            return stft(samples, self.frame_window, self.hop), STFTState(tail)
        # true float32: this product must not follow autocast or TF32
        with torch.autocast(x.device.type, enabled=False):
            spectra = self.transform(samples)
        return spectra, STFTState(tail)

    def transform(self, samples: Tensor) -> Tensor:
        """Transform every window of (batch, samples), the past in front."""
        windows = self._cut(samples)
        if samples.is_cuda:
            # as it is, a card would do one small product a row, ten times as slow
            return (windows.reshape(-1, self.window) @ self.basis).view(*windows.shape[:2], -1)
        return windows @ self.basis

    def _cut(self, samples: Tensor) -> Tensor:
        """Cut samples into windows (batch, spectra, window)."""
        if not exporting() or self.window % self.hop:
            return samples.unfold(1, self.window, self.hop)
        # an unfold would be gathered sample by sample
        hops = samples.view(len(samples), -1, self.hop)
        overlaps = self.window // self.hop
        first = torch.arange(hops.shape[1] - overlaps + 1).unsqueeze(1)
        places = (first + torch.arange(overlaps)).flatten()
        return hops.index_select(1, places).view(len(samples), -1, self.window)


def mel_filters(num_mels: int, num_bins: int, sample_rate: int) -> Tensor:
    """Return triangular mel filters (num_bins, num_mels), 20 Hz to the Nyquist frequency.

    HTK mel scale, 2595 log10(1 + f / 700); each triangle has unit peak.
    """

    def mel(hertz: float) -> float:
        return 2595.0 * math.log10(1.0 + hertz / 700.0)

    points = torch.linspace(mel(20.0), mel(sample_rate / 2), num_mels + 2, dtype=torch.float64)
    edges = 700.0 * (10.0 ** (points / 2595.0) - 1.0)
    bins = torch.linspace(0.0, sample_rate / 2, num_bins, dtype=torch.float64).unsqueeze(1)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return F.relu(torch.minimum(rising, falling)).float()
