"""The codec: samples to codes and back, whole or frame by frame."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from audiossm.codec.decoder import Decoder, DecoderConfig, DecoderState
from audiossm.codec.encoder import Encoder, EncoderConfig, EncoderState
from audiossm.codec.quantiser import Quantiser, QuantiserConfig
from audiossm.errors import ConfigError
from audiossm.nn import StreamingModule

__all__ = ["Codec", "CodecConfig", "CodecState"]


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Sizes of the codec's three parts."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
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


class CodecState(NamedTuple):
    """What encoder and decoder remember: its size doesn't depend on how long they have run."""

    encoder: EncoderState
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
        self.quantiser = Quantiser(config.quantiser)
        self.decoder = Decoder(config.decoder, config.quantiser.latent_dim)

    @property
    def delay(self) -> int:
        """Samples by which the decoded signal is late."""
        return self.decoder.delay

    @property
    def latency(self) -> int:
        """Algorithmic delay in samples: from a sample's arrival to that of its decoded self."""
        return self.config.frame_size + self.delay

    def init_state(self, batch: int) -> CodecState:
        return CodecState(self.encoder.init_state(batch), self.decoder.init_state(batch))

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
        return self.encode_step(samples, self.encoder.init_state(len(samples)))[0]

    def encode_step(self, samples: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """Encode the next samples of a stream; as ``encode``."""
        hidden, state = self.encoder.step(samples, state)
        return self.quantiser.encode(self.latent(hidden)), state

    def latent(self, hidden: Tensor) -> Tensor:
        """Narrow the encoder's frames to what is quantised, float32 also under autocast."""
        latent: Tensor = self.to_latent(hidden)
        return latent.float()

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
