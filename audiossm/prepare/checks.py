"""What is wrong with a recording and its text, and the recording as it goes into a shard."""

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from audiossm.audio import mix, open_audio, resample
from audiossm.audio.encoded import encode_flac, encode_opus
from audiossm.errors import AudioError, ManifestError
from audiossm.prepare.layouts import Recording
from audiossm.text import normalise_text

__all__ = ["SAMPLE_RATE", "Clip", "Limits", "find_text_fault", "inspect", "trim"]

SAMPLE_RATE = 16000  # Hz, of what is written
FRAME = 320  # samples, of the level
MARGIN = 6400  # samples of silence kept at either end
FULL_SCALE = 0.999
OVERSHOOT_S = 0.5  # by which a piece may end after its file, as Kaldi's extract-segments has it
RUN = 3  # samples at full scale in a row: one alone may be a peak
ENCODERS = {"flac": encode_flac, "opus": encode_opus}

Samples = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Beyond which a recording is left out.

    Attributes:
        shortest_s: seconds, with the silence at its ends cut down.
        longest_s: likewise: the recognisers' rows have 20.48 s, and what is longer is never heard.
        slowest: characters of the text a second of speech; fewer aren't that text.
        fastest: likewise; more aren't.
        most_clipped: share of the samples that stand at full scale, three and more in a row.
        quietest_db: of full scale, its loud frames.
    """

    shortest_s: float = 0.4
    longest_s: float = 20.0
    slowest: float = 5.5
    fastest: float = 26.0
    most_clipped: float = 0.01
    quietest_db: float = -60.0


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A recording that was looked at; ``fault``, if any, is why it is left out.

    Attributes:
        recording: what it is.
        fault: a few words, the same for all that lack the same.
        detail: what was found, for a person.
        source_rate: Hz, of the file; 0 if it wasn't read.
        channels: of the file.
        source_s: seconds of the file.
        seconds: with the silence at the ends cut down.
        speech_s: without it.
        clipped: share of the samples at full scale.
        digest: of the samples: equal recordings have equal ones.
        data: the member of a shard, none with a fault.
    """

    recording: Recording
    fault: str = ""
    detail: str = ""
    source_rate: int = 0
    channels: int = 0
    source_s: float = 0.0
    seconds: float = 0.0
    speech_s: float = 0.0
    clipped: float = 0.0
    digest: str = ""
    data: bytes = field(default=b"", repr=False)

    @property
    def rate(self) -> float:
        """Characters of the text a second of speech."""
        return len(self.recording.utterance.text) / self.speech_s if self.speech_s else 0.0


def find_text_fault(text: str) -> str:
    """Say why a text can't be a transcript; nothing if it can."""
    if not normalise_text(text):
        return "no words in the text"
    if any(map(str.isdigit, text)):
        return "digits in the text"  # nobody knows how they were said
    if any(char.isalnum() and not normalise_text(char) for char in set(text)):
        return "foreign letters in the text"
    return ""


def inspect(recording: Recording, limits: Limits, coding: str = "flac") -> Clip:
    """Read a recording, look at it, and encode it at ``SAMPLE_RATE``, its channels mixed.

    Nothing that a file holds makes this fail: the clip then has a fault.
    """
    clip = Clip(recording=recording, fault=recording.fault)
    fault = clip.fault or find_text_fault(recording.utterance.text)
    if fault:
        return replace(clip, fault=fault, detail=recording.utterance.text[:80])
    try:
        audio, rate, channels = read(recording)
    except (AudioError, ManifestError, OSError, MemoryError) as exc:
        return replace(clip, fault="can't be read (to its end)", detail=str(exc))
    if not audio.size:
        return replace(clip, fault="can't be read (to its end)", detail="there are no samples")
    clip = replace(
        clip,
        source_rate=rate,
        channels=channels,
        source_s=len(audio) / rate,
        clipped=measure_clipping(audio),
        digest=hashlib.sha256(audio.tobytes()).hexdigest(),
    )
    x = resample(torch.from_numpy(audio).unsqueeze(0), rate, SAMPLE_RATE)[0].numpy()
    speech, speech_s = trim(x, limits.quietest_db)
    clip = replace(clip, seconds=len(speech) / SAMPLE_RATE, speech_s=speech_s)
    fault, detail = find_sound_fault(clip, limits)
    if fault:
        return replace(clip, fault=fault, detail=detail)
    gain = 1.0
    if coding == "opus":
        gain = min(1.0, 0.95 / float(np.abs(speech).max()))  # Opus overshoots
    return replace(clip, data=ENCODERS[coding](speech * np.float32(gain), SAMPLE_RATE))


