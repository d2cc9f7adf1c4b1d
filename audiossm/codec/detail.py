"""What an encoder that serves recognition leaves out: the pitch, and the harmonics one by one."""

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiossm.codec.convnext import ConvNeXtBlock, list_blocks, run_blocks
from audiossm.errors import ConfigError
from audiossm.nn import ConvState
from audiossm_kernels.operators import exporting, square_sum
from audiossm_kernels.state import full_precision

__all__ = ["Detail", "DetailConfig"]

LOWEST_BIN = 3


@dataclass(frozen=True, kw_only=True)
class DetailConfig:
    """Sizes of the branch."""

    num_bins: int = 96  # of the encoder's spectra, the lowest ones
    shortest_lag: int = 32  # samples: 500 Hz
    longest_lag: int = 266  # 60 Hz
    d_model: int = 160
    d_hidden: int = 480
    num_blocks: int = 2
    kernel: int = 7

    @property
    def num_lags(self) -> int:
        """How many lags a spectrum's correlation is told at."""
        return self.longest_lag - self.shortest_lag + 1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value <= 0:
                raise ConfigError(f"detail.{field.name} is {value}, must be above 0")
        if self.longest_lag < self.shortest_lag:
            raise ConfigError(
                f"detail.longest_lag is {self.longest_lag}, must be at least shortest_lag, "
                f"{self.shortest_lag}"
            )


class Detail(nn.Module):
    """Correlations and loudness of low bins, with the encoder's frames, to a share of the latent.

    The correlation is the inverse transform of magnitudes, flatter than that of powers (as in
    Tolonen and Karjalainen, 2000): a voice's period is its highest peak.

    The frames themselves stay what they are: a recogniser that stands on them notices nothing. A
    new branch says nothing yet.

    Args:
        config: sizes.
        num_bins: of the encoder's spectra.
        spectra_per_frame: that a frame stacks.
        d_frame: width of the encoder's frames.
        latent_dim: channels out.

    Raises:
        ConfigError: more bins than the spectra have.
    """

    def __init__(
        self,
        config: DetailConfig,
        *,
        num_bins: int,
        spectra_per_frame: int,
        d_frame: int,
        latent_dim: int,
    ) -> None:
        super().__init__()
        if config.num_bins > num_bins:
            raise ConfigError(f"detail.num_bins is {config.num_bins}, the spectra have {num_bins}")
        self.config = config
        self.num_features = (config.num_lags + config.num_bins) * spectra_per_frame
        bins = torch.arange(config.num_bins, dtype=torch.float64)
        lags = torch.arange(config.shortest_lag, config.longest_lag + 1, dtype=torch.float64)
        cosines = (math.pi / (num_bins - 1) * torch.outer(bins, lags)).cos()
        # the lowest bins hold what rooms and microphones do, no harmonics
        used = (bins >= LOWEST_BIN).double().unsqueeze(1)
        self.register_buffer("cosines", (cosines * used).float(), persistent=False)
        self.register_buffer("used", used.squeeze(1).float(), persistent=False)
        self.cosines: Tensor  # (num_bins, num_lags)
        self.used: Tensor  # (num_bins,)
        self.in_proj = nn.Linear(self.num_features + d_frame, config.d_model)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(config.d_model, config.d_hidden, config.kernel)
            for _ in range(config.num_blocks)
        )
        self.out_proj = nn.Linear(config.d_model, latent_dim)
        nn.init.zeros_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def init_state(self, batch: int) -> tuple[ConvState, ...]:
        """Return what the branch remembers before a stream's first frame."""
        return tuple(block.init_state(batch) for block in list_blocks(self.blocks))

    def step(
        self, frames: Tensor, spectra: Tensor, state: tuple[ConvState, ...], skipped: int = 0
    ) -> tuple[Tensor, tuple[ConvState, ...]]:
        """Look at the next frames.

        Args:
            frames: (batch, frames, d_frame), the encoder's.
            spectra: (batch, spectra, 2 * bins), what it made them of.
            state: of the stream so far.
            skipped: channels of zeros in front of the result: as a part of the weight they cost a
                graph nothing.

        Returns:
            (batch, frames, skipped + latent_dim), and the state.
        """
        x = torch.cat([self.features(spectra), frames.float()], dim=-1)
        x, state = run_blocks(self.blocks, self.in_proj(x), state)
        if not skipped:
            return self.out_proj(x), state
        weight = F.pad(self.out_proj.weight, (0, 0, skipped, 0))
        return F.linear(x, weight, F.pad(self.out_proj.bias, (skipped, 0))), state

    def features(self, spectra: Tensor) -> Tensor:
        """Return correlations and log-powers of low bins as (batch, frames, features) float32."""
        with full_precision(spectra.device.type):
            if exporting():  # the encoder has it, too
                power = square_sum(torch.unflatten(spectra, -1, (2, -1)), -2)
                power = power[..., : self.config.num_bins] + 1e-8
            else:
                real, imaginary = (
                    part[..., : self.config.num_bins] for part in spectra.chunk(2, -1)
                )
                power = real.square() + imaginary.square() + 1e-8
            magnitude = power.sqrt()
            size = (magnitude * self.used).sum(-1, keepdim=True)
            alike = magnitude @ self.cosines / size
            low = torch.cat([4 * alike, 0.1 * power.log()], dim=-1)
        return low.reshape(len(low), -1, self.num_features)
