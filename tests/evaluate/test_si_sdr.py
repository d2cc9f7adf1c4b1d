"""SI-SDR is what its definition says, and nothing but the shape of the waveform counts."""

import math

import numpy as np
import pytest
import torch

from audiossm.errors import AudioError, ShapeError
from audiossm.evaluate.si_sdr import MAX_SI_SDR, si_sdr


@pytest.mark.parametrize("gain", [0.01, 0.3, 1.0, 7.0])
def test_it_is_the_correlation_of_both_in_other_words(gain):
    x = torch.randn(4000)
    y = x + gain * torch.randn(4000)
    # without means: rho^2 of the power is the original's, the rest is not
    a, b = x.double().numpy(), y.double().numpy()
    rho = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    assert si_sdr(x, y) == pytest.approx(10 * math.log10(rho**2 / (1 - rho**2)), abs=1e-3)


def test_what_is_added_at_right_angles_is_a_ratio_of_energies():
    x, noise = torch.zeros(400), torch.zeros(400)
    x[::2], noise[1::2] = 1.0, 0.1
    assert si_sdr(x, x + noise) == pytest.approx(20, abs=1e-5)


def test_loudness_and_sign_do_not_count():
    x, noise = torch.randn(3000), torch.randn(3000)
    expected = si_sdr(x, x + noise)
    for gain in (1e-3, 5.0, -1.0):
        assert si_sdr(x, gain * (x + noise)) == pytest.approx(expected, abs=1e-3)
        assert si_sdr(gain * x, x + noise) == pytest.approx(expected, abs=1e-3)


def test_equals_and_strangers_have_the_ends_of_the_scale():
    x, y = torch.zeros(10), torch.zeros(10)
    x[0] = y[1] = 1.0
    assert si_sdr(x, 0.25 * x) == MAX_SI_SDR
    assert si_sdr(x, y) == -MAX_SI_SDR


def test_another_phase_is_far_below_zero():
    time = torch.arange(16000) / 16000
    a, b = (torch.sin(2 * math.pi * (200 * time + shift)) for shift in (0, 0.249))
    assert si_sdr(a, b) < -40


def test_silence_and_other_lengths_are_refused():
    x = torch.randn(100)
    for pair in ((x, 0 * x), (0 * x, x)):
        with pytest.raises(AudioError, match="digital silence"):
            si_sdr(*pair)
    with pytest.raises(ShapeError, match=r"\(100,\), \(99,\)"):
        si_sdr(x, x[1:])