def find_sound_fault(clip: Clip, limits: Limits) -> tuple[str, str]:
    """Say what is wrong with the sound, and what was found; nothing and nothing if all is well."""
    if not clip.speech_s:
        return "silent", f"no frame is louder than {limits.quietest_db:.0f} dB of full scale"
    if clip.clipped > limits.most_clipped:
        return "clipped", f"{100 * clip.clipped:.1f} % of the samples stand at full scale"
    if clip.seconds < limits.shortest_s:
        return "too short", f"{clip.seconds:.2f} s, expected {limits.shortest_s} s or more"
    if clip.seconds > limits.longest_s:
        return "too long", f"{clip.seconds:.1f} s, expected {limits.longest_s} s or less"
    if not limits.slowest <= clip.rate <= limits.fastest:
        found = f"{clip.rate:.1f} characters a second of speech"
        return "text doesn't fit: speed", f"{found}, expected {limits.slowest} to {limits.fastest}"
    return "", ""


def read(recording: Recording) -> tuple[Samples, int, int]:
    """Return (samples,) float32 of all channels together, the rate in Hz, and how many channels.

    Raises:
        AudioError: it can't be read, or ends before the piece does.
        ManifestError: its shard is missing or lacks it.
    """
    with open_audio(recording.utterance.open()) as reader:
        rate = reader.sample_rate
        reader.skip(round(recording.start_s * rate))
        blocks, left = [], None
        if recording.end_s is not None:
            left = round(recording.end_s * rate) - round(recording.start_s * rate)
        while left is None or left > 0:
            block = reader.read(min(1 << 16, left or 1 << 16))
            if not block.shape[1]:
                break
            blocks.append(block)
            left = None if left is None else left - block.shape[1]
        if left and left > OVERSHOOT_S * rate:
            raise AudioError(f"{reader.name}: ends {left / rate:.2f} s before its piece does")
        if not blocks:
            return np.zeros(0, np.float32), rate, reader.channels
        return mix(np.concatenate(blocks, axis=1)), rate, reader.channels


def measure_clipping(audio: Samples) -> float:
    """Return the share of (samples,) in runs of ``RUN`` or more that stand at full scale."""
    full = np.concatenate([[False], np.abs(audio) >= FULL_SCALE, [False]])
    edges = np.flatnonzero(full[1:] != full[:-1])
    lengths = edges[1::2] - edges[::2]
    return float(lengths[lengths >= RUN].sum()) / max(len(audio), 1)


def trim(x: Samples, quietest_db: float = -60.0) -> tuple[Samples, float]:
    """Cut silence at the ends of (samples,) down to ``MARGIN``; also give the seconds between."""
    frames = x[: len(x) // FRAME * FRAME].reshape(-1, FRAME)
    level = 10 * np.log10(np.square(frames).mean(axis=1) + 1e-10)  # dB of full scale
    quiet, loud = np.percentile(level, (10, 97)) if len(level) else (-100.0, -100.0)
    if loud < quietest_db:
        return x[:0], 0.0
    # where noise hides the pauses, all of it counts as speech
    floor = max(quiet + 0.3 * (loud - quiet), loud - 35) if loud - quiet > 8 else -np.inf
    heard = np.flatnonzero(level > floor)
    start, end = int(heard[0]) * FRAME, int(heard[-1] + 1) * FRAME
    return x[max(0, start - MARGIN) : end + MARGIN], (end - start) / SAMPLE_RATE
