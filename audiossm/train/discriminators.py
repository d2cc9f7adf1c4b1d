"""Networks that tell recorded samples from decoded ones; thrown away after training."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

__all__ = ["Discriminators", "Judgement", "PeriodDiscriminator", "SpectrumDiscriminator"]

PERIODS = (2, 3, 5, 7, 11)
WINDOWS = (1024, 512, 256)


class Judgement(NamedTuple):
    """What one network makes of a signal."""

    scores: Tensor  # (rows, n): high where it sounds recorded
    features: tuple[Tensor, ...]  # of every layer but the last


def conv(inner: int, outer: int, kernel: tuple[int, int], **options: tuple[int, int]) -> nn.Conv2d:
    """Return a weight-normed convolution."""
    made: nn.Conv2d = weight_norm(nn.Conv2d(inner, outer, kernel, **options))  # type: ignore[arg-type]
    return made


class PeriodDiscriminator(nn.Module):
    """Convolutions over samples that are a period apart (HiFi-GAN, arXiv:2010.05646).

    Args:
        period: samples.
        channels: of the first layer; each has four times those of the one before.
        widest: but not more than this.
    """

    def __init__(self, period: int, channels: int = 8, widest: int = 256) -> None:
        super().__init__()
        self.period = period
        widths = [1, *(min(channels * 4**i, widest) for i in range(5))]
        strides = [(3, 1)] * 4 + [(1, 1)]
        self.layers = nn.ModuleList(
            conv(inner, outer, (5, 1), stride=stride, padding=(2, 0))
            for inner, outer, stride in zip(widths, widths[1:], strides, strict=False)
        )
        self.last = conv(widths[-1], 1, (3, 1), padding=(1, 0))

    def forward(self, x: Tensor) -> Judgement:
        """Judge (rows, samples)."""
        folded = F.pad(x, (0, -x.shape[1] % self.period)).view(len(x), 1, -1, self.period)
        return judge(folded, self.layers, self.last, slope=0.1)


class SpectrumDiscriminator(nn.Module):
    """Convolutions over the complex spectra of one resolution (EnCodec, arXiv:2210.13438).

    Args:
        window: samples; the hop is a quarter of it.
        channels: of every layer.
    """

    def __init__(self, window: int, channels: int = 16) -> None:
        super().__init__()
        self.window = window
        self.register_buffer("hann", torch.hann_window(window), persistent=False)
        self.hann: Tensor
        dilated = (
            conv(channels, channels, (3, 9), stride=(1, 2), dilation=(d, 1), padding=(d, 4))
            for d in (1, 2, 4)
        )
        self.layers = nn.ModuleList(
            [
                conv(2, channels, (3, 9), padding=(1, 4)),
                *dilated,
                conv(channels, channels, (3, 3), padding=(1, 1)),
            ]
        )
        self.last = conv(channels, 1, (3, 3), padding=(1, 1))

    def forward(self, x: Tensor) -> Judgement:
        """Judge (rows, samples)."""
        with torch.autocast(x.device.type, enabled=False):
            spectra = torch.stft(
                x.float(),
                self.window,
                self.window // 4,
                window=self.hann,
                center=False,
                normalized=True,
                return_complex=True,
            )
            # (rows, 2, frames, bins), compressed: weak bins are heard too
            parts = torch.view_as_real(spectra).permute(0, 3, 2, 1).contiguous()
            parts = parts * (parts.square().sum(1, keepdim=True) + 1e-3).pow(-0.25)
        return judge(parts, self.layers, self.last, slope=0.2)


def judge(x: Tensor, layers: nn.ModuleList, last: nn.Module, slope: float) -> Judgement:
    """Run layers in order and keep what each one gives."""
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), slope)
        features.append(x)
    return Judgement(last(x).flatten(1), tuple(features))


class Discriminators(nn.Module):
    """Five periods and three resolutions, small ones: their cost is that of the whole stage."""

    def __init__(self) -> None:
        super().__init__()
        self.judges = nn.ModuleList(
            [
                *(PeriodDiscriminator(period) for period in PERIODS),
                *(SpectrumDiscriminator(window) for window in WINDOWS),
            ]
        )

    def forward(self, x: Tensor) -> tuple[Judgement, ...]:
        """Judge (rows, samples), at least the longest window."""
        return tuple(judge(x) for judge in self.judges)
