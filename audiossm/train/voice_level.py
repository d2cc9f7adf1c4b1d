"""How loud a voice speaks: a gain makes voices alike, whose recordings weren't."""

from dataclasses import replace
from math import inf, log10

import numpy as np
from numpy.typing import NDArray

from audiossm.models import Voice
from audiossm.models.voices import MAX_GAIN_DB
from audiossm.streaming import Speaker

__all__ = ["LEVEL_DB", "find_level", "level_voice"]

LEVEL_DB = -20.0  # of what sounds, below a square wave of full scale
GATE_DB = -26.0  # frames that are so much below the loudest one are pauses
HIGHEST_DB = -1.0  # of a sample
FRAME_S = 0.02
TEXTS = (
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background.",
    "It's easy to tell the depth of a well.",
    "These days a chicken leg is a rare dish.",
)


def find_level(samples: NDArray[np.float32], sample_rate: int) -> float:
    """Return the level of what sounds in speech (samples,), dB of full scale; -inf of silence."""
    size = round(FRAME_S * sample_rate)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    powers = np.square(frames, dtype=np.float64).mean(axis=1)
    most = powers.max(initial=0.0)
    if not most > 0:
        return -inf
    return 10 * log10(powers[powers > most * 10 ** (GATE_DB / 10)].mean())


def level_voice(speaker: Speaker, voice: Voice) -> Voice:
    """Return the voice with the gain by which it is as loud as others: some sentences are said.

    Its samples stay below full scale, and silence stays as it is.
    """
    bare = replace(voice, gain_db=0.0)
    said = [speaker.say(text, voice=bare, seed=seed) for seed, text in enumerate(TEXTS)]
    samples = np.concatenate([speech.samples for speech in said])
    level = find_level(samples, speaker.sample_rate)
    if level == -inf:
        return bare
    room = HIGHEST_DB - 20 * log10(float(np.abs(samples).max()))
    gain_db = float(np.clip(min(LEVEL_DB - level, room), -MAX_GAIN_DB, MAX_GAIN_DB))
    return replace(bare, gain_db=round(gain_db, 1))
