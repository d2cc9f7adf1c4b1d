"""The distance in loudness orders what listeners, and PESQ, order."""

import pytest
import torch

from audiossm.train.loudness import LoudnessLoss, bark, threshold_in_quiet
from tiny_model import read_speech


@pytest.fixture
def speech() -> torch.Tensor:
    return torch.from_numpy(read_speech()[16000:48000].copy()).view(2, -1)


@pytest.fixture
def loudness() -> LoudnessLoss:
    return LoudnessLoss(16000)


def test_equal_signals_have_no_distance(speech, loudness):
    assert loudness(speech, speech) < 0.01


def test_more_noise_is_further(speech, loudness):
    torch.manual_seed(0)
    noise = speech.std() * torch.randn_like(speech)
    distances = [loudness(speech + share * noise, speech).item() for share in (0.01, 0.1, 0.5)]
    assert distances == sorted(distances) and distances[0] > 0.05 and distances[2] > 1


def test_what_is_added_is_worse_than_what_is_missing(speech, loudness):
    torch.manual_seed(0)
    noisy = speech + 0.05 * speech.std() * torch.randn_like(speech)
    assert loudness(noisy, speech) > 1.5 * loudness(speech, noisy)


def test_another_level_hardly_counts(speech, loudness):
    torch.manual_seed(0)
    noisy = speech + 0.05 * speech.std() * torch.randn_like(speech)
    assert loudness(0.7 * speech, speech) < 0.2 * loudness(noisy, speech)


def test_both_are_played_at_one_level(speech, loudness):
    torch.manual_seed(0)
    noisy = speech + 0.1 * speech.std() * torch.randn_like(speech)
    quiet = loudness(0.01 * noisy, 0.01 * speech)
    torch.testing.assert_close(quiet, loudness(noisy, speech), rtol=0.1, atol=0)


def test_gradients_are_finite_also_for_silence(speech, loudness):
    for said in (0.5 * speech, torch.zeros_like(speech), speech):
        for heard in (speech, torch.zeros_like(speech)):
            output = said.clone().requires_grad_()
            loudness(output, heard).backward()
            assert output.grad is not None and output.grad.isfinite().all()


def test_scales_of_hearing_have_their_known_values():
    hertz = torch.tensor([100.0, 1000.0, 4000.0], dtype=torch.float64)
    # Zwicker's table: 1, 8.5 and 17.2 Bark, within what the formula is off
    torch.testing.assert_close(
        bark(hertz), torch.tensor([1.0, 8.5, 17.2], dtype=torch.float64), rtol=0.03, atol=0.05
    )
    quiet = threshold_in_quiet(hertz)
    assert 20 < quiet[0] < 25 and 3 < quiet[1] < 4 and -4 < quiet[2] < -2
