"""Voices are as loud as each other, by a gain that leaves room for their peaks."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest

from audiossm.models.voices import make_nobody
from audiossm.train.voice_level import HIGHEST_DB, LEVEL_DB, TEXTS, find_level, level_voice
from tiny_speaker import make_speaker

SPEAKER = make_speaker()


def test_pauses_do_not_count():
    tone = np.sin(np.arange(16000) * 0.3).astype(np.float32) * 0.1
    quiet = np.random.default_rng(0).normal(0, 1e-4, 48000).astype(np.float32)
    expected = 20 * np.log10(0.1 / np.sqrt(2))
    assert find_level(tone, 16000) == pytest.approx(expected, abs=0.05)
    whole = np.concatenate([quiet, tone, quiet])
    assert find_level(whole, 16000) == pytest.approx(expected, abs=0.05)
    assert find_level(np.zeros(16000, np.float32), 16000) == -inf
    assert find_level(np.zeros(0, np.float32), 16000) == -inf


def test_what_a_levelled_voice_says_is_as_loud_as_asked_or_as_there_is_room_for():
    quiet = replace(make_nobody(SPEAKER), name="quiet")
    levelled = level_voice(SPEAKER, quiet)
    assert levelled.gain_db and levelled == level_voice(SPEAKER, levelled)  # whatever it had
    said = [SPEAKER.say(text, voice=levelled, seed=seed) for seed, text in enumerate(TEXTS)]
    samples = np.concatenate([speech.samples for speech in said])
    highest = 20 * np.log10(np.abs(samples).max())
    level = find_level(samples, SPEAKER.sample_rate)
    assert highest <= HIGHEST_DB + 0.06 and level <= LEVEL_DB + 0.06
    assert abs(level - LEVEL_DB) < 0.06 or abs(highest - HIGHEST_DB) < 0.06
