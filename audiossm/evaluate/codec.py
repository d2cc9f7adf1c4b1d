"""Quality of a codec's speech over a manifest, beside that of Opus on the same files."""

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiossm.codec import LoadedCodec
from audiossm.errors import AudioError, ManifestError, ModelError
from audiossm.evaluate.delay import find_delay, remove_delay
from audiossm.evaluate.machine import describe_machine
from audiossm.evaluate.opus import FRAME_MS, code_opus, require_av
from audiossm.evaluate.quality import SAMPLE_RATE, Quality, measure_quality, require_metrics
from audiossm.evaluate.recording import read_recording
from audiossm.manifest import Utterance
from audiossm.streaming.code_files import FRAMES_PER_STEP
from audiossm.streaming.coding import DecoderSession, EncoderSession

__all__ = ["OPUS_BIT_RATES", "CodecEvaluation", "Means", "Score", "evaluate_codec"]

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

    ``code`` takes (samples,) at 16000 Hz, and which frames of 20 ms get lost.
    """

    name: str
    code: Callable[[Tensor, Lost], Coded]
    loss: float = 0.0  # fraction of frames

    def over(self, loss: float) -> "Coder":
        """The same over another line."""
        return replace(self, name=f"{self.name}, {100 * loss:g} % lost", loss=loss)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One recording through one coder."""

    key: str
    coder: str
    quality: Quality
    payload_bps: float
    delay_s: float


