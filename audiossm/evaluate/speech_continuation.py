"""What a generator knows of speech without a text: bits per frame, and where a long run gets to."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from audiossm.decoding.sampling import Sampling
from audiossm.errors import ConfigError
from audiossm.evaluate.recording import Recording, read_recording
from audiossm.manifest import Utterance
from audiossm.models import LoadedGenerator, delay_codes
from audiossm.models.voices import make_nobody
from audiossm.streaming import Speaker
from audiossm.streaming.code_files import FRAMES_PER_STEP
from audiossm.streaming.coding import EncoderSession

__all__ = ["CodeBits", "FreeRun", "count_bits", "guess_codes", "run_freely"]

PROMPT_S, FREE_S = 3.0, 60.0
EARLY, LATE = (5.0, 15.0), (50.0, 60.0)  # seconds of a free run that are compared
SMOOTHING = 0.5  # as often more each code is counted

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class CodeBits:
    """Bits per frame that codes of speech cost, of each group.

    ``control`` is another model's; ``unigram`` are the codes as often as they come in the other
    recordings. ``later`` are those of the frames behind as much as a free run's prompt, if there
    are any: before them a model has heard little that it could go on with.
    """

    frames: int
    model: tuple[float, ...]
    unigram: tuple[float, ...]
    control: tuple[float, ...] | None = None
    later: "CodeBits | None" = None

    @property
    def saved(self) -> float | None:
        """By which fraction the model's are fewer than the control's."""
        return None if self.control is None else 1 - sum(self.model) / sum(self.control)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as a JSON object."""
        found: dict[str, Any] = {"frames": self.frames}
        for name in ("model", "control", "unigram"):
            groups = getattr(self, name)
            if groups is not None:
                found[f"{name}_bits"] = sum(groups)
                found[f"{name}_bits_of_groups"] = list(groups)
        if self.saved is not None:
            found["fewer_than_control"] = self.saved
        if self.later is not None:
            found["after_prompt"] = self.later.to_json()
        return found


