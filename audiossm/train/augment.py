"""Augmentation on the device, row by row: gain, noise, rooms, telephones, other throats, masks."""

import torch
from torch import Tensor

from audiossm.train.corpus import Corpus
from audiossm.train.ranks import ALONE, Ranks

__all__ = ["KNOTS", "augment_audio", "colour", "filter_rows", "mask_spectra", "warp_spectra"]

KNOTS = 10  # of a microphone's curve: the first at 0 Hz, the last at half the rate


def chance(rows: int, probability: float, device: torch.device, ranks: Ranks) -> Tensor:
    """Return (rows, 1) of zeros and ones."""
    return (ranks.rand(rows, 1, device=device) < probability).float()


def augment_audio(
    audio: Tensor, noise: Corpus | None, strength: float = 1.0, ranks: Ranks = ALONE
) -> Tensor:
    """Change (rows, samples) as a room, a microphone, a telephone, noise and a volume knob would.

    Args:
        audio: float32 in [-1, 1].
        noise: recordings of noise at 16 kHz, or None.
        strength: scales every probability; 0 returns ``audio`` as it is.
        ranks: whose rows these are.
    """
    rows, samples = audio.shape
    device = audio.device
    if strength == 0:
        return audio
    level = audio.square().mean(1, keepdim=True).sqrt().clamp(min=1e-4)
    wet = chance(rows, 0.2 * strength, device, ranks)
    audio = torch.lerp(audio, reverberate(audio, ranks), wet)
    coloured = chance(rows, 0.5 * strength, device, ranks)
    audio = torch.lerp(audio, colour(audio, ranks), coloured)
    phone = chance(rows, 0.1 * strength, device, ranks)
    audio = torch.lerp(audio, telephone(audio), phone)
    if noise is not None:
        loud = level * 10 ** (-ranks.uniform(5, 25, rows, device=device) / 20)
        audio = audio + chance(rows, 0.3 * strength, device, ranks) * loud * cut_noise(
            noise, rows, samples, ranks
        )
    hiss = level * 10 ** (-ranks.uniform(15, 45, rows, device=device) / 20)
    audio = audio + chance(rows, 0.3 * strength, device, ranks) * hiss * ranks.randn(
        rows, samples, device=device
    )
    gain = 10 ** (ranks.uniform(-36 * strength, 6 * strength, rows, device=device) / 20)
    return (audio * gain).clamp(-1, 1)


def cut_noise(noise: Corpus, rows: int, samples: int, ranks: Ranks = ALONE) -> Tensor:
    """Cut a random stretch of noise for each row, at unit level."""
    starts = ranks.randint(len(noise.audio), rows, 1, device=noise.audio.device)
    index = (starts + torch.arange(samples, device=starts.device)) % len(noise.audio)
    cut = noise.audio[index].float() / 32768.0
    return cut / cut.square().mean(1, keepdim=True).sqrt().clamp(min=1e-4)


def reverberate(audio: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """Put each row in a room of its own: a direct path and a tail of decaying noise."""
    rows, samples = audio.shape
    taps = 6400  # 0.4 s at 16 kHz
    time = torch.arange(taps, device=audio.device) / 16000
    decay_s = ranks.uniform(0.1, 0.5, rows, device=audio.device)
    tail = ranks.randn(rows, taps, device=audio.device) * torch.exp(-6.9 * time / decay_s)
    tail = tail / tail.square().sum(1, keepdim=True).sqrt()
    tail = tail * ranks.uniform(0.2, 0.8, rows, device=audio.device)
    tail[:, 0] = 1.0
    length = samples + taps
    spectrum = torch.fft.rfft(audio, length) * torch.fft.rfft(tail, length)
    wet: Tensor = torch.fft.irfft(spectrum, length)
    return wet[:, :samples]


def colour(audio: Tensor, ranks: Ranks = ALONE, spread_db: float = 5.0) -> Tensor:
    """Hear each row through a microphone of its own: a smooth curve, up or down by ``spread_db``.

    Its knots have this standard deviation in dB.
    """
    return filter_rows(audio, ranks.randn(len(audio), KNOTS, device=audio.device) * spread_db)


def filter_rows(audio: Tensor, knots: Tensor) -> Tensor:
    """Filter each row of (rows, samples) by a curve through its knots (rows, ``KNOTS``), in dB."""
    spectrum = torch.fft.rfft(audio)
    curve = torch.nn.functional.interpolate(
        knots.unsqueeze(1), spectrum.shape[1], mode="linear", align_corners=True
    )
    heard: Tensor = torch.fft.irfft(spectrum * 10 ** (curve[:, 0] / 20), audio.shape[1])
    return heard


def telephone(audio: Tensor) -> Tensor:
    """Keep about 300 to 3400 Hz."""
    spectrum = torch.fft.rfft(audio)
    hertz = torch.linspace(0, 8000, spectrum.shape[1], device=audio.device)
    band = torch.sigmoid((hertz - 300) / 40) * torch.sigmoid((3400 - hertz) / 60)
    narrow: Tensor = torch.fft.irfft(spectrum * band, audio.shape[1])
    return narrow


def warp_spectra(spectra: Tensor, most: float, ranks: Ranks = ALONE) -> Tensor:
    """Give each row a throat of another length (Jaitly and Hinton, 2013).

    Bin k becomes what lay at k times a factor of the row's own; pitch moves along.

    Args:
        spectra: (rows, spectra, 2 * bins), windows that begin at time 0: ``CausalSTFT``'s.
        most: factors are from 1 - most to 1 + most; 0 returns ``spectra`` as it is.
        ranks: whose rows these are.
    """
    if most == 0:
        return spectra
    rows, _, width = spectra.shape
    bins = torch.arange(width // 2, device=spectra.device)
    factors = 1 + most * (2 * ranks.rand(rows, 1, device=spectra.device) - 1)
    place = (bins * factors).clamp(max=width // 2 - 1)
    low = place.long().clamp(max=width // 2 - 2)
    # seen from the window's middle, neighbours have nearly one phase
    signs = (1 - 2 * (bins % 2)).float()
    centred = torch.unflatten(spectra, -1, (2, -1)) * signs
    below, above = (
        centred.gather(-1, (low + step).view(rows, 1, 1, -1).expand_as(centred)) for step in (0, 1)
    )
    between = torch.lerp(below, above, (place - low).view(rows, 1, 1, -1))
    return (between * signs).flatten(-2)


def mask_spectra(spectra: Tensor, amount: float = 1.0, ranks: Ranks = ALONE) -> Tensor:
    """Silence random bands and stretches of (rows, spectra, 2 * bins) (SpecAugment, 1904.08779).

    At ``amount`` 1: two bands of up to 60 bins (1.9 kHz), and ten stretches of up to 2 % of the row
    each.
    """
    rows, frames, width = spectra.shape
    device = spectra.device
    keep_bins = keep_spans(rows, width // 2, 2, amount * 60, device, ranks)
    keep_time = keep_spans(rows, frames, 10, amount * 0.02 * frames, device, ranks)
    return spectra * keep_bins.repeat(1, 2).unsqueeze(1) * keep_time.unsqueeze(2)


def keep_spans(
    rows: int,
    length: int,
    spans: int,
    widest: float,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Return (rows, length) of ones with ``spans`` random runs of zeros in each row."""
    widths = ranks.rand(rows, spans, 1, device=device) * widest
    starts = ranks.rand(rows, spans, 1, device=device) * (length - widths)
    at = torch.arange(length, device=device)
    inside = (at >= starts) & (at < starts + widths)
    return (~inside.any(1)).float()
