"""The voice's source: a train of pulses at the pitch that codes tell, and its spectra."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiossm.codec.pitch import Pitch, PitchConfig, PitchReader
from audiossm.codec.stft import CausalSTFT, STFTState
from audiossm.errors import ConfigError
from audiossm_kernels.operators import exporting

__all__ = ["Source", "SourceConfig", "SourceState"]

# a turn, in the whole numbers that phases are summed in
TURN = 2**24
# the STFT of unit white noise has bins of about sqrt(3 / 8)
LEVEL = math.sqrt(8 / 3)


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Sizes of the source."""

    pitch: PitchConfig = field(default_factory=PitchConfig)
    highest_hz: float = 7600.0  # of the harmonics

    def __post_init__(self) -> None:
        top = float(self.pitch.frequencies()[-1])
        if self.highest_hz < top:
            raise ConfigError(
                f"source.highest_hz is {self.highest_hz}, must be at least the highest pitch, "
                f"{top:.0f}"
            )


class SourceState(NamedTuple):
    """What the source remembers."""

    frames: Tensor  # (batch, context - 1, latent_dim): that a pitch is read from
    phase: Tensor  # (batch,) float32: whole numbers below ``TURN``
    stft: STFTState


class Source(nn.Module):
    """Pulses at the pitch of a voice: sums of all its harmonics, as in source-filter synthesis.

    A network of convolutions can't keep a tone's phase: it sounds hoarse where neighbouring windows
    cancel each other (neural source-filter models, arXiv:1904.12088, found the same). Phases are
    summed here in whole numbers, so they are the same however a stream is cut.

    Args:
        config: sizes.
        latent_dim: channels of a frame.
        window: samples of a spectrum.
        hop: samples between two.
        hops: spectra for each frame.
        sample_rate: Hz.
    """

    def __init__(
        self,
        config: SourceConfig,
        latent_dim: int,
        *,
        window: int,
        hop: int,
        hops: int,
        sample_rate: int,
    ) -> None:
        super().__init__()
        self.config, self.hop = config, hop
        self.reader = PitchReader(config.pitch, latent_dim, hops)
        self.stft = CausalSTFT(window, hop)
        hertz = config.pitch.frequencies()
        speeds = (hertz / sample_rate * TURN).round().long()
        harmonics = (config.highest_hz / hertz).floor().long()
        self.register_buffer("speeds", speeds, persistent=False)
        self.register_buffer("harmonics", harmonics, persistent=False)
        self.register_buffer("places", torch.arange(1, hop + 1), persistent=False)
        self.speeds: Tensor  # (num_positions,): what a sample adds to the phase
        self.harmonics: Tensor  # (num_positions,): how many there are below the highest
        self.places: Tensor  # (hop,)

    def init_state(self, batch: int) -> SourceState:
        """Return what the source remembers before a stream's first frame."""
        frames = self.reader.init_state(batch)
        return SourceState(frames, frames.new_zeros(batch), self.stft.init_state(batch))

    def step(
        self, x: Tensor, state: SourceState, pitch: Pitch | None = None
    ) -> tuple[Tensor, SourceState]:
        """Sound for frames (batch, frames, latent_dim).

        Args:
            x: de-quantised codes.
            state: of the stream so far.
            pitch: known already; else it is read from ``x``.

        Returns:
            spectra (batch, frames * hops, 2 * bins), real parts first, of about unit magnitude
            where there is a voice; and the state.
        """
        if pitch is None:
            logits, frames = self.reader.step(x, state.frames)
            pitch = self.reader.choose(logits)
        else:
            _, frames = self.reader.join(x, state.frames)
        samples, phase = self.sound(pitch, state.phase)
        spectra, stft = self.stft.step(samples, state.stft)
        return spectra, SourceState(frames, phase, stft)

    def sound(self, pitch: Pitch, phase: Tensor) -> tuple[Tensor, Tensor]:
        """Turn pitches into samples (batch, hops * hop), and tell the phase after them.

        A phase begins anew after each hop without a voice: a stream that is entered in its middle
        then soon sounds as from its beginning.
        """
        # a graph makes such tables when it is loaded, and knows nothing of frames then
        tables = self.speeds, 2 * self.harmonics + 1, (2 * self.harmonics.float()).rsqrt()
        positions = pitch.position.flatten()
        speed, many, level = (  # (batch, hops, 1) each
            table.index_select(0, positions).view(*pitch.position.shape, 1) for table in tables
        )
        steps = self.hop * speed
        ends = phase.long().view(-1, 1, 1) + steps.cumsum(1)
        anew, last = last_marked(ends.squeeze(2), pitch.voicing < 0.5)
        begins = ends - steps - anew.unsqueeze(2)
        phases = (begins + speed * self.places) % TURN
        # the sum of cosines is a quotient of sines (Dirichlet's kernel), even about 0
        phases = torch.minimum(phases, TURN - phases).clamp(min=1)
        many = (phases * many + TURN) % (2 * TURN) - TURN
        kernel = (many.float() * (math.pi / TURN)).sin() / (phases.float() * (math.pi / TURN)).sin()
        level = LEVEL * pitch.voicing.unsqueeze(2) * level
        samples = level * (kernel - 1)
        return samples.flatten(1), ((ends[:, -1] - last).flatten() % TURN).float()


def last_marked(x: Tensor, marked: Tensor) -> tuple[Tensor, Tensor]:
    """Return the latest marked value before each place of ``x`` (batch, n), which grows; or 0.

    And that of all: (batch, 1).
    """
    values, places = x * marked, x.shape[1]
    if exporting():  # of few places; the format has no running maximum
        before = torch.ones(places + 1, places, dtype=x.dtype).tril(-1)
        latest = (values.unsqueeze(1) * before).amax(-1)
    else:
        latest = F.pad(values.cummax(1).values, (1, 0))
    before_each, last = torch.split(latest, [places, 1], dim=1)
    return before_each, last
