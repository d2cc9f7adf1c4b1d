"""The codec: samples to codes and back, whole or frame by frame."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from audiossm.codec.decoder import Decoder, DecoderConfig, DecoderState
from audiossm.codec.detail import Detail, DetailConfig
from audiossm.codec.encoder import Encoder, EncoderConfig, EncoderState
from audiossm.codec.quantiser import Quantiser, QuantiserConfig
from audiossm.errors import ConfigError
from audiossm.nn import ConvState, StreamingModule
from audiossm_kernels.operators import exporting

__all__ = ["Codec", "CodecConfig", "CodecState", "EncodingState"]


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Sizes of the codec's parts."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    detail: DetailConfig | None = None  # None: codes are made of the encoder's frames alone
    quantiser: QuantiserConfig = field(default_factory=QuantiserConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)

    def __post_init__(self) -> None:
        if self.encoder.frame_size != self.decoder.frame_size:
            raise ConfigError(
                f"the encoder's frames have {self.encoder.frame_size} samples, the decoder's "
                f"{self.decoder.frame_size} (upsample * hop): they must be equal"
            )

    @property
    def sample_rate(self) -> int:
        """Samples a second."""
        return self.encoder.sample_rate

    @property
    def frame_size(self) -> int:
        """Samples in a frame."""
        return self.encoder.frame_size

    @property
    def bits_per_second(self) -> float:
        """Bit rate of all groups; g of them have ``g / num_groups`` of it."""
        frame_bits = self.quantiser.num_groups * self.quantiser.bits_per_code
        return frame_bits * self.sample_rate / self.frame_size

    @staticmethod
    def tiny() -> "CodecConfig":
        """A network small enough for tests."""
        return CodecConfig(
            encoder=EncoderConfig(
                num_mels=20, d_model=32, d_hidden=48, num_blocks=1, ssm_head_dim=16, ssm_state=16
            ),
            quantiser=QuantiserConfig(num_groups=4),
            decoder=DecoderConfig.tiny(),
        )


class EncodingState(NamedTuple):
    """What the way from samples to codes remembers."""

    encoder: EncoderState
    detail: tuple[ConvState, ...]  # empty without the branch


class CodecState(NamedTuple):
    """What encoder and decoder remember: its size doesn't depend on how long they have run."""

    encoder: EncodingState
    decoder: DecoderState


