"""The codec encoder: samples to one continuous state per 20 ms frame, causal, no look-ahead."""

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor, nn

from audiossm.codec.convnext import ConvNeXtBlock, list_blocks, run_blocks
from audiossm.codec.stft import CausalSTFT, STFTState, mel_filters
from audiossm.errors import ConfigError, ShapeError
from audiossm.nn import ConvState, Mamba3, Mamba3Config, RMSNorm, StreamingModule
from audiossm_kernels import SsmState
from audiossm_kernels.operators import exporting, square_sum

__all__ = ["Encoder", "EncoderConfig", "EncoderState"]

# what of a spectrum the encoder sees beside log-mel energies, in widths of its bins
SPECTRA = {"complex": 2, "magnitude": 1, "none": 0}


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes of the encoder; rates in Hz, lengths in samples."""

    sample_rate: int = 16000
    frame_size: int = 320
    window: int = 512
    hop: int = 160
    num_mels: int = 64
    spectra: str = "complex"  # or "magnitude"; "none": log-mel energies alone
    d_model: int = 320
    d_hidden: int = 960
    num_blocks: int = 4
    kernel: int = 7
    ssm_expand: float = 1.5
    ssm_head_dim: int = 48
    ssm_state: int = 64
    ssm_max_memory: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and value <= 0:
                raise ConfigError(f"encoder.{field.name} is {value}, must be above 0")
        if self.spectra not in SPECTRA:
            raise ConfigError(
                f"encoder.spectra is {self.spectra!r}, must be one of {', '.join(SPECTRA)}"
            )
        if self.frame_size % self.hop:
            raise ConfigError(
                f"encoder.frame_size {self.frame_size} is not a multiple of hop {self.hop}"
            )

    @property
    def spectra_per_frame(self) -> int:
        """Short spectra that one frame stacks."""
        return self.frame_size // self.hop

    @property
    def ssm(self) -> Mamba3Config:
        """The config of the recurrent block."""
        return Mamba3Config(
            d_model=self.d_model,
            d_state=self.ssm_state,
            expand=self.ssm_expand,
            head_dim=self.ssm_head_dim,
            dt_min=1e-2,
            dt_max=1.0,
            max_memory=self.ssm_max_memory,
        )


class EncoderState(NamedTuple):
    """What the encoder remembers."""

    stft: STFTState
    blocks: tuple[ConvState, ...]
    ssm: SsmState


class Encoder(StreamingModule[EncoderState]):
    """Samples to the continuous state before the bottleneck.

    A frame stacks what its config says of the spectra, complex and power-compressed to |X|^0.3 or
    the logarithm of each bin's power, with log-mel energies, which the recogniser lives on.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.stft = CausalSTFT(config.window, config.hop)
        filters = mel_filters(config.num_mels, self.stft.num_bins, config.sample_rate)
        self.register_buffer("filters", filters, persistent=False)
        self.filters: Tensor
        width = SPECTRA[config.spectra] * self.stft.num_bins + config.num_mels
        self.in_proj = nn.Linear(config.spectra_per_frame * width, config.d_model)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(config.d_model, config.d_hidden, config.kernel)
            for _ in range(config.num_blocks)
        )
        self.norm = RMSNorm(config.d_model)
        self.mixer = Mamba3(config.ssm)

    def init_state(self, batch: int) -> EncoderState:
        return EncoderState(
            self.stft.init_state(batch),
            tuple(block.init_state(batch) for block in list_blocks(self.blocks)),
            self.mixer.init_state(batch),
        )

    def step(self, x: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """Encode samples (batch, samples) in [-1, 1], a multiple of ``frame_size``.

        Returns:
            (batch, frames, d_model), and the state after the last frame.

        Raises:
            ShapeError: no samples, or not a multiple of ``frame_size``.
        """
        self.check_samples(x)
        spectra, stft = self.stft.step(x, state.stft)
        return self.step_spectra(spectra, state._replace(stft=stft))

    def check_samples(self, x: Tensor) -> None:
        """Refuse another shape than ``step`` takes.

        Raises:
            ShapeError: no samples, or not a multiple of ``frame_size``.
        """
        if x.dim() != 2 or x.shape[1] < 1 or x.shape[1] % self.config.frame_size:
            raise ShapeError(
                f"Encoder takes (batch, samples), a multiple of {self.config.frame_size}, "
                f"got {(*x.shape,)}"
            )

    def step_spectra(self, spectra: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """Encode spectra (batch, spectra, 2 * bins); training masks them before this."""
        x, blocks = run_blocks(self.blocks, self.in_proj(self.features(spectra)), state.blocks)
        y, ssm = self.mixer.step(self.norm(x), state.ssm)
        return x + y, EncoderState(state.stft, blocks, ssm)

    def features(self, spectra: Tensor) -> Tensor:
        """Compress spectra (batch, spectra, 2 * bins) to (batch, frames, features), float32."""
        with torch.autocast(spectra.device.type, enabled=False):
            parts = torch.unflatten(spectra, -1, (2, -1))  # real and imaginary
            power = square_sum(parts, -2) if exporting() else parts.square().sum(-2)
            mels = power @ self.filters
            match self.config.spectra:
                case "complex":
                    compressed = spectra * (power + 1e-10).pow(-0.35).repeat(1, 1, 2)
                    stacked = torch.cat([compressed, compress(mels)], dim=-1)
                case "magnitude":
                    stacked = compress(torch.cat([power, mels], dim=-1))
                case _:
                    stacked = compress(mels)
        return stacked.reshape(stacked.shape[0], -1, self.in_proj.in_features)


def compress(power: Tensor) -> Tensor:
    """Return the logarithm of power, shifted and scaled so that speech lies near unit range."""
    # 1e-8 is the power of a quiet room at 16 bits
    return (torch.log(power + 1e-8) + 10.0) / 4.0
