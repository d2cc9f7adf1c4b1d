"""Periodic signals to learn from: tones without their fundamental, loops, beats to be counted.

Each comes as a plain signal, a sample or a few features a frame, and as audio at 16 kHz, which a
codec turns into frames of 320 samples.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "NONE",
    "PitchScale",
    "draw_beats",
    "draw_clicks",
    "draw_drums",
    "draw_loops",
    "draw_tones",
]

NONE = -1  # of labels: none is asked for
SAMPLE_RATE, FRAME_SIZE = 16000, 320


@dataclass(frozen=True)
class PitchScale:
    """Classes of a pitch, evenly spaced by its logarithm from ``low`` to ``high``."""

    low: float
    high: float
    classes: int = 96

    @property
    def cents(self) -> float:
        """Width of a class."""
        return 1200 * math.log2(self.high / self.low) / self.classes

    def classify(self, pitch: Tensor) -> Tensor:
        """Return the class of each pitch above 0, in its own unit."""
        place = 1200 * (pitch / self.low).log2() / self.cents
        return place.long().clamp(0, self.classes - 1)

    def read(self, logits: Tensor) -> Tensor:
        """Return the pitch that logits (..., classes) mean: a mean around the likeliest class."""
        best = logits.argmax(-1, keepdim=True)
        places = torch.arange(self.classes, device=logits.device)
        near = (places - best).abs() <= 2
        weights = logits.masked_fill(~near, -torch.inf).softmax(-1)
        return self.low * 2 ** (((places + 0.5) * weights).sum(-1) * self.cents / 1200)

    def right(self, logits: Tensor, pitch: Tensor) -> Tensor:
        """Return whether each lies within 50 cents, as raw pitch accuracy (RPA) counts."""
        return (1200 * (self.read(logits) / pitch).log2()).abs() <= 50


def uniform(rows: int, low: float, high: float, device: torch.device) -> Tensor:
    """Draw (rows, 1) between two numbers."""
    return low + (high - low) * torch.rand(rows, 1, device=device)


def draw_tones(
    rows: int, samples: int, low: float, high: float, device: torch.device, drift: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Draw tones of harmonics 2 to 6 with a glide and a vibrato, in noise of 0 to 10 dB below them.

    Args:
        rows: tones.
        samples: of each.
        low: of the pitch, in cycles per sample.
        high: like ``low``.
        device: where to.
        drift: octaves at most that a glide goes.

    Returns:
        the signals, (rows, samples) with a root mean square near 1; and the pitch at each sample.
    """
    time = torch.arange(samples, device=device) / samples
    start = uniform(rows, math.log2(low), math.log2(high), device)
    glide = uniform(rows, -drift, drift, device) * time
    waves = 2 * math.pi * (uniform(rows, 1, 4, device) * time + torch.rand(rows, 1, device=device))
    octaves = start + glide + uniform(rows, 0, 0.04, device) * waves.sin()
    # what leaves the range comes back as in a mirror
    span = math.log2(high / low)
    place = (octaves - math.log2(low)).remainder(2 * span)
    pitch = low * 2 ** torch.where(place > span, 2 * span - place, place)
    phase = 2 * math.pi * pitch.double().cumsum(1)
    tone = torch.zeros(rows, samples, device=device)
    for harmonic in range(2, 7):
        heard = (harmonic * pitch < 0.5).float()
        turn = (harmonic * phase).remainder(2 * math.pi).float()
        begin = 2 * math.pi * torch.rand(rows, 1, device=device)
        tone += heard * uniform(rows, 0.3, 1, device) * (turn + begin).sin()
    tone /= tone.square().mean(1, keepdim=True).sqrt()
    noise = 10 ** (-uniform(rows, 0, 10, device) / 20) * torch.randn_like(tone)
    return (tone + noise) / math.sqrt(1.5), pitch


def draw_loops(periods: Tensor, frames: int, channels: int = 4) -> Tensor:
    """Draw smooth patterns that repeat: (rows, frames, channels), variance near 1.

    Args:
        periods: (rows,), whole frames.
        frames: of each.
        channels: each has a pattern of its own.
    """
    rows, device = len(periods), periods.device
    time = torch.arange(frames, device=device) / periods.unsqueeze(1)
    loop = torch.zeros(rows, frames, channels, device=device)
    for harmonic in range(1, 5):
        size = torch.randn(rows, 1, channels, device=device) / harmonic**0.5
        begin = 2 * math.pi * torch.rand(rows, 1, channels, device=device)
        loop += size * (2 * math.pi * harmonic * time.unsqueeze(2) + begin).sin()
    return loop / loop.square().mean((1, 2), keepdim=True).sqrt()


