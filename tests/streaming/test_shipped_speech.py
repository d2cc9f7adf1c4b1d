"""What the shipped generator says is understood by the shipped recogniser."""

import io

import numpy as np
import pytest
import soundfile

from audiossm.streaming import Speaker, Transcriber

TEXT = "the old house stood by the river and nobody had lived there for many years"


@pytest.fixture(scope="module")
def speaker():
    return Speaker.load()


@pytest.fixture(scope="module")
def transcriber():
    return Transcriber.load()


@pytest.mark.parametrize("voice", ["bdl", "kathleen", "lj", "slt"])
def test_each_voice_is_understood(speaker, transcriber, voice):
    samples = speaker.say(f"{TEXT}.", voice=voice, frames_per_step=25).samples
    file = io.BytesIO()
    soundfile.write(file, samples, speaker.sample_rate, format="WAV")
    told = transcriber.transcribe(io.BytesIO(file.getvalue())).text.lower().split()
    said = TEXT.split()
    assert sum(word in told for word in said) >= len(said) - 2, told
    assert abs(len(told) - len(said)) <= 2, told
    assert 3.0 < len(samples) / speaker.sample_rate < 8.0
    assert 0.01 < np.sqrt(np.mean(samples**2)) < 0.5