class Codec(StreamingModule[CodecState]):
    """Encoder, quantiser and decoder.

    ``step`` is the way through all three. What is decoded is ``delay`` samples late.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.to_latent = nn.Linear(config.encoder.d_model, config.quantiser.latent_dim)
        self.detail = self.make_detail(config.detail)
        self.quantiser = Quantiser(config.quantiser)
        self.decoder = Decoder(
            config.decoder, config.quantiser.latent_dim, config.encoder.sample_rate
        )

    def make_detail(self, detail: DetailConfig | None) -> Detail | None:
        """Return a new branch; the first group is the encoder's alone, and stays phonetic."""
        if detail is None:
            return None
        quantiser = self.config.quantiser
        return Detail(
            detail,
            num_bins=self.encoder.stft.num_bins,
            spectra_per_frame=self.config.encoder.spectra_per_frame,
            d_frame=self.config.encoder.d_model,
            latent_dim=quantiser.latent_dim - quantiser.group_dim,
        )

    @property
    def code_makers(self) -> list[nn.Module]:
        """What makes codes of the encoder's frames and has weights."""
        return [self.to_latent] if self.detail is None else [self.to_latent, self.detail]

    @property
    def steps(self) -> dict[str, float]:
        """The weights, by name, that are rounded to multiples of a step, and this step."""
        source = self.decoder.source
        steps = {} if source is None else source.reader.steps
        return {f"decoder.source.reader.{name}": step for name, step in steps.items()}

    @property
    def delay(self) -> int:
        """Samples by which the decoded signal is late."""
        return self.decoder.delay

    @property
    def latency(self) -> int:
        """Algorithmic delay in samples: from a sample's arrival to that of its decoded self."""
        return self.config.frame_size + self.delay

    def init_state(self, batch: int) -> CodecState:
        return CodecState(self.init_encoding(batch), self.decoder.init_state(batch))

    def init_encoding(self, batch: int) -> EncodingState:
        """Return what ``encode_step`` starts from."""
        detail = () if self.detail is None else self.detail.init_state(batch)
        return EncodingState(self.encoder.init_state(batch), detail)

    def step(self, x: Tensor, state: CodecState) -> tuple[Tensor, CodecState]:
        """Encode and decode samples (batch, samples) in [-1, 1], a multiple of ``frame_size``.

        Returns:
            as many samples, ``delay`` late; and the state.

        Raises:
            ShapeError: no samples, or not a multiple of ``frame_size``.
        """
        codes, encoder = self.encode_step(x, state.encoder)
        samples, decoder = self.decode_step(codes, state.decoder)
        return samples, CodecState(encoder, decoder)

    def encode(self, samples: Tensor) -> Tensor:
        """Turn samples (batch, samples) into codes (batch, num_groups, frames) int64.

        Raises:
            ShapeError: no samples, or not a multiple of ``frame_size``.
        """
        return self.encode_step(samples, self.init_encoding(len(samples)))[0]

    def encode_step(self, samples: Tensor, state: EncodingState) -> tuple[Tensor, EncodingState]:
        """Encode the next samples of a stream; as ``encode``."""
        latent, state = self.narrow_step(samples, state)
        return self.quantiser.encode(latent), state

    def narrow_step(self, samples: Tensor, state: EncodingState) -> tuple[Tensor, EncodingState]:
        """Turn the next samples of a stream into what is quantised, (batch, frames, latent_dim)."""
        self.encoder.check_samples(samples)
        spectra, stft = self.encoder.stft.step(samples, state.encoder.stft)
        frames, encoder = self.encoder.step_spectra(spectra, state.encoder._replace(stft=stft))
        latent, detail = self.latent_step(frames, spectra, state.detail)
        return latent, EncodingState(encoder, detail)

    def latent_step(
        self, frames: Tensor, spectra: Tensor, state: tuple[ConvState, ...]
    ) -> tuple[Tensor, tuple[ConvState, ...]]:
        """Narrow the encoder's frames to what is quantised, float32 also under autocast.

        Args:
            frames: (batch, frames, d_model), the encoder's.
            spectra: (batch, spectra, 2 * bins), what it made them of.
            state: of the detail branch.

        Returns:
            (batch, frames, latent_dim), and the state.
        """
        latent: Tensor = self.to_latent(frames).float()
        if self.detail is not None:
            skipped = self.config.quantiser.group_dim
            more, state = self.detail.step(frames, spectra, state, skipped if exporting() else 0)
            latent = latent + (more if exporting() else F.pad(more.float(), (skipped, 0)))
        return latent, state

    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes (batch, groups, frames) int64 into samples (batch, samples), ``delay`` late.

        Fewer groups than ``num_groups``, the first ones, give a coarser result.

        Raises:
            ShapeError: another shape or dtype, more groups, or codes that there aren't.
        """
        return self.decode_step(codes, self.decoder.init_state(len(codes)))[0]

    def decode_step(self, codes: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Decode the next codes of a stream; as ``decode``."""
        return self.decoder.step(self.quantiser.decode(codes), state)

    def reconstruct(self, samples: Tensor, num_groups: int | None = None) -> Tensor:
        """Encode and decode samples (batch, any number): as many, and in time with them.

        Args:
            samples: in [-1, 1].
            num_groups: how many of the groups to decode from; all by default.
        """
        length = samples.shape[1]
        # zeros at the end bring out what the delay holds back
        short = -(length + self.delay) % self.config.frame_size
        codes = self.encode(F.pad(samples, (0, self.delay + short)))
        return self.decode(codes[:, :num_groups])[:, self.delay : self.delay + length]