def draw_onsets(
    rows: int, frames: int, shortest: float, longest: float, device: torch.device
) -> Tensor:
    """Draw where beats begin, in frames, (rows, beats): a tempo that changes, and jitter of 8 %.

    As many beats as the fastest row needs to fill ``frames``; other rows' last ones lie beyond.
    """
    beats = int(frames / shortest * 1.5) + 2
    place = torch.arange(beats, device=device) / beats
    change = 1 + uniform(rows, -0.15, 0.15, device) * (2 * math.pi * place).sin()
    jitter = 1 + 0.08 * torch.randn(rows, beats, device=device).clamp(-2, 2)
    gaps = uniform(rows, shortest / 0.7, longest, device) * change * jitter
    return gaps.cumsum(1) - gaps[:, :1] * torch.rand(rows, 1, device=device)


def count_beats(onsets: Tensor, frames: int) -> Tensor:
    """Return how many beats began up to each frame, (rows, frames)."""
    ends = torch.arange(1, frames + 1, device=onsets.device, dtype=onsets.dtype)
    return torch.searchsorted(onsets.contiguous(), ends.expand(len(onsets), -1).contiguous())


def draw_beats(rows: int, frames: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Draw noisy onsets 4 to 12 frames apart.

    Returns:
        (rows, frames, 1), pulses with noise; and how many began so far, (rows, frames).
    """
    counts = count_beats(draw_onsets(rows, frames, 4, 12, device), frames)
    began = torch.diff(counts, dim=1, prepend=torch.zeros_like(counts[:, :1]))
    loud = 1 + 0.2 * torch.randn(rows, frames, device=device)
    noise = 0.15 * torch.randn(rows, frames, device=device)
    return (began * loud + noise).unsqueeze(2), counts


def strike(onsets: Tensor, samples: int, kinds: Tensor) -> Tensor:
    """Return audio (rows, samples) with a drum at each onset, in frames; of kind 0, 1 or 2."""
    rows, device = len(onsets), onsets.device
    size = 1600
    time = torch.arange(size, device=device) / SAMPLE_RATE
    hum = (2 * math.pi * 160 * time).sin() * (-time * 40).exp()
    ring = (2 * math.pi * 900 * time).sin() * (-time * 90).exp()
    rush = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device)
    sounds = torch.stack([hum, ring, 0.3 * rush * (-time * 120).exp()])
    starts = (onsets * FRAME_SIZE).long().clamp(0, samples)
    places = (starts.unsqueeze(2) + torch.arange(size, device=device)).flatten(1)
    audio = torch.zeros(rows, samples + size, device=device)
    audio.scatter_add_(1, places, sounds[kinds].flatten(1))
    return 0.3 * audio[:, :samples]


def draw_clicks(rows: int, frames: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Draw audio of beats 6 to 20 codec frames apart, in some noise.

    Returns:
        (rows, samples); and how many began so far, (rows, frames).
    """
    onsets = draw_onsets(rows, frames, 6, 20, device)
    kinds = torch.randint(0, 3, (rows, 1), device=device).expand(onsets.shape)
    audio = strike(onsets, frames * FRAME_SIZE, kinds)
    return audio + 0.003 * torch.randn_like(audio), count_beats(onsets, frames)


def draw_drums(periods: Tensor, frames: int) -> Tensor:
    """Draw audio (rows, samples) of 2 to 5 drums a period, which repeat; periods are in frames."""
    rows, device = len(periods), periods.device
    again = frames // int(periods.min()) + 1
    struck = torch.rand(rows, 5, device=device).sort(1).values
    kinds = torch.randint(0, 3, (rows, 5), device=device)
    struck = torch.where(
        torch.arange(5, device=device) < torch.randint(2, 6, (rows, 1), device=device),
        struck,
        torch.inf,
    )
    turn = torch.arange(again, device=device).view(1, -1, 1)
    onsets = ((turn + struck.unsqueeze(1)) * periods.view(-1, 1, 1)).flatten(1)
    onsets = onsets.clamp(max=frames)  # those that there are none of begin at the end
    return strike(onsets, frames * FRAME_SIZE, kinds.repeat(1, again))
