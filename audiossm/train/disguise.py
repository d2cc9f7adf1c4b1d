"""Disguises: people heard as others, with throats and microphones of their own."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from audiossm.train.augment import KNOTS, filter_rows

__all__ = ["Disguise", "Wardrobe", "move_formants"]

WINDOW, HOP = 512, 128  # samples at 16 kHz: 32 and 8 ms
LIFTER = 40  # samples: what of a cepstrum is the throat's, below a pitch of 400 Hz
ROUNDS = 4  # in which an envelope comes to lie on the harmonics
MOST_DB = 20.0  # that a throat adds or takes anywhere
WIDEST = 2.5  # sigmas


@dataclass(frozen=True)
class Wardrobe:
    """What disguises are drawn from.

    Attributes:
        colour_db: standard deviation of a microphone's curve at its knots, in dB; 0 for none.
        throat: standard deviation of the logarithm of formants' factors, which goes no further than
            2.5 of these.
        follow: at another speed pitch is multiplied by it, formants by this power of it. Among
            people it is about 0.3; by resampling alone it is 1.
    """

    colour_db: float = 0.0
    throat: float = 0.0
    follow: float = 1.0

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Wardrobe":
        """Return that of the table ``data`` of recipes/generate/config.toml."""
        return cls(data["colour_db"], data["throat"], data["formants_follow"])

    @property
    def is_empty(self) -> bool:
        """Whether nobody is disguised."""
        return self == Wardrobe()


@dataclass(frozen=True)
class Disguise:
    """A throat and a microphone for each recording; those of one person at a speed have the same.

    Attributes:
        throats: (items,) float32: factors of the formants' frequencies.
        knots: (items, ``KNOTS``) float32: dB of the microphone's curve.
    """

    throats: Tensor
    knots: Tensor

    @classmethod
    def draw(cls, people: Sequence[str], wardrobe: Wardrobe, speed: float) -> "Disguise":
        """Give each of these people the disguise that is theirs at this speed.

        Args:
            people: who is heard, recording by recording; a recording's key where nobody knows who.
            wardrobe: what they are drawn from.
            speed: at which they are heard.
        """
        names, rows = np.unique(np.array(people), return_inverse=True)
        drawn = np.stack([draw_numbers(f"{name}@{speed:g}") for name in names])
        factors = np.exp(wardrobe.throat * drawn[:, 0].clip(-WIDEST, WIDEST))
        factors *= speed ** (wardrobe.follow - 1)
        knots = drawn[:, 1:] * wardrobe.colour_db
        throats = torch.from_numpy(factors.astype(np.float32)[rows])
        return cls(throats, torch.from_numpy(knots.astype(np.float32)[rows]))

    def wear(self, samples: Tensor, items: NDArray[np.int64]) -> Tensor:
        """Return (rows, samples) in [-1, 1] of these items as they sound in disguise."""
        where = torch.from_numpy(np.asarray(items))
        throats, knots = self.throats[where], self.knots[where]
        if bool((throats != 1).any()):
            samples = move_formants(samples, throats.to(samples.device))
        if bool(knots.any()):
            samples = filter_rows(samples, knots.to(samples.device))
        return samples.clamp(-1, 1)


def draw_numbers(name: str) -> NDArray[np.float64]:
    """Draw (1 + ``KNOTS``,) normal numbers that are always the same for a name."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big")).standard_normal(1 + KNOTS)


def move_formants(audio: Tensor, factors: Tensor) -> Tensor:
    """Multiply the frequencies of each row's formants; its pitch stays.

    The "true envelope" of each short-time spectrum (Röbel and Rodet, "Efficient spectral envelope
    estimation", DAFx 2005) is stretched, and the spectrum is filtered by what that changes.

    Args:
        audio: (rows, samples) float32 at 16 kHz.
        factors: (rows,) float32, above 0: 1.1 is a shorter throat.
    Returns:
        (rows, samples) float32; it looks ahead by half a window, 16 ms.
    """
    window = torch.hann_window(WINDOW, device=audio.device)
    padded = F.pad(audio, (0, max(WINDOW - audio.shape[1], 0)))  # a window at least
    spectra = torch.stft(padded, WINDOW, HOP, window=window, return_complex=True)
    logs = spectra.abs().clamp(min=1e-5).log().transpose(1, 2)  # (rows, spectra, bins)
    cepstra = lift(logs)
    for _ in range(ROUNDS - 1):
        cepstra = lift(torch.maximum(logs, torch.fft.rfft(cepstra, WINDOW).real))
    bins = logs.shape[-1]
    turns = torch.arange(bins, device=audio.device) * (2 * torch.pi / WINDOW)
    quefrencies = torch.arange(LIFTER + 1, device=audio.device)
    # a stretched envelope is that of cosines of other frequencies; beyond 8 kHz it is as there
    places = (turns / factors.unsqueeze(1)).clamp(max=torch.pi)
    changes = torch.cos(places.unsqueeze(1) * quefrencies.unsqueeze(1))
    changes = changes - torch.cos(turns * quefrencies.unsqueeze(1))
    gains = cepstra @ changes  # nepers
    most = MOST_DB * 0.1151  # nepers of a dB
    gains = gains.clamp(-most, most).exp().transpose(1, 2)
    moved: Tensor = torch.istft(spectra * gains, WINDOW, HOP, window=window, length=audio.shape[1])
    return moved


def lift(logs: Tensor) -> Tensor:
    """Return the low cepstra (.., ``LIFTER`` + 1) of log spectra: weights of cosines."""
    cepstra = torch.fft.irfft(logs)[..., : LIFTER + 1]
    return torch.cat([cepstra[..., :1], 2 * cepstra[..., 1:]], dim=-1)
