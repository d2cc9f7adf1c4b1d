"""The phase distances hear what the spectral ones are deaf to."""

import pytest
import torch

from audiossm.train.phase import PhaseLoss
from audiossm.train.spectral import SpectralLoss
from tiny_model import read_speech


@pytest.fixture
def speech() -> torch.Tensor:
    return torch.from_numpy(read_speech()[16000:24000].copy()).view(2, -1)


@pytest.fixture
def loss() -> PhaseLoss:
    return PhaseLoss(16000)


def test_equal_signals_have_no_distance(loss, speech):
    for distance in loss(speech, speech):
        torch.testing.assert_close(distance, torch.tensor(0.0), rtol=0, atol=1e-5)


def test_a_turned_signal_is_far_and_drifts_nowhere(loss, speech):
    assert SpectralLoss(16000)(-speech, speech).mel == 0
    spectra, drift, low, angle = loss(-speech, speech)
    torch.testing.assert_close(torch.stack([spectra, low]), torch.full((2,), 2.0))
    assert drift < 1e-4 and 1.9 < angle <= 2.0


def test_noise_drifts_away(loss, speech):
    noise = 0.05 * torch.randn_like(speech)
    assert loss(noise, speech).drift > 0.5


def test_low_is_below_two_kilohertz(loss):
    time = torch.arange(8000) / 16000
    deep, high = (0.3 * torch.sin(2 * torch.pi * hertz * time)[None] for hertz in (500, 5000))
    wrong = loss(deep - high, deep + high)
    assert wrong.low < 0.05 < 0.5 < wrong.spectra
    assert wrong.angle < 0.05
    opposite = loss(high - deep, deep + high)
    assert opposite.low > 1.9 and opposite.angle > 1.9


def test_the_angle_does_not_reward_quietness_as_complex_spectra_do(loss, speech):
    noise = 0.05 * torch.randn_like(speech)
    loud, quiet = loss(noise, speech), loss(0.5 * noise, speech)
    assert quiet.low < 0.95 * loud.low
    torch.testing.assert_close(quiet.angle, loud.angle, rtol=0.02, atol=0)


def test_gradients_are_finite_in_silence_too(loss, speech):
    output = torch.zeros_like(speech).requires_grad_()
    sum(loss(output, speech)).backward()
    assert output.grad.isfinite().all()
    sum(loss(output, torch.zeros_like(speech))).backward()
    assert output.grad.isfinite().all()