@dataclass(frozen=True, kw_only=True)
class FreeRun:
    """A minute of what the model says after a prompt, its end against its beginning."""

    key: str
    early_rms: float
    late_rms: float
    early_entropy: float  # bits a code, mean over groups
    late_entropy: float

    @property
    def louder_db(self) -> float:
        """By how much the end is louder."""
        return 20 * math.log10(max(self.late_rms, 1e-9) / max(self.early_rms, 1e-9))

    @property
    def entropy_change(self) -> float:
        """By which fraction codes are more varied at the end."""
        return self.late_entropy / self.early_entropy - 1 if self.early_entropy else math.inf

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as a JSON object."""
        return {
            **vars(self),
            "louder_db": self.louder_db,
            "entropy_change": self.entropy_change,
        }


def count_bits(
    generator: LoadedGenerator,
    utterances: Iterable[Utterance],
    control: LoadedGenerator | None = None,
    on_utterance: Callable[[], None] | None = None,
) -> CodeBits:
    """Have models guess each code of recordings from those before it, with neither text nor voice.

    All frames count, the first one too, of which nothing was heard before.

    Raises:
        AudioError: a recording can't be read.
        ConfigError: the control is one of other codes; or no recording has a frame.
    """
    if control is not None:
        pairs = [
            (model.codec.codes_hash, model.config.num_groups) for model in (generator, control)
        ]
        if pairs[0] != pairs[1]:
            raise ConfigError(
                f"control {control.name!r} makes other codes than {generator.name!r}: codecs and "
                f"groups are {pairs[1]} and {pairs[0]}"
            )
    models = [generator] if control is None else [generator, control]
    coded: list[Codes] = []
    bits: list[list[Floats]] = [[] for _ in models]
    for utterance in utterances:
        codes = encode(generator, read_recording(utterance))
        if codes.shape[1]:
            coded.append(codes)
            for model, found in zip(models, bits, strict=True):
                found.append(guess_codes(model, codes))
        if on_utterance is not None:
            on_utterance()
    if not coded:
        raise ConfigError("the recordings have no frame whose codes could be guessed")
    bits.append(count_unigram(coded, generator.config.num_codes))
    prompt = round(PROMPT_S * generator.sample_rate / generator.frame_size)
    whole, later = (
        average([[codes[:, first:] for codes in found] for found in bits]) for first in (0, prompt)
    )
    assert whole is not None
    return replace(whole, later=later)


def average(bits: Sequence[Sequence[Floats]]) -> CodeBits | None:
    """Return the means over recordings' frames: the model's, a control's if any, the unigram's."""
    joined = [np.concatenate(found, axis=1) for found in bits]
    frames = joined[0].shape[1]
    if not frames:
        return None
    model, *control, unigram = [tuple(found.mean(axis=1).tolist()) for found in joined]
    control_bits = control[0] if control else None
    return CodeBits(frames=frames, model=model, unigram=unigram, control=control_bits)


def encode(generator: LoadedGenerator, recording: Recording) -> Codes:
    """Return the codes of a recording's whole frames, (groups, frames)."""
    encoder = EncoderSession(
        generator.codec,
        sample_rate=recording.sample_rate,
        num_groups=generator.config.num_groups,
        frames_per_step=FRAMES_PER_STEP,
    )
    pieces = [encoder.push(recording.samples[np.newaxis]), encoder.finish()]
    codes: Codes = np.concatenate(pieces, axis=2)[0]
    return codes[:, : encoder.num_samples // generator.frame_size]


@torch.no_grad()
def guess_codes(generator: LoadedGenerator, codes: Codes) -> Floats:
    """Return the bits that each code costs, (groups, frames), as (groups, frames)."""
    network, none = generator.network, generator.config.num_codes
    targets = delay_codes(torch.from_numpy(codes.T.copy()).unsqueeze(0), none)
    heard = F.pad(targets, (0, 0, 1, 0), value=none)[:, :-1]
    config = generator.config
    nothing = torch.zeros(1, config.window, 3, dtype=torch.int64)
    silent = network.read(nothing)[:, config.units_before].unsqueeze(1)
    ages = torch.zeros(heard.shape[:2], dtype=torch.int64)
    x = network.embed(heard, silent, ages, torch.zeros(1, config.d_voice), torch.zeros(1))
    outputs, _ = network.step(x, network.init_state(1))
    guesses = outputs[..., :-1].view(*targets.shape, none).double().log_softmax(-1)
    places = targets.clamp(max=none - 1).unsqueeze(-1)
    found = -guesses.gather(-1, places)[0, :, :, 0].T / math.log(2)
    frames = codes.shape[1]
    rows = [found[group, group : group + frames] for group in range(config.num_groups)]
    bits: Floats = torch.stack(rows).numpy()
    return bits


def count_unigram(coded: Sequence[Codes], num_codes: int) -> list[Floats]:
    """Return the bits of codes that are guessed by how often each comes in the other recordings."""
    counts = [np.stack([np.bincount(row, minlength=num_codes) for row in codes]) for codes in coded]
    total = np.sum(counts, axis=0)
    found = []
    for codes, own in zip(coded, counts, strict=True):
        others = total - own + SMOOTHING
        log_shares = np.log2(others / others.sum(axis=1, keepdims=True))
        found.append(-np.take_along_axis(log_shares, codes, axis=1))
    return found


def run_freely(
    speaker: Speaker, utterance: Utterance, *, sampling: Sampling | None = None, seed: int = 0
) -> FreeRun:
    """Go on for a minute from the first 3 s of a recording, in nobody's voice.

    Raises:
        AudioError: the recording can't be read, or is shorter than a frame.
    """
    recording = read_recording(utterance)
    speech = speaker.continue_audio(
        recording.samples[: round(PROMPT_S * recording.sample_rate)],
        recording.sample_rate,
        FREE_S,
        voice=make_nobody(speaker),
        sampling=sampling,
        seed=seed,
    )
    rate = speech.sample_rate
    frames_a_second = rate / speaker.frame_size
    parts = [speech.samples[round(a * rate) : round(b * rate)] for a, b in (EARLY, LATE)]
    early_rms, late_rms = (
        float(np.sqrt(np.square(part, dtype=np.float64).mean())) for part in parts
    )
    early_entropy, late_entropy = (
        find_entropy(speech.codes[:, round(a * frames_a_second) : round(b * frames_a_second)])
        for a, b in (EARLY, LATE)
    )
    return FreeRun(
        key=utterance.key,
        early_rms=early_rms,
        late_rms=late_rms,
        early_entropy=early_entropy,
        late_entropy=late_entropy,
    )


def find_entropy(codes: Codes) -> float:
    """Return the entropy of how often each code comes, in bits, mean over groups."""
    entropies = []
    for row in codes:
        shares = np.unique(row, return_counts=True)[1] / len(row)
        entropies.append(float(-(shares * np.log2(shares)).sum()))
    return fmean(entropies)
