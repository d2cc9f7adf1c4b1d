"""The neural audio codec: samples to codes and back, 20 ms at a time."""

from audiossm.codec.code_file import (
    CodeBlock,
    CodeReader,
    CodeWriter,
    open_codes,
    read_codes,
    write_codes,
)
from audiossm.codec.codec import Codec, CodecConfig, CodecState, EncodingState
from audiossm.codec.codes import CodeFormat, Codes
from audiossm.codec.decoder import Decoder, DecoderConfig, DecoderState
from audiossm.codec.detail import Detail, DetailConfig
from audiossm.codec.encoder import Encoder, EncoderConfig, EncoderState
from audiossm.codec.foreign import ForeignCodec, load_codec
from audiossm.codec.istft import InverseSTFT, InverseSTFTState
from audiossm.codec.loaded import LoadedCodec
from audiossm.codec.pin import CodecPin, CodesPin
from audiossm.codec.pitch import PitchConfig
from audiossm.codec.quantiser import Quantiser, QuantiserConfig
from audiossm.codec.source import SourceConfig, SourceState
from audiossm.codec.stft import CausalSTFT, STFTState

__all__ = [
    "CausalSTFT",
    "CodeBlock",
    "CodeFormat",
    "CodeReader",
    "CodeWriter",
    "Codec",
    "CodecConfig",
    "CodecPin",
    "CodecState",
    "Codes",
    "CodesPin",
    "Decoder",
    "DecoderConfig",
    "DecoderState",
    "Detail",
    "DetailConfig",
    "Encoder",
    "EncoderConfig",
    "EncoderState",
    "EncodingState",
    "ForeignCodec",
    "InverseSTFT",
    "InverseSTFTState",
    "LoadedCodec",
    "PitchConfig",
    "Quantiser",
    "QuantiserConfig",
    "STFTState",
    "SourceConfig",
    "SourceState",
    "load_codec",
    "open_codes",
    "read_codes",
    "write_codes",
]
