"""How far a decoded signal sounds from its original: the difference in loudness, as PESQ has it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["LoudnessLoss"]

WINDOW, HOP = 512, 256  # samples
LOWEST_HZ = 60.0
SPEECH_DB = 79.0  # sound pressure at which speech is listened to
ZWICKER = 0.23  # loudness over power
SONES = 0.1866  # P.862's scale at 16 kHz
MASKED = 0.25  # of the quieter loudness: a smaller difference isn't heard
LEAST_RATIO, MOST_RATIO = 3.0, 12.0  # of what was added, to the power of 1.2
LEAST_GAIN, MOST_GAIN = 3e-4, 5.0
SOON = (0.8, 0.16, 0.032, 0.008)  # how the gain of a frame follows that of itself and those before
WORST, EVERY = 20, 10  # frames in which the worst moments count most
LIMIT = 45.0  # of a frame's disturbance
DIFFERENT, ADDED = 0.15, 0.03  # points of the raw PESQ score for a disturbance


class LoudnessLoss(nn.Module):
    """The disturbance of ITU-T P.862 in a form that gradients go through.

    Power in bands of half a Bark, above the threshold in quiet, as loudness by Zwicker's law. What
    differs by less than a quarter of the quieter one is masked, what is added counts more, slow
    changes of level count little, and the worst moments of a third of a second most. Left out:
    alignment in time and of filters, for a codec has no reason to change these.

    Args:
        sample_rate: Hz.
        num_bands: up to half of that.
    """

    def __init__(self, sample_rate: int, num_bands: int = 49) -> None:
        super().__init__()
        hertz = torch.arange(WINDOW // 2 + 1, dtype=torch.float64) * sample_rate / WINDOW
        bands, middles, widths = bark_bands(hertz, num_bands)
        quiet = 10 ** (threshold_in_quiet(middles) / 10)
        # the law is steeper for deep tones, whose thresholds are high
        power = ZWICKER * (6 / (bark(middles) + 2)).clamp(1, 2).pow(0.15)
        named = {"hann": torch.hann_window(WINDOW, dtype=torch.float64), "bands": bands}
        named |= {"widths": widths, "quiet": quiet, "power": power}
        named |= {"sones": SONES * (quiet / 0.5).pow(power)}
        named |= {"soon": torch.tensor(SOON, dtype=torch.float64).flip(0).view(1, 1, -1)}
        for name, value in named.items():
            self.register_buffer(name, value.float(), persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return about the points that raw PESQ falls by, ().

        Args:
            output: (batch, samples), at least 512; computed in float32.
            target: (batch, samples), the original.
        """
        with torch.autocast(output.device.type, enabled=False):
            both = torch.cat([output.float(), target.float()])
            hann = self.get_buffer("hann")
            spectra = torch.stft(both, WINDOW, HOP, window=hann, center=False, return_complex=True)
            power = torch.view_as_real(spectra).square().sum(-1).transpose(1, 2)
            said, heard = (power @ self.get_buffer("bands")).chunk(2)
            # both are played as loud as makes what is loud in the original speech
            total = heard.sum(-1, keepdim=True)
            loud = total > total.mean(1, keepdim=True)
            level = (total * loud).sum(1, keepdim=True) / loud.sum(1, keepdim=True).clamp(min=1)
            played = 10 ** (SPEECH_DB / 10) / (level + 1e-3)
            said, heard = played * said, played * heard
            different, added = self.disturb(said * self.follow(said, heard), heard)
            # what is said in the pauses counts more
            pause = ((heard.sum(-1) + 1e5) / 1e7).pow(-0.04)
            return DIFFERENT * worst(pause * different) + ADDED * worst(pause * added)

    def follow(self, said: Tensor, heard: Tensor) -> Tensor:
        """Return each frame's gain (rows, frames, 1) that brings it to the original's level."""
        audible = [(x * (x > 100 * self.get_buffer("quiet"))).sum(-1) + 5e3 for x in (heard, said)]
        gain = F.pad((audible[0] / audible[1]).unsqueeze(1), (len(SOON) - 1, 0), value=1.0)
        smooth = F.conv1d(gain, self.get_buffer("soon")).clamp(LEAST_GAIN, MOST_GAIN)
        return smooth.transpose(1, 2)

    def disturb(self, said: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
        """Return what differs, and what is added, in each frame of (rows, frames, bands)."""
        widths = self.get_buffer("widths")
        a, b = self.loudness(said), self.loudness(heard)
        apart = ((a - b).abs() - MASKED * torch.minimum(a, b).detach()).clamp(min=0.0) * widths
        different = (apart.square().sum(-1) * widths.sum() + 1e-6).sqrt()
        ratio = ((said + 50) / (heard + 50)).detach().pow(1.2)
        added = (apart * ratio.clamp(max=MOST_RATIO) * (ratio > LEAST_RATIO)).sum(-1)
        return different, added

    def loudness(self, power: Tensor) -> Tensor:
        """Return sones a Bark of power (..., bands); nothing below the threshold (Zwicker)."""
        over = power / self.get_buffer("quiet")
        law = (0.5 + 0.5 * over.clamp(min=1.0)).pow(self.get_buffer("power")) - 1
        return self.get_buffer("sones") * law


def worst(disturbance: Tensor) -> Tensor:
    """Return the mean of frames (rows, frames) in which bad moments weigh more (L6, then L2)."""
    frames = (disturbance + 1e-3).clamp(max=LIMIT)
    pieces = frames.unfold(1, min(WORST, frames.shape[1]), EVERY)
    return pieces.pow(6).mean(-1).pow(1 / 3).mean(1).sqrt().mean()


def bark(hertz: Tensor) -> Tensor:
    """Return the critical-band rate of frequencies in Hz (Zwicker and Terhardt, 1980)."""
    return 13 * (7.6e-4 * hertz).atan() + 3.5 * (hertz / 7500).square().atan()


def threshold_in_quiet(hertz: Tensor) -> Tensor:
    """Return the sound pressure in dB from which on tones are heard (Terhardt, 1979)."""
    khz = hertz.clamp(min=20.0) / 1000
    ear = 6.5 * (-0.6 * (khz - 3.3).square()).exp()
    return 3.64 * khz.pow(-0.8) - ear + 1e-3 * khz.pow(4)


def bark_bands(hertz: Tensor, num_bands: int) -> tuple[Tensor, Tensor, Tensor]:
    """Share bins out to bands of one width in Bark.

    Returns:
        (bins, bands), shares of each bin; the bands' middles in Hz; their widths in Bark.
    """
    edges = torch.linspace(
        float(bark(hertz.new_tensor(LOWEST_HZ))),
        float(bark(hertz[-1])),
        num_bands + 1,
        dtype=torch.float64,
    )
    half = (hertz[1] - hertz[0]) / 2
    low, high = bark((hertz - half).clamp(min=0)), bark(hertz + half)
    inside = torch.minimum(high[:, None], edges[1:]) - torch.maximum(low[:, None], edges[:-1])
    shares = inside.clamp(min=0) / (high - low)[:, None]
    fine = torch.linspace(0, float(hertz[-1]), 8001, dtype=torch.float64)
    middles = fine[torch.searchsorted(bark(fine), (edges[1:] + edges[:-1]) / 2)]
    return shares, middles, edges.diff()
