"""Speech made faster or slower: of the right length and pitch, the same in any pieces."""

import random

import numpy as np
import pytest

from audiossm.audio import Stretch
from audiossm.errors import AudioError
from contract import random_split

RATE = 16000


def make_sound(seconds: float = 1.0) -> np.ndarray:
    """A tone that comes and goes, silence, and noise."""
    times = np.arange(round(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * 200 * times) * (np.sin(2 * np.pi * 3 * times) > -0.5)
    noise = np.random.default_rng(0).normal(0, 0.05, len(times)) * (times > 0.6 * seconds)
    return (0.3 * tone + noise).astype(np.float32)


def stretch(samples, speed, sizes=None):
    machine = Stretch(RATE, speed)
    pieces = np.split(samples, np.cumsum(sizes)[:-1]) if sizes else [samples]
    return np.concatenate([*[machine.push(piece) for piece in pieces], machine.finish()])


@pytest.mark.parametrize("speed", [0.25, 0.7, 1.0, 1.1, 2.0, 4.0])
def test_any_pieces_give_the_whole_result(speed):
    samples = make_sound()
    whole = stretch(samples, speed)
    assert whole.dtype == np.float32 and len(whole) == round(len(samples) / speed)
    for trial in range(3):
        sizes = random_split(len(samples), random.Random(trial))
        np.testing.assert_array_equal(stretch(samples, speed, sizes), whole)


@pytest.mark.parametrize("size", [0, 1, 200, 481, 1000])
def test_short_ones_have_their_length_too(size):
    for speed in (0.25, 1.7, 4.0):
        assert len(stretch(make_sound()[:size], speed)) == round(size / speed)


@pytest.mark.parametrize("speed", [0.5, 1.3, 2.5])
def test_a_tone_keeps_its_pitch_and_loudness(speed):
    tone = 0.5 * np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE).astype(np.float32)
    made = stretch(tone, speed)[400:-800]  # at the end silence follows
    spectrum = np.abs(np.fft.rfft(made * np.hanning(len(made))))
    assert spectrum.argmax() * RATE / len(made) == pytest.approx(200, abs=4)
    assert np.sqrt(np.square(made).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.03)


def test_a_state_goes_on_exactly():
    samples, speed = make_sound(), 1.4
    machine, other = Stretch(RATE, speed), Stretch(RATE, speed)
    first = machine.push(samples[:7000])
    fork = machine.fork()
    other.load(machine.state())
    rest = [np.concatenate([one.push(samples[7000:]), one.finish()]) for one in
            (machine, fork, other)]  # fmt: skip
    for made in rest:
        np.testing.assert_array_equal(np.concatenate([first, made]), stretch(samples, speed))
    assert machine.num_out == other.num_out == len(stretch(samples, speed))
    for wrong in (np.zeros(3), np.full(300, np.inf), np.full(300, -1.0)):
        with pytest.raises(ValueError, match="a state of a stretch"):
            other.load(wrong)


def test_silence_stays_silent_and_memory_small():
    machine = Stretch(RATE, 2.0)
    for _ in range(50):
        assert not machine.push(np.zeros(RATE // 10, np.float32)).any()
        assert len(machine.kept) < 3000
    with pytest.raises(AudioError, match=r"speed is 5, must be 0.25 to 4"):
        Stretch(RATE, 5.0)
