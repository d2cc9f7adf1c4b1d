"""Ways for a recording to be encoded and decoded: our codec, and Opus to compare it with."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiossm.codec import LoadedCodec
from audiossm.errors import ModelError
from audiossm.evaluate.delay import find_delay, remove_delay
from audiossm.evaluate.opus import FRAME_MS, code_opus
from audiossm.evaluate.quality import SAMPLE_RATE
from audiossm.streaming.code_files import FRAMES_PER_STEP
from audiossm.streaming.coding import DecoderSession, EncoderSession

__all__ = ["OPUS_BIT_RATES", "Coded", "Coder", "draw_losses", "make_coders"]

OPUS_BIT_RATES = (6000, 8000, 12000)
FRAME_SIZE = SAMPLE_RATE * FRAME_MS // 1000
MAX_OPUS_DELAY_S = 0.06  # its own is 6.5 ms

Lost = NDArray[np.bool_]


class Coded(NamedTuple):
    """A recording after it was encoded and decoded."""

    samples: Tensor  # (samples,) as many as went in, in time with them
    payload_bps: float
    delay_s: float  # what was taken away, so that they are in time


@dataclass(frozen=True, kw_only=True)
class Coder:
    """A codec at one bit rate over a line that loses some frames.

    ``code`` takes (samples,) at 16000 Hz, and which frames of 20 ms get lost. ``series`` is what a
    curve over bit rates is of.
    """

    series: str
    name: str
    code: Callable[[Tensor, Lost], Coded]
    loss: float = 0.0  # fraction of frames

    def over(self, loss: float) -> "Coder":
        """The same over another line."""
        lost = f", {100 * loss:g} % lost"
        return replace(self, series=self.series + lost, name=self.name + lost, loss=loss)

    def run(self, samples: Tensor, key: str) -> Coded:
        """Send (samples,) of the recording ``key`` through."""
        return self.code(samples, draw_losses(key, len(samples), self.loss))


def make_coders(
    codec: LoadedCodec | None,
    groups: Sequence[int] | None = None,
    losses: Sequence[float] = (),
    *,
    live: bool = False,
) -> list[Coder]:
    """Return a coder for each number of groups and each rate of Opus, then all with each loss.

    The codec takes many frames at once or, ``live``, one.

    Raises:
        ConfigError: the codec hasn't as many groups.
        ModelError: the codec's sample rate is another than that of the measures.
    """
    frames_per_step = 1 if live else FRAMES_PER_STEP
    coders = [] if codec is None else _list_codec(codec, groups, frames_per_step)
    coders += [
        Coder(
            series="libopus",
            name=f"libopus {rate / 1000:g} kbps",
            code=partial(run_opus, bit_rate=rate),
        )
        for rate in OPUS_BIT_RATES
    ]
    return coders + [coder.over(loss) for loss in losses for coder in coders]


def _list_codec(
    codec: LoadedCodec, groups: Sequence[int] | None, frames_per_step: int
) -> list[Coder]:
    config = codec.config
    if config.sample_rate != SAMPLE_RATE:
        raise ModelError(
            f"codec {codec.name!r} works at {config.sample_rate} Hz, but PESQ compares at "
            f"{SAMPLE_RATE} Hz"
        )
    have = config.quantiser.num_groups
    if groups is None:
        groups = sorted({max(have // 4, 1), max(have // 2, 1), have})
    return [
        Coder(
            series=codec.name,
            name=f"{codec.name}, groups: {count}",
            code=partial(run_codec, codec, count, frames_per_step),
        )
        for count in dict.fromkeys(map(codec.choose_groups, groups))
    ]


def draw_losses(key: str, num_samples: int, loss: float) -> Lost:
    """Draw which frames of a recording get lost: the same ones each time."""
    num_frames = num_samples // FRAME_SIZE + 3  # and what a coder adds at its end
    return np.random.default_rng(zlib.crc32(key.encode())).random(num_frames) < loss


def run_codec(
    codec: LoadedCodec, num_groups: int, frames_per_step: int, samples: Tensor, lost: Lost
) -> Coded:
    """Send (samples,) through the first groups of a codec."""
    encoder = EncoderSession(codec, num_groups=num_groups, frames_per_step=frames_per_step)
    codes = np.concatenate([encoder.push(samples.unsqueeze(0).numpy()), encoder.finish()], axis=2)
    starts = codec.config.frame_size * np.arange(codes.shape[2])
    decoder = DecoderSession(codec, frames_per_step=frames_per_step)
    pieces = [decoder.push(codes, lost=lost[starts // FRAME_SIZE]), decoder.finish()]
    return Coded(
        torch.from_numpy(np.concatenate(pieces, axis=1)[0, : len(samples)]),
        payload_bps=codec.describe(num_groups=num_groups).bits_per_second,
        delay_s=codec.network.delay / codec.config.sample_rate,
    )


def run_opus(samples: Tensor, lost: Lost, *, bit_rate: int) -> Coded:
    """Send (samples,) through Opus and remove the delay that is found."""
    late, payload_bps = code_opus(samples, SAMPLE_RATE, bit_rate, lost)
    delay = find_delay(samples, late, round(MAX_OPUS_DELAY_S * SAMPLE_RATE))
    return Coded(remove_delay(late, delay, len(samples)), payload_bps, delay / SAMPLE_RATE)
