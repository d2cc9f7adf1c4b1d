"""Audio at the edge: read it, write it, resample it, cut it into frames."""

from audiossm.audio.buffer import FrameBuffer, FrameBufferState
from audiossm.audio.channels import mix
from audiossm.audio.reader import AudioReader, open_audio
from audiossm.audio.resample import Resampler, ResamplerState, resample
from audiossm.audio.stretch import Stretch
from audiossm.audio.wav_writer import WavWriter
from audiossm.audio.writer import write_audio

__all__ = [
    "AudioReader",
    "FrameBuffer",
    "FrameBufferState",
    "Resampler",
    "ResamplerState",
    "Stretch",
    "WavWriter",
    "mix",
    "open_audio",
    "resample",
    "write_audio",
]
