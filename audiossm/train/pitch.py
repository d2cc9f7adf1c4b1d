"""The pitch of recordings, as the truth that a codec's source learns from.

``audiossm.evaluate.pitch`` has a better and slower one: it takes a CPU a second for some seconds of
speech, and a step of training has a millisecond for a quarter of a minute.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiossm.codec.pitch import Pitch, PitchConfig
from audiossm.train.ranks import ALONE, Ranks

__all__ = ["PitchLoss", "PitchTracker"]

LOWEST, HIGHEST = 60.0, 480.0  # Hz
SPAN_S = 0.03  # compared with itself, later
# what an octave down costs in correlation, as in Boersma (1993)
OCTAVE_COST = 0.02
VOICED = 0.55  # least correlation of a voice
QUIET = 1e-3  # least level of a voice
MEDIAN = 9  # hops


class PitchTracker(nn.Module):
    """Normalised cross-correlation, its highest peak, and a median: for batches, on any device.

    Args:
        sample_rate: Hz.
        hop: samples between two pitches.
    """

    def __init__(self, sample_rate: int, hop: int) -> None:
        super().__init__()
        self.hop, self.sample_rate = hop, sample_rate
        self.least, self.most = int(sample_rate / HIGHEST), int(sample_rate / LOWEST) + 1
        self.span = int(SPAN_S * sample_rate)
        lags = torch.arange(self.least, self.most + 1)
        cost = OCTAVE_COST * (lags / self.least).log2()
        self.register_buffer("lags", lags.float(), persistent=False)
        self.register_buffer("cost", cost, persistent=False)
        self.lags: Tensor
        self.cost: Tensor

    @torch.no_grad()
    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Track (rows, samples), a multiple of the hop.

        Returns:
            Hz and whether there is a voice, (rows, samples / hop) each, at the middle of each hop.
        """
        reach = self.span + self.most
        before = (reach - self.hop) // 2
        with torch.autocast(audio.device.type, enabled=False):
            x = F.pad(audio.float(), (before, reach - before))
            frames = x.unfold(1, reach, self.hop)[:, : audio.shape[1] // self.hop]
            frames = frames - frames.mean(-1, keepdim=True)
            size = 2 ** (reach - 1).bit_length()
            head = torch.fft.rfft(frames[..., : self.span], size)
            products = torch.fft.irfft(head.conj() * torch.fft.rfft(frames, size), size)
            power = F.pad(frames.square().cumsum(-1), (1, 0))
            energy = power[..., self.span :] - power[..., : reach - self.span + 1]
            lags = slice(self.least, self.most + 1)
            scale = (energy[..., :1] * energy[..., lags]).clamp(min=1e-12).sqrt()
            alike = products[..., lags] / scale
            inner = alike[..., 1:-1]
            peak = (inner >= alike[..., :-2]) & (inner >= alike[..., 2:])
            score = torch.where(peak, inner - self.cost[1:-1], -1.0)
            best = score.argmax(-1, keepdim=True)
            left, middle, right = (alike.gather(-1, best + i).squeeze(-1) for i in range(3))
            bend = (2 * middle - left - right).clamp(min=1e-6)
            lag = self.lags[best.squeeze(-1) + 1] + (0.5 * (right - left) / bend).clamp(-0.5, 0.5)
            level = (energy[..., 0] / self.span).sqrt()
            voiced = (middle > VOICED) & (level > QUIET) & peak.gather(-1, best).squeeze(-1)
            # unvoiced hops take no part: a median of the voiced ones around each
            hertz = torch.where(voiced, self.sample_rate / lag, torch.nan)
            near = F.pad(hertz, (MEDIAN // 2, MEDIAN // 2), value=torch.nan).unfold(1, MEDIAN, 1)
            most = near.isfinite().sum(-1) > MEDIAN // 2
            hertz = near.nanmedian(-1).values.nan_to_num(LOWEST)
        return hertz.clamp(LOWEST, HIGHEST), most


class PitchLoss(nn.Module):
    """Cross-entropies of a reader's logits: of the bins, where there is a voice, and of voicing.

    The truth is a Gaussian of one bin (as in arXiv:1802.06182), so that a parabola through three
    logits finds its middle.

    Args:
        config: of the reader.
        ranks: the processes whose rows together are a batch.
    """

    def __init__(self, config: PitchConfig, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.config, self.ranks = config, ranks
        self.register_buffer("bins", torch.arange(config.num_bins).float(), persistent=False)
        self.register_buffer("hertz", config.frequencies().float(), persistent=False)
        self.bins: Tensor  # (num_bins,)
        self.hertz: Tensor  # (num_positions,)

    def forward(self, logits: Tensor, hertz: Tensor, voiced: Tensor) -> Tensor:
        """Compare (rows, hops, num_bins + 1) with (rows, hops) each."""
        place = self.config.bins(hertz).unsqueeze(-1)
        truth = (-0.5 * (self.bins - place).square()).softmax(-1)
        apart = -(truth * logits[..., :-1].log_softmax(-1)).sum(-1)
        weight = voiced.float()
        bins = (weight * apart).sum() / self.count(voiced)
        return bins + F.binary_cross_entropy_with_logits(logits[..., -1], weight)

    def right(self, pitch: Pitch, hertz: Tensor, voiced: Tensor) -> Tensor:
        """Return the share of voiced hops whose pitch is within 3 %."""
        found = self.hertz[pitch.position]
        good = ((found / hertz - 1).abs() < 0.03) & voiced
        return good.sum() / self.count(voiced)

    def count(self, voiced: Tensor) -> Tensor:
        """Return how many hops are voiced, in the mean over processes, ()."""
        return self.ranks.mean(voiced.sum().float()).clamp(min=1 / self.ranks.count)
