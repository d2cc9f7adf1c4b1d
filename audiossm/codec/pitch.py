"""The pitch that a decoder reads out of codes, in whole numbers: the same however frames come."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from audiossm.errors import ConfigError
from audiossm_kernels.state import full_precision

__all__ = ["Pitch", "PitchConfig", "PitchReader"]

# What a value of 1 is in whole numbers. Products of bytes are exact in float32 while their sums
# stay below 2^24, so neither order nor device matters.
INPUT_ONE, WEIGHT_ONE, HIDDEN_ONE = 4, 128, 16
MAX_BYTE = 255.0
MAX_HIDDEN = 256
# positions between two neighbouring bins
STEPS = 16


@dataclass(frozen=True, kw_only=True)
class PitchConfig:
    """Sizes of the pitch reader."""

    context: int = 6  # frames, with the newest, that a pitch is read from
    d_hidden: int = 192
    lowest_hz: float = 60.0
    bins_per_octave: int = 32
    num_bins: int = 96

    def __post_init__(self) -> None:
        if self.context < 1 or self.num_bins < 3 or self.bins_per_octave < 1:
            raise ConfigError(
                f"source.pitch: context {self.context}, num_bins {self.num_bins} and "
                f"bins_per_octave {self.bins_per_octave} must be at least 1, 3 and 1"
            )
        if not 1 <= self.d_hidden <= MAX_HIDDEN:
            raise ConfigError(
                f"source.pitch.d_hidden is {self.d_hidden}, must lie between 1 and {MAX_HIDDEN}"
            )

    @property
    def num_positions(self) -> int:
        """Pitches that can be told apart."""
        return STEPS * (self.num_bins - 1) + 1

    def frequencies(self) -> Tensor:
        """Return the frequency of every position, (num_positions,) float64, in Hz."""
        octaves = torch.arange(self.num_positions, dtype=torch.float64)
        return self.lowest_hz * 2 ** (octaves / (STEPS * self.bins_per_octave))

    def bins(self, hertz: Tensor) -> Tensor:
        """Return where frequencies lie among the bins, from 0 to num_bins - 1, as fractions."""
        bins = self.bins_per_octave * (hertz / self.lowest_hz).clamp(min=1e-3).log2()
        return bins.clamp(0, self.num_bins - 1)


class Pitch(NamedTuple):
    """A pitch for each hop."""

    position: Tensor  # (batch, hops) int64: an index of ``PitchConfig.frequencies()``
    voicing: Tensor  # (batch, hops) float32 from 0 to 1: how much of a voice there is


class PitchReader(nn.Module):
    """De-quantised frames to pitches, by a network whose every number is whole.

    A pitch is summed to a phase, and a sum forgets nothing: a rounding that depended on how a
    stream is cut would be heard ever after. So weights and activations are bytes, and the finest
    step of a pitch, 2.3 cents by default, is looked up.

    Args:
        config: sizes.
        latent_dim: channels of a frame; values are multiples of 1/4 (others are rounded).
        hops: pitches for each frame.
    """

    def __init__(self, config: PitchConfig, latent_dim: int, hops: int) -> None:
        super().__init__()
        self.config, self.latent_dim, self.hops = config, latent_dim, hops
        sizes = [
            config.context * latent_dim,
            config.d_hidden,
            config.d_hidden,
            hops * (config.num_bins + 1),
        ]
        self.layers = nn.ModuleList(
            nn.Linear(d_in, d_out) for d_in, d_out in zip(sizes, sizes[1:], strict=False)
        )
        for layer in self.linears():
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)

    def linears(self) -> list[nn.Linear]:
        """The layers, in order."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    @property
    def steps(self) -> dict[str, float]:
        """The weights, by name, that are rounded to multiples of a step, and this step."""
        return {f"layers.{i}.weight": 1 / WEIGHT_ONE for i in range(len(self.layers))}

    def init_state(self, batch: int) -> Tensor:
        """Return the frames before the first: (batch, context - 1, latent_dim) zeros."""
        like = self.linears()[0].bias
        return like.new_zeros(batch, self.config.context - 1, self.latent_dim)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Read frames (batch, frames, latent_dim).

        Returns:
            logits (batch, frames * hops, num_bins + 1) float32, those of the bins before that of
            a voice; and the newest frames.
        """
        frames, tail = self.join(x, state)
        # (batch, frames, context * latent_dim), oldest first
        if frames.shape[1] == self.config.context:
            near = frames.flatten(1).unsqueeze(1)
        else:
            near = frames.unfold(1, self.config.context, 1).transpose(-1, -2).flatten(-2)
        with full_precision(x.device.type):
            x = whole(INPUT_ONE * near)
            one = INPUT_ONE * WEIGHT_ONE
            for layer in self.linears():
                last = layer is self.layers[-1]
                # a power of two: sums of whole numbers over it are as exact as they
                scale = (1 if last else HIDDEN_ONE) / one
                weight = whole((WEIGHT_ONE * layer.weight).clamp(-127, 127)) * scale
                bias = whole(one * layer.bias.clamp(-8, 8)) * scale
                x = x @ weight.T + bias
                if not last:
                    x = whole(x).clamp(0.0, MAX_BYTE)
                    one = HIDDEN_ONE * WEIGHT_ONE
        return x.view(len(x), -1, self.config.num_bins + 1), tail

    def join(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Put frames behind those before them; and return the newest, which is the next state."""
        frames = torch.cat([state, x.float()], dim=1)
        return frames, frames[:, frames.shape[1] - self.config.context + 1 :].clone()

    def choose(self, logits: Tensor) -> Pitch:
        """Return the likeliest pitches; between bins a parabola decides, as for a Gaussian."""
        likely = logits[..., :-1]
        top = likely.argmax(dim=-1, keepdim=True)
        inside = top.clamp(1, self.config.num_bins - 2)
        around = torch.arange(-1, 2, device=inside.device)
        left, middle, right = torch.split(likely.gather(-1, inside + around), 1, dim=-1)
        bend = (2 * middle - left - right).clamp(min=2**-10)
        shift = (STEPS / 2 * (right - left) / bend).round().clamp(-STEPS / 2, STEPS / 2)
        shift = torch.where(top == inside, shift.long(), 0)
        position = (STEPS * top + shift).squeeze(-1)
        return Pitch(position, logits[..., -1].sigmoid())

    def place(self, hertz: Tensor, voiced: Tensor) -> Pitch:
        """Return the pitches nearest to known ones, (batch, hops) each."""
        position = (STEPS * self.config.bins(hertz)).round().long()
        return Pitch(position, voiced.float())


def whole(x: Tensor) -> Tensor:
    """Round to whole numbers, with the gradient of not rounding."""
    return x + (x.round() - x).detach() if x.requires_grad else x.round()