@dataclass(frozen=True, kw_only=True)
class Means:
    """What a coder reached, each a mean over recordings; None if there was nothing to average.

    PESQ and STOI may refuse a recording: they count their own ones.
    """

    coder: str
    num_files: int
    payload_bps: float
    delay_s: float
    pesq_wb: float | None
    num_pesq: int
    stoi: float | None
    num_stoi: int
    mel_distance: float

    @staticmethod
    def of(coder: str, scores: Sequence[Score]) -> "Means":
        """Average the scores of one coder, at least one."""
        pesq = [s.quality.pesq_wb for s in scores if s.quality.pesq_wb is not None]
        stoi = [s.quality.stoi for s in scores if s.quality.stoi is not None]
        return Means(
            coder=coder,
            num_files=len(scores),
            payload_bps=fmean(score.payload_bps for score in scores),
            delay_s=fmean(score.delay_s for score in scores),
            pesq_wb=fmean(pesq) if pesq else None,
            num_pesq=len(pesq),
            stoi=fmean(stoi) if stoi else None,
            num_stoi=len(stoi),
            mel_distance=fmean(score.quality.mel_distance for score in scores),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as a JSON object."""
        return {
            "coder": self.coder,
            "files": self.num_files,
            "payload_bps": round(self.payload_bps, 1),
            "removed_delay_ms": round(1000 * self.delay_s, 2),
            "pesq_wb_mos_lqo": None if self.pesq_wb is None else round(self.pesq_wb, 4),
            "pesq_files": self.num_pesq,
            "pesq_refused_files": self.num_files - self.num_pesq,
            "stoi_fraction": None if self.stoi is None else round(self.stoi, 5),
            "stoi_files": self.num_stoi,
            "stoi_refused_files": self.num_files - self.num_stoi,
            "mel_distance_log10_power": round(self.mel_distance, 5),
        }


@dataclass(frozen=True, kw_only=True)
class CodecEvaluation:
    """What ``evaluate_codec`` measured; ``failures`` are keys of unreadable files, and why."""

    scores: tuple[Score, ...]
    failures: dict[str, str]
    audio_s: float
    codec: str | None
    codec_hash: str | None
    codec_latency_s: float | None
    machine: dict[str, str | int]
    packages: dict[str, str]

    @property
    def means(self) -> list[Means]:
        """One for each coder, in the order in which they ran."""
        coders = dict.fromkeys(score.coder for score in self.scores)
        return [
            Means.of(coder, [score for score in self.scores if score.coder == coder])
            for coder in coders
        ]

    @property
    def refusals(self) -> dict[tuple[str, str, str], list[str]]:
        """Return the coders whose result was refused, by (key, measure, reason)."""
        found: dict[tuple[str, str, str], list[str]] = {}
        for score in self.scores:
            for measure, reason in score.quality.refusals.items():
                found.setdefault((score.key, measure, reason), []).append(score.coder)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        latency_s = self.codec_latency_s
        return {
            "codec": self.codec,
            "codec_hash": self.codec_hash,
            "codec_latency_ms": None if latency_s is None else round(1000 * latency_s, 3),
            "opus": {
                "library": "libopus",
                "application": "voip",
                "frame_ms": FRAME_MS,
                "vbr": True,
            },
            "compared_at_hz": SAMPLE_RATE,
            "audio_s": round(self.audio_s, 3),
            "coders": [means.to_json() for means in self.means],
            "refusals": [
                {"key": key, "measure": measure, "reason": reason, "coders": coders}
                for (key, measure, reason), coders in self.refusals.items()
            ],
            "failures": [{"key": key, "error": error} for key, error in self.failures.items()],
            "machine": self.machine,
            "packages": self.packages,
        }


def evaluate_codec(
    codec: LoadedCodec | None,
    utterances: Iterable[Utterance],
    *,
    groups: Sequence[int] | None = None,
    losses: Sequence[float] = (),
    on_utterance: Callable[[], None] | None = None,
) -> CodecEvaluation:
    """Encode and decode each recording, by the codec and by Opus at 6, 8 and 12 kbps, and compare.

    All is compared at 16000 Hz, mono, as loud as it comes. The codec's delay is known and Opus's
    is found in each file by cross-correlation; both are removed.

    Args:
        codec: a loaded codec, or None for Opus alone.
        utterances: what ``read_manifest`` returned, or a part of it; the texts don't matter.
        groups: from how many of the codec's groups to decode, for each of its bit rates; by
            default half of them, and all.
        losses: fractions of frames to lose at random, each decoder concealing them, beside none;
            the same frames of a recording for every coder.
        on_utterance: is called after each utterance.

    Raises:
        ConfigError: the codec hasn't as many groups.
        ModelError: the codec's sample rate is another than that of the measures.
        DependencyError: pesq, pystoi or PyAV is not installed.
    """
    require_metrics()
    require_av()
    coders = [] if codec is None else make_coders(codec, groups)
    coders += [
        Coder(name=f"libopus {rate / 1000:g} kbps", code=partial(run_opus, bit_rate=rate))
        for rate in OPUS_BIT_RATES
    ]
    coders += [coder.over(loss) for loss in losses for coder in coders]
    scores: list[Score] = []
    failures: dict[str, str] = {}
    num_samples = 0
    for utterance in utterances:
        try:
            samples = torch.from_numpy(read_recording(utterance).at_rate(SAMPLE_RATE))
        except (AudioError, ManifestError) as exc:
            failures[utterance.key] = str(exc)
        else:
            num_samples += len(samples)
            for coder in coders:
                coded = coder.code(samples, draw_losses(utterance.key, len(samples), coder.loss))
                quality = measure_quality(samples, coded.samples)
                scores.append(
                    Score(
                        key=utterance.key,
                        coder=coder.name,
                        quality=quality,
                        payload_bps=coded.payload_bps,
                        delay_s=coded.delay_s,
                    )
                )
        if on_utterance is not None:
            on_utterance()
    return CodecEvaluation(
        scores=tuple(scores),
        failures=failures,
        audio_s=num_samples / SAMPLE_RATE,
        codec=None if codec is None else codec.name,
        codec_hash=None if codec is None else codec.hash,
        codec_latency_s=None if codec is None else codec.network.latency / SAMPLE_RATE,
        machine=describe_machine("cpu" if codec is None else codec.device.type),
        packages={name: version(name) for name in ("pesq", "pystoi", "av")},
    )


def make_coders(codec: LoadedCodec, groups: Sequence[int] | None) -> list[Coder]:
    """Return a coder for each number of groups."""
    config = codec.config
    if config.sample_rate != SAMPLE_RATE:
        raise ModelError(
            f"codec {codec.name!r} works at {config.sample_rate} Hz, but PESQ compares at "
            f"{SAMPLE_RATE} Hz"
        )
    have = config.quantiser.num_groups
    if groups is None:
        groups = sorted({max(have // 2, 1), have})
    return [
        Coder(name=f"{codec.name}, groups: {count}", code=partial(run_codec, codec, count))
        for count in dict.fromkeys(map(codec.choose_groups, groups))
    ]


def draw_losses(key: str, num_samples: int, loss: float) -> Lost:
    """Draw which frames of a recording get lost: the same ones each time."""
    num_frames = num_samples // FRAME_SIZE + 3  # and what a coder adds at its end
    return np.random.default_rng(zlib.crc32(key.encode())).random(num_frames) < loss


def run_codec(codec: LoadedCodec, num_groups: int, samples: Tensor, lost: Lost) -> Coded:
    """Send (samples,) through the first groups of a codec."""
    encoder = EncoderSession(codec, num_groups=num_groups, frames_per_step=FRAMES_PER_STEP)
    codes = np.concatenate([encoder.push(samples.unsqueeze(0).numpy()), encoder.finish()], axis=2)
    starts = codec.config.frame_size * np.arange(codes.shape[2])
    decoder = DecoderSession(codec, frames_per_step=FRAMES_PER_STEP)
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
