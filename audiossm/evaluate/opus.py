"""Opus, the codec to compare with: real libopus, through PyAV."""

from itertools import zip_longest
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from audiossm.audio import resample
from audiossm.audio.media import load_av

__all__ = ["FRAME_MS", "OpusAudio", "code_opus", "require_av"]

FRAME_MS = 20
OPTIONS = {"application": "voip", "frame_duration": str(FRAME_MS), "vbr": "on"}
DECODER_RATE = 48000  # Hz: PyAV's libopus decodes to no other


class OpusAudio(NamedTuple):
    """What came out of the decoder."""

    samples: Tensor  # (samples,) float32, late and at least as long as what went in
    payload_bps: float  # bits of all packets, without any container, a second that they last


def code_opus(
    samples: Tensor, sample_rate: int, bit_rate: int, lost: NDArray[np.bool_] | None = None
) -> OpusAudio:
    """Encode and decode as a telephone call does: voip mode, 20 ms, variable bit rate.

    Args:
        samples: (samples,) float32 in [-1, 1].
        sample_rate: Hz, of input and output: 8000, 12000, 16000, 24000 or 48000.
        bit_rate: bits a second that the encoder aims at.
        lost: which packets never reach the decoder, from the first on; none by default. It
            conceals them in its own way.

    Raises:
        DependencyError: PyAV is not installed.
    """
    av = require_av()
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = sample_rate, "mono", "flt"
    encoder.bit_rate, encoder.options = bit_rate, OPTIONS
    frame_size = sample_rate * FRAME_MS // 1000
    # a frame more than there is brings out what the encoder holds back
    padded = F.pad(samples, (0, -len(samples) % frame_size + frame_size))
    packets = []
    for start in range(0, len(padded), frame_size):
        block = padded[start : start + frame_size].unsqueeze(0).numpy()
        frame = av.AudioFrame.from_ndarray(block, format="flt", layout="mono")
        frame.sample_rate, frame.pts = sample_rate, start
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoder = av.CodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout = DECODER_RATE, "mono"
    received = [
        # a header without data is how libopus is told of a loss through its packets (RFC 6716, 3.1)
        av.Packet(bytes([bytes(packet)[0] & 0xFC])) if is_lost else packet
        for packet, is_lost in zip_longest(packets, [] if lost is None else lost[: len(packets)])
    ]
    blocks = [frame.to_ndarray() for packet in received for frame in decoder.decode(packet)]
    blocks += [frame.to_ndarray() for frame in decoder.decode(None)]
    decoded = torch.from_numpy(np.concatenate(blocks, axis=1)).float() / 2**15  # it gives int16
    bits = 8 * sum(packet.size for packet in packets)
    return OpusAudio(
        resample(decoded, DECODER_RATE, sample_rate)[0],
        payload_bps=bits / (len(packets) * FRAME_MS / 1000),
    )


def require_av() -> ModuleType:
    """Return PyAV, which brings libopus; ``DependencyError`` if it is missing."""
    return load_av("Opus is encoded by PyAV, which is not installed: pip install 'audiossm[eval]'")
