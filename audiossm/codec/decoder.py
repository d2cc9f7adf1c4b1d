"""The codec decoder: de-quantised latents to samples, frame by frame, no look-ahead."""

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor, nn

from audiossm.codec.convnext import ConvNeXtBlock, list_blocks, run_blocks
from audiossm.codec.istft import InverseSTFT, InverseSTFTState
from audiossm.codec.pitch import Pitch
from audiossm.codec.source import Source, SourceConfig, SourceState
from audiossm.errors import ConfigError, ShapeError
from audiossm.nn import ConvState, Mamba3, Mamba3Config, RMSNorm, StreamingModule
from audiossm_kernels import SsmState

__all__ = ["Decoder", "DecoderConfig", "DecoderState"]

# a full-scale square wave has about exp(1.7)
MAX_LOG_MAGNITUDE = 2.5
# a new gate lets through most of the source: sigmoid(2) is 0.88
FIRST_GATE = 2.0
# of the natural logarithm of the source's power, which lies between -9 and 2
LOUDNESS = 0.2


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes of the decoder; lengths in samples."""

    d_model: int = 320
    d_hidden: int = 960
    num_blocks: int = 6
    kernel: int = 7
    ssm_expand: float = 1.5
    ssm_head_dim: int = 48
    ssm_state: int = 64
    ssm_max_memory: float | None = None
    upsample: int = 4
    d_fine: int = 192
    d_fine_hidden: int = 576
    num_fine_blocks: int = 2
    fine_kernel: int = 5
    window: int = 320
    hop: int = 80
    source: SourceConfig | None = None  # None: the head makes all phases itself

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and value <= 0:
                raise ConfigError(f"decoder.{field.name} is {value}, must be above 0")

    @property
    def frame_size(self) -> int:
        """Samples in a frame."""
        return self.upsample * self.hop

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

    @staticmethod
    def tiny() -> "DecoderConfig":
        """A network small enough for tests."""
        return DecoderConfig(
            d_model=32,
            d_hidden=48,
            num_blocks=1,
            ssm_head_dim=16,
            ssm_state=16,
            d_fine=24,
            d_fine_hidden=32,
            num_fine_blocks=1,
        )


class DecoderState(NamedTuple):
    """What the decoder remembers."""

    ssm: SsmState
    blocks: tuple[ConvState, ...]
    fine: tuple[ConvState, ...]
    istft: InverseSTFTState
    source: SourceState | tuple[()] = ()  # empty without one


class Decoder(StreamingModule[DecoderState]):
    """Latents to samples: recurrent block and convolutions at the frame rate, then spectra.

    A head gives each short spectrum's log-magnitude and phase (as in arXiv:2306.00814), and an
    inverse STFT makes samples of them, ``delay`` samples later than those that were encoded. With a
    source, each bin has a gate between the head's phase and the source's spectrum.

    Args:
        config: sizes.
        latent_dim: channels in.
        sample_rate: Hz.
    """

    def __init__(self, config: DecoderConfig, latent_dim: int, sample_rate: int = 16000) -> None:
        super().__init__()
        self.config, self.latent_dim = config, latent_dim
        self.in_proj = nn.Linear(latent_dim, config.d_model)
        self.norm = RMSNorm(config.d_model)
        self.mixer = Mamba3(config.ssm)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(config.d_model, config.d_hidden, config.kernel)
            for _ in range(config.num_blocks)
        )
        self.up = nn.Linear(config.d_model, config.upsample * config.d_fine)
        self.fine_blocks = nn.ModuleList(
            ConvNeXtBlock(config.d_fine, config.d_fine_hidden, config.fine_kernel)
            for _ in range(config.num_fine_blocks)
        )
        self.istft = InverseSTFT(config.window, config.hop)
        self.head_norm = nn.LayerNorm(config.d_fine)
        self.head = nn.Linear(config.d_fine, 2 * self.istft.num_bins)
        with torch.no_grad():
            # exp(-2) of an unscaled spectrum: quieter than speech, but not lost below it
            self.head.bias[: self.istft.num_bins] = -2.0 - math.log(config.window) / 2
        self.source: Source | None = None
        if config.source is not None:
            self.source = Source(
                config.source,
                latent_dim,
                window=config.window,
                hop=config.hop,
                hops=config.upsample,
                sample_rate=sample_rate,
            )
            self.listen = nn.Linear(self.istft.num_bins, config.d_fine)
            self.gate = nn.Linear(config.d_fine, self.istft.num_bins)
            for layer, bias in ((self.listen, 0.0), (self.gate, FIRST_GATE)):
                nn.init.zeros_(layer.weight)
                nn.init.constant_(layer.bias, bias)

    @property
    def delay(self) -> int:
        """Samples by which the result is late; with the frame itself, the algorithmic delay."""
        return self.istft.delay

    def init_state(self, batch: int) -> DecoderState:
        return DecoderState(
            self.mixer.init_state(batch),
            tuple(block.init_state(batch) for block in list_blocks(self.blocks)),
            tuple(block.init_state(batch) for block in list_blocks(self.fine_blocks)),
            self.istft.init_state(batch),
            () if self.source is None else self.source.init_state(batch),
        )

    def step(self, x: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Decode latents (batch, frames, latent_dim).

        Returns:
            (batch, frames * ``config.frame_size``) float32, and the state after the last frame.

        Raises:
            ShapeError: no frames, or another width.
        """
        if x.dim() != 3 or x.shape[1] < 1 or x.shape[2] != self.latent_dim:
            raise ShapeError(
                f"Decoder takes (batch, frames >= 1, {self.latent_dim}), got {(*x.shape,)}"
            )
        spectra, state = self.spectra_step(x, state)
        samples, istft = self.istft.step(spectra, state.istft)
        return samples, state._replace(istft=istft)

    def spectra_step(
        self, x: Tensor, state: DecoderState, pitch: Pitch | None = None
    ) -> tuple[Tensor, DecoderState]:
        """Do what ``step`` does before its last part, and leave that one's state as it is.

        Args:
            x: latents (batch, frames, latent_dim).
            state: of the stream so far.
            pitch: what the source is to sound at; it reads the latents by default.

        Returns:
            (batch, frames * ``config.upsample``, 2 * bins) float32, what samples are made of.
        """
        voice, source = None, state.source
        if self.source is not None and isinstance(source, SourceState):
            voice, source = self.source.step(x, source, pitch)
        x = self.in_proj(x)
        mixed, ssm = self.mixer.step(self.norm(x), state.ssm)
        x, blocks = run_blocks(self.blocks, x + mixed, state.blocks)
        # (batch, frames, upsample * d_fine): a frame's spectra lie side by side
        x = self.up(x).reshape(x.shape[0], -1, self.config.d_fine)
        power = None if voice is None else sum_squares(voice)
        if power is not None:
            x = x + self.listen(LOUDNESS * (power + 1e-4).log())
        x, fine = run_blocks(self.fine_blocks, x, state.fine)
        x = self.head_norm(x)
        share = None
        if power is not None:
            # at most as much as there is a voice in this window at all
            voiced = power.mean(-1, keepdim=True).clamp(max=1).sqrt()
            share = voiced * self.gate(x).float().sigmoid()
        spectra = make_spectra(self.head(x).float(), voice, share)
        return spectra, DecoderState(ssm, blocks, fine, state.istft, source)


def make_spectra(x: Tensor, voice: Tensor | None = None, share: Tensor | None = None) -> Tensor:
    """Turn log-magnitudes and phases side by side into real and imaginary parts.

    Args:
        x: (batch, spectra, 2 * bins), phases in radians.
        voice: (batch, spectra, 2 * bins), of about unit magnitude, real parts first.
        share: (batch, spectra, bins), of the voice, from 0 to 1; the phases have the rest.
    """
    log_magnitude, phase = x.chunk(2, dim=-1)
    magnitude = log_magnitude.clamp(max=MAX_LOG_MAGNITUDE).exp()
    real, imaginary = phase.cos(), phase.sin()
    if voice is not None and share is not None:
        voice_real, voice_imaginary = voice.chunk(2, dim=-1)
        real = real + share * (voice_real - real)
        imaginary = imaginary + share * (voice_imaginary - imaginary)
    return torch.cat([magnitude * real, magnitude * imaginary], dim=-1)


def sum_squares(spectra: Tensor) -> Tensor:
    """Return the power of spectra (..., 2 * bins), real parts first: (..., bins)."""
    real, imaginary = spectra.chunk(2, dim=-1)
    return real.square() + imaginary.square()
