"""Whether a voice is the one that it is named after: its pitch and its spectral envelope."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch

from audiossm.evaluate.cepstral_distance import cepstral_distance
from audiossm.evaluate.pitch import track_pitch
from audiossm.evaluate.speech_takes import Studio, Take
from audiossm.manifest import Utterance
from audiossm.models import Voice
from audiossm.models.voices import make_nobody

__all__ = ["Likeness", "measure_voices", "median_pitch"]


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """A voice beside recordings of whoever it is; ``nobody`` is what the model says without one.

    Distances are means of mel-cepstral distances in dB; pitches are medians in Hz, None if nothing
    is voiced. ``default_voice`` is who speaks where nobody chose a voice, None for a model without
    one; its distance to the same recordings is None where the voice has its name, or there is none.
    """

    voice: str
    num_recordings: int
    pitch: float | None
    real_pitch: float | None
    distance: float
    nobody_distance: float
    seconds: float
    real_seconds: float
    default_voice: str | None = None
    default_distance: float | None = None

    @property
    def pitch_error(self) -> float | None:
        """By which fraction the pitch is too high, or too low."""
        if self.pitch is None or self.real_pitch is None:
            return None
        return self.pitch / self.real_pitch - 1

    @property
    def nearer(self) -> float:
        """By which fraction it is nearer to the recordings than nobody's voice."""
        return 1 - self.distance / self.nobody_distance

    @property
    def nearer_than_default(self) -> float | None:
        """By which fraction it is nearer to the recordings than the default voice."""
        if self.default_distance is None:
            return None
        return 1 - self.distance / self.default_distance

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as a JSON object."""
        return {
            **vars(self),
            "pitch_error": self.pitch_error,
            "nearer_than_nobody": self.nearer,
            "nearer_than_default": self.nearer_than_default,
        }


def measure_voices(
    studio: Studio,
    voices: Sequence[Voice],
    recordings: Mapping[str, Sequence[Utterance]],
    default: Voice,
) -> tuple[Likeness, ...]:
    """Compare voices with recordings of the same sentences, sent through the codec.

    Args:
        studio: says the sentences.
        voices: those without recordings are left out.
        recordings: of each voice, by its name.
        default: who speaks where no voice is chosen; says the sentences of the others, too.

    Raises:
        DependencyError: librosa is not installed.
    """
    nobody = make_nobody(studio.speaker)
    found = []
    for voice in voices:
        utterances = recordings.get(voice.name, ())
        if not utterances:
            continue
        real = [studio.replay(utterance) for utterance in utterances]
        said = [studio.say(item, voice, number) for number, item in enumerate(utterances)]
        other = [studio.say(item, nobody, number) for number, item in enumerate(utterances)]
        usual = []
        if default.name not in (nobody.name, voice.name):  # those are said already
            usual = [studio.say(item, default, number) for number, item in enumerate(utterances)]
        found.append(
            Likeness(
                voice=voice.name,
                num_recordings=len(real),
                pitch=median_pitch(said),
                real_pitch=median_pitch(real),
                distance=fmean(map(find_distance, said, real)),
                nobody_distance=fmean(map(find_distance, other, real)),
                seconds=round(sum(take.seconds for take in said), 2),
                real_seconds=round(sum(take.seconds for take in real), 2),
                default_voice=default.name or None,
                default_distance=fmean(map(find_distance, usual, real)) if usual else None,
            )
        )
    return tuple(found)


def find_distance(a: Take, b: Take) -> float:
    """Return the mel-cepstral distance between two takes of a sentence."""
    here, there = torch.from_numpy(a.samples), torch.from_numpy(b.samples)
    return cepstral_distance(here, there, a.sample_rate)


def median_pitch(takes: Sequence[Take]) -> float | None:
    """Return the median pitch over all voiced frames, in Hz."""
    pitch = np.concatenate(
        [track_pitch(torch.from_numpy(take.samples), take.sample_rate).pitch for take in takes]
    )
    voiced = pitch[np.isfinite(pitch)]
    return float(np.median(voiced)) if len(voiced) else None
