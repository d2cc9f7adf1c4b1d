"""The inverse of the causal STFT: spectra to samples by overlap-add, piece by piece."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from audiossm.errors import ConfigError, ShapeError
from audiossm.nn.streaming import StreamingModule
from audiossm_kernels.operators import exporting
from audiossm_kernels.state import full_precision

__all__ = ["InverseSTFT", "InverseSTFTState"]


class InverseSTFTState(NamedTuple):
    """What the transform remembers."""

    tail: Tensor  # (batch, window - hop): samples that later spectra will add to


class InverseSTFT(StreamingModule[InverseSTFTState]):
    """Hann-windowed overlap-add of spectra scaled as ``CausalSTFT(window, hop)`` scales them.

    What that transform takes comes out again, ``delay`` samples late: a sample is done when the
    last window that covers it has been added. Spectra no signal has are brought together in the
    sense of least squares (Griffin and Lim, 1984). One matrix product, so that it exports.

    Args:
        window: samples in a spectrum, even.
        hop: samples between two spectra; the window has two of them or more.

    Raises:
        ConfigError: ``window`` is odd or not at least twice and a multiple of ``hop``.
    """

    def __init__(self, window: int, hop: int) -> None:
        super().__init__()
        if window % 2 or window % hop or window < 2 * hop:
            raise ConfigError(
                f"window {window} must be even and a multiple of hop {hop}, twice or more"
            )
        self.window, self.hop, self.num_bins = window, hop, window // 2 + 1
        time = torch.arange(window, dtype=torch.float64)
        angle = 2 * math.pi / window * torch.outer(time[: self.num_bins], time)
        # all bins but the first and the last stand for themselves and their mirror image
        double = torch.full((self.num_bins, 1), 2.0, dtype=torch.float64)
        double[0] = double[-1] = 1.0
        hann = torch.hann_window(window, dtype=torch.float64)
        overlap = hann.square().view(-1, hop).sum(0).repeat(window // hop)
        basis = torch.cat([double * angle.cos(), -double * angle.sin()]) * hann / overlap
        self.register_buffer("basis", (basis / math.sqrt(window)).float(), persistent=False)
        self.basis: Tensor

    @property
    def delay(self) -> int:
        """Samples by which the result is late."""
        return self.window - self.hop

    def init_state(self, batch: int) -> InverseSTFTState:
        return InverseSTFTState(self.basis.new_zeros(batch, self.delay))

    def step(self, x: Tensor, state: InverseSTFTState) -> tuple[Tensor, InverseSTFTState]:
        """Transform spectra (batch, spectra, 2 * (window / 2 + 1)), real parts first.

        Returns:
            (batch, spectra * hop) float32, and the state.

        Raises:
            ShapeError: no spectra, or of another width.
        """
        if x.dim() != 3 or x.shape[1] < 1 or x.shape[2] != 2 * self.num_bins:
            raise ShapeError(
                f"InverseSTFT takes (batch, spectra >= 1, {2 * self.num_bins}), got {(*x.shape,)}"
            )
        # true float32, as in CausalSTFT
        with full_precision(x.device.type):
            frames = x.float() @ self.basis
        done = x.shape[1] * self.hop
        if exporting():
            total = self._add_up(frames, state.tail)
            samples, tail = torch.split(total, [done, self.delay], dim=1)
            return samples, InverseSTFTState(tail)
        overlaps = self.window // self.hop
        parts = frames.view(*x.shape[:2], overlaps, self.hop).unbind(2)
        # part i of a frame belongs i hops later than its first one
        total = F.pad(state.tail, (0, done)).view(len(x), -1, self.hop)
        for i, part in enumerate(parts):
            total = total + F.pad(part, (0, 0, i, overlaps - 1 - i))
        samples = total.flatten(1)
        return samples[:, :done].clone(), InverseSTFTState(samples[:, done:].clone())

    def _add_up(self, frames: Tensor, tail: Tensor) -> Tensor:
        """Add frames (batch, spectra, window) to ``tail`` as one product: (batch, samples)."""
        num_frames, overlaps = frames.shape[1], self.window // self.hop
        held = overlaps - 1
        parts = torch.cat([tail.view(len(tail), held, -1), frames.view(len(tail), -1, self.hop)], 1)
        place = torch.arange(num_frames).unsqueeze(1) + torch.arange(overlaps)
        place = torch.cat([torch.arange(held), place.flatten()])
        where = torch.arange(num_frames + held).unsqueeze(1) == place
        return (where.to(frames.dtype) @ parts).flatten(1)
