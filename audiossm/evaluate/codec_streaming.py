"""A codec as a stream: is it what one call gives, how late is it, and does it keep up?"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from audiossm.codec import LoadedCodec
from audiossm.errors import AudioError, ManifestError
from audiossm.evaluate.delay import find_delay
from audiossm.evaluate.machine import describe_machine
from audiossm.evaluate.recording import read_recording
from audiossm.manifest import Utterance
from audiossm.streaming.coding import DecoderSession, EncoderSession

__all__ = [
    "MAX_DIFFERENCE",
    "MAX_FLIPPED",
    "MAX_LATENCY_S",
    "CodecStreaming",
    "evaluate_codec_streaming",
    "measure_onset",
    "measure_wait",
    "percentile_ms",
]

MAX_DIFFERENCE = 1e-5  # of latents relative to their largest, and of samples
MAX_FLIPPED = 1e-3  # of frames, with another code
MAX_LATENCY_S = 0.04
ONSET_STEP = 8  # samples between two places in a frame that an onset is tried at
SMALLEST_CHANGE = 1e-5  # of a sample: below lies rounding
BLOCK_MS, MAX_LAG_MS = 1, 20


@dataclass(frozen=True, kw_only=True)
class CodecStreaming:
    """What ``evaluate_codec_streaming`` measured; largest differences, times over all recordings.

    ``failures`` are keys of unreadable files, and why.
    """

    codec: str
    codec_hash: str
    parameters: int
    frame_s: float
    num_files: int
    audio_s: float
    frames: int
    flipped_frames: int  # with another code, in any group
    latent_difference: float  # over the largest latent
    sample_difference: float  # given the same codes
    encode_times_s: NDArray[np.float64]  # of each step of one frame
    decode_times_s: NDArray[np.float64]
    latency_s: float  # computed from the sizes
    wait_s: float  # measured
    onset_s: float  # measured
    lag_s: float  # measured; median over recordings
    machine: dict[str, str | int]
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def flipped(self) -> float:
        """The fraction of frames in which a code is another one."""
        return self.flipped_frames / max(self.frames, 1)

    @property
    def passed(self) -> bool:
        """Stream and call agree, and it is no later than its sizes say and than 40 ms."""
        return (
            self.latent_difference <= MAX_DIFFERENCE
            and self.sample_difference <= MAX_DIFFERENCE
            and self.flipped <= MAX_FLIPPED
            and max(self.wait_s, self.onset_s) <= self.latency_s <= MAX_LATENCY_S
        )

    def speed(self, times_s: NDArray[np.float64]) -> float:
        """Return audio seconds a processing second: above 1 keeps up."""
        return self.frame_s * len(times_s) / float(times_s.sum()) if len(times_s) else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        times = {"encode": self.encode_times_s, "decode": self.decode_times_s}
        speeds = {f"{name}_times_real_time": round(self.speed(t), 2) for name, t in times.items()}
        p95 = {f"{name}_step_p95_ms": round(percentile_ms(t), 3) for name, t in times.items()}
        return {
            "passed": self.passed,
            "codec": self.codec,
            "codec_hash": self.codec_hash,
            "parameters": self.parameters,
            "files": self.num_files,
            "audio_s": round(self.audio_s, 3),
            "frames": self.frames,
            "flipped_frames": self.flipped_frames,
            "flipped_frames_fraction": self.flipped,
            "flipped_frames_limit": MAX_FLIPPED,
            "latent_difference_relative": self.latent_difference,
            "sample_difference": self.sample_difference,
            "difference_limit": MAX_DIFFERENCE,
            **speeds,
            "round_trip_times_real_time": round(
                self.speed(self.encode_times_s + self.decode_times_s), 2
            ),
            **p95,
            "latency_computed_ms": round(1000 * self.latency_s, 3),
            "latency_wait_ms": round(1000 * self.wait_s, 3),
            "latency_onset_ms": round(1000 * self.onset_s, 3),
            "latency_limit_ms": 1000 * MAX_LATENCY_S,
            "lag_ms": round(1000 * self.lag_s, 3),
            "failures": [{"key": key, "error": error} for key, error in self.failures.items()],
            "machine": self.machine,
        }


def evaluate_codec_streaming(
    codec: LoadedCodec,
    utterances: Iterable[Utterance],
    *,
    on_utterance: Callable[[], None] | None = None,
) -> CodecStreaming:
    """Code each recording frame by frame on one thread, and compare with one call.

    Args:
        codec: a loaded codec.
        utterances: what ``read_manifest`` returned, or a part of it; the texts don't matter.
        on_utterance: is called after each utterance.
    """
    rate, frame_size = codec.config.sample_rate, codec.config.frame_size
    failures: dict[str, str] = {}
    latent_difference = sample_difference = 0.0
    flipped = num_files = num_samples = 0
    lags = []
    times: tuple[list[float], list[float]] = [], []
    with one_thread(), torch.inference_mode():
        time_steps(codec, torch.zeros(10 * frame_size))  # the first ones allocate
        for utterance in utterances:
            try:
                samples = torch.from_numpy(read_recording(utterance).at_rate(rate))
            except (AudioError, ManifestError) as exc:
                failures[utterance.key] = str(exc)
            else:
                # whole frames, with what brings out the end
                short = codec.network.delay + -(len(samples) + codec.network.delay) % frame_size
                padded = F.pad(samples, (0, short)).unsqueeze(0)
                found = compare_steps(codec, padded)
                latent_difference = max(latent_difference, found[0])
                sample_difference = max(sample_difference, found[1])
                flipped += found[2]
                decoded = time_steps(codec, samples, times)
                lags.append(find_lag(samples, decoded, rate))
                num_files, num_samples = num_files + 1, num_samples + len(samples)
            if on_utterance is not None:
                on_utterance()
        wait, onset = measure_wait(codec), measure_onset(codec)
        machine = describe_machine(codec.device.type)
    return CodecStreaming(
        codec=codec.name,
        codec_hash=codec.hash,
        parameters=sum(p.numel() for p in codec.network.parameters()),
        frame_s=frame_size / rate,
        num_files=num_files,
        audio_s=num_samples / rate,
        frames=len(times[0]),
        flipped_frames=flipped,
        latent_difference=latent_difference,
        sample_difference=sample_difference,
        encode_times_s=np.array(times[0]),
        decode_times_s=np.array(times[1]),
        latency_s=codec.network.latency / rate,
        wait_s=wait / rate,
        onset_s=onset / rate,
        lag_s=median(lags) if lags else 0.0,
        machine=machine,
        failures=failures,
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch have one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def compare_steps(codec: LoadedCodec, samples: Tensor) -> tuple[float, float, int]:
    """Compare one call with steps of one frame, by torch and as sessions run them.

    Args:
        codec: a loaded codec.
        samples: (1, samples), whole frames.

    Returns:
        the largest difference of a latent over the largest latent; the largest difference of a
        sample that is decoded from one call's codes; in how many frames a code differs.
    """
    network, device = codec.network, codec.device
    size = codec.config.frame_size
    latents, _ = network.narrow_step(samples.to(device), network.init_encoding(1))
    codes = network.quantiser.encode(latents)
    decoded = network.decode(codes)
    encoder, decoder = network.init_encoding(1), network.decoder.init_state(1)
    latent_pieces, sample_pieces = [], []
    for i in range(codes.shape[2]):
        frame = samples[:, i * size : (i + 1) * size].to(device).clone()
        latent, encoder = network.narrow_step(frame, encoder)
        latent_pieces.append(latent)
        piece, decoder = network.decode_step(codes[:, :, i : i + 1].clone(), decoder)
        sample_pieces.append(piece)
    streamed, stepped = torch.cat(latent_pieces, 1), torch.cat(sample_pieces, 1)
    differing = (network.quantiser.encode(streamed) != codes).any(1)
    live_codes, live = push_frames(codec, samples, codes.cpu().numpy())
    differing_live = (live_codes != codes.cpu().numpy()).any(1)
    late = decoded[:, network.delay :].cpu()
    return (
        float((streamed - latents).abs().max() / latents.abs().max()),
        max(float((stepped - decoded).abs().max()), float((live - late).abs().max())),
        max(int(differing.sum()), int(differing_live.sum())),
    )


def push_frames(
    codec: LoadedCodec, samples: Tensor, codes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Tensor]:
    """Send (1, samples) through one session and ``codes`` through another, a frame at a time."""
    encoder, decoder = EncoderSession(codec), DecoderSession(codec)
    size = codec.config.frame_size
    encoded, decoded = [], []
    for i in range(codes.shape[2]):
        encoded.append(encoder.push(samples[:, i * size : (i + 1) * size].numpy()))
        decoded.append(decoder.push(codes[:, :, i : i + 1]))
    return np.concatenate(encoded, axis=2), torch.from_numpy(np.concatenate(decoded, axis=1))


def time_steps(
    codec: LoadedCodec, samples: Tensor, times: tuple[list[float], list[float]] | None = None
) -> Tensor:
    """Send (samples,) through two sessions, a frame at a time, and note what each step takes.

    Returns:
        (samples,) as they come out.
    """
    size = codec.config.frame_size
    encoder, decoder = EncoderSession(codec), DecoderSession(codec)
    audio = F.pad(samples, (0, -len(samples) % size + size)).numpy()[np.newaxis]
    pieces = []
    for at in range(0, audio.shape[1], size):
        started = time.perf_counter()
        codes = encoder.push(audio[:, at : at + size])
        between = time.perf_counter()
        pieces.append(decoder.push(codes))
        ended = time.perf_counter()
        if times is not None:
            times[0].append(between - started)
            times[1].append(ended - between)
    return torch.from_numpy(np.concatenate(pieces, axis=1)[0, : len(samples)])


def measure_wait(codec: LoadedCodec) -> int:
    """Return how many samples a sample waits at most, from its beginning until it is heard.

    Samples come one at a time, as in a call, and each step is thought to take no time.
    """
    encoder, decoder = EncoderSession(codec), DecoderSession(codec)
    silence = np.zeros((1, 1), np.float32)
    heard = longest = 0
    for pushed in range(1, 6 * codec.config.frame_size + 1):
        size = decoder.push(encoder.push(silence)).shape[1]
        if size:
            longest = max(longest, pushed - heard)
            heard += size
    return longest


def measure_onset(codec: LoadedCodec) -> int:
    """Return by how many samples a sound changes what is heard before it begins, at most.

    Noise, and louder noise from some sample on, at places all over a frame: a sample is heard no
    earlier than what has changed it.
    """
    size = codec.config.frame_size
    first, length = 20 * size, 24 * size
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(length, generator=generator)
    places = range(first, first + size, ONSET_STEP)
    quiet = 0.01 * noise
    rows = torch.stack([quiet, *(torch.cat([quiet[:at], 0.3 * noise[at:]]) for at in places)])
    decoded = codec.network.reconstruct(rows.to(codec.device)).cpu()
    changed = (decoded[1:] - decoded[:1]).abs() > SMALLEST_CHANGE
    # a place where nothing changes would be found before all others: it has no first change
    earliest = torch.where(changed.any(1), changed.int().argmax(1), length)
    return max(at - int(heard) for at, heard in zip(places, earliest, strict=True))


def find_lag(original: Tensor, decoded: Tensor, sample_rate: int) -> float:
    """Return by how many seconds ``decoded`` is late, by its loudness in each millisecond."""
    block = sample_rate * BLOCK_MS // 1000

    def loudness(x: Tensor) -> Tensor:
        whole = x[: len(x) // block * block].view(-1, block)
        envelope = whole.square().mean(1).sqrt()
        return envelope - envelope.mean()

    if len(original) < block:
        return 0.0
    late = F.pad(loudness(decoded), (MAX_LAG_MS // BLOCK_MS, 0))  # so that early is found, too
    delay = find_delay(loudness(original), late, 2 * MAX_LAG_MS // BLOCK_MS)
    return (delay * BLOCK_MS - MAX_LAG_MS) / 1000


def percentile_ms(times_s: NDArray[np.float64]) -> float:
    """Return what 95 of 100 steps stay below, in milliseconds."""
    return 1000 * float(np.percentile(times_s, 95)) if len(times_s) else 0.0
