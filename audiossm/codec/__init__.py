"""The neural audio codec: so far its encoder."""

from audiossm.codec.encoder import Encoder, EncoderConfig, EncoderState
from audiossm.codec.stft import CausalSTFT, STFTState

__all__ = ["CausalSTFT", "Encoder", "EncoderConfig", "EncoderState", "STFTState"]
