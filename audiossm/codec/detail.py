"""What an encoder that serves recognition leaves out: the phases of low frequencies."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from audiossm.codec.convnext import ConvNeXtBlock, list_blocks, run_blocks
from audiossm.errors import ConfigError
from audiossm.nn import ConvState

__all__ = ["Detail", "DetailConfig"]


@dataclass(frozen=True, kw_only=True)
class DetailConfig:
    """Sizes of the branch."""

    num_bins: int = 96  # of the encoder's spectra, the lowest ones
    d_model: int = 160
    d_hidden: int = 480
    num_blocks: int = 2
    kernel: int = 7

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value <= 0:
                raise ConfigError(f"detail.{field.name} is {value}, must be above 0")


class Detail(nn.Module):
    """Complex spectra, beside the encoder's frames, to a share of the latent.

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
        self.num_features = 2 * config.num_bins * spectra_per_frame
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
        self, frames: Tensor, spectra: Tensor, state: tuple[ConvState, ...]
    ) -> tuple[Tensor, tuple[ConvState, ...]]:
        """Look at the next frames.

        Args:
            frames: (batch, frames, d_frame), the encoder's.
            spectra: (batch, spectra, 2 * bins), what it made them of.
            state: of the stream so far.

        Returns:
            (batch, frames, latent_dim), and the state.
        """
        x = torch.cat([self.features(spectra), frames.float()], dim=-1)
        x, state = run_blocks(self.blocks, self.in_proj(x), state)
        return self.out_proj(x), state

    def features(self, spectra: Tensor) -> Tensor:
        """Return low bins, power-compressed to |X|^0.3, as (batch, frames, features) float32."""
        with torch.autocast(spectra.device.type, enabled=False):
            real, imaginary = (part[..., : self.config.num_bins] for part in spectra.chunk(2, -1))
            scale = (real.square() + imaginary.square() + 1e-10).pow(-0.35)
            low = torch.cat([real * scale, imaginary * scale], dim=-1)
        return low.reshape(len(low), -1, self.num_features)
