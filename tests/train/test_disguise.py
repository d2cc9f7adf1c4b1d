"""Disguises: formants move and pitch doesn't; a person wears one, nobody another each time."""

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from audiossm.train.disguise import Disguise, Wardrobe, move_formants

RATE, PITCH = 16000, 125
FORMANTS = (700.0, 1500.0, 2700.0)


def make_vowel() -> torch.Tensor:
    sound = np.zeros(RATE)
    sound[:: RATE // PITCH] = 1.0
    for hertz in FORMANTS:
        pole = 0.985 * np.exp(2j * np.pi * hertz / RATE)
        sound = lfilter([1.0], np.poly([pole, pole.conj()]).real, sound)
    return torch.from_numpy(0.3 * sound / np.abs(sound).max()).float()


def find_peaks(sound: torch.Tensor) -> list[float]:
    """Find the three highest peaks among a vowel's harmonics, in Hz, between them by parabolas."""
    levels = torch.fft.rfft(sound * torch.hann_window(RATE)).abs()[::PITCH].log()[1:40]
    inner = (levels[1:-1] > levels[:-2]) & (levels[1:-1] >= levels[2:])
    at = torch.nonzero(inner)[:, 0] + 1
    at = at[levels[at].argsort(descending=True)[:3]].sort().values
    below, here, above = levels[at - 1], levels[at], levels[at + 1]
    between = (below - above) / (2 * (below - 2 * here + above))
    return ((at + 1 + between) * PITCH).tolist()


@pytest.mark.parametrize("factor", [0.87, 1.0, 1.15])
def test_formants_move_and_pitch_stays(factor):
    vowel = make_vowel()
    assert find_peaks(vowel) == pytest.approx(FORMANTS, rel=0.04)
    (moved,) = move_formants(vowel.unsqueeze(0), torch.tensor([factor]))
    assert moved.shape == vowel.shape
    assert find_peaks(moved) == pytest.approx([factor * hertz for hertz in FORMANTS], rel=0.06)
    spectrum = torch.fft.rfft(moved[2000:-2000]).abs()[:2000]
    hertz = torch.arange(len(spectrum)) * RATE / (RATE - 4000)
    near = ((hertz + PITCH / 2) % PITCH - PITCH / 2).abs() < 10
    assert spectrum[near].square().sum() > 0.98 * spectrum.square().sum()


@pytest.mark.parametrize("samples", [1, 200, 256, 257, 700])
def test_short_sounds_stay_as_long(samples):
    assert move_formants(torch.randn(2, samples), torch.full((2,), 1.1)).shape == (2, samples)


def test_the_same_throat_changes_nothing():
    rows = torch.randn(2, 4000) * 0.1
    assert torch.allclose(move_formants(rows, torch.ones(2)), rows, atol=1e-5)


def test_a_person_has_one_disguise_at_a_speed_whoever_else_is_there():
    drawn = Disguise.draw(["a", "c", "b", "a"], Wardrobe(4.0, 0.1), 0.9)
    assert drawn.throats[0] == drawn.throats[3]
    assert torch.equal(drawn.knots[0], drawn.knots[3])
    assert len(drawn.throats.unique()) == 3
    again = Disguise.draw(["d", "a"], Wardrobe(4.0, 0.1), 0.9)
    assert torch.equal(again.knots[1], drawn.knots[0]) and again.throats[1] == drawn.throats[0]
    other = Disguise.draw(["a"], Wardrobe(4.0, 0.1), 1.1)
    assert other.throats[0] != drawn.throats[0]
    many = Disguise.draw([str(n) for n in range(4000)], Wardrobe(4.0, 0.1), 0.9)
    assert many.throats.log().std() == pytest.approx(0.1, rel=0.1)
    assert many.throats.log().abs().max() <= 0.2501
    assert many.knots.std() == pytest.approx(4.0, rel=0.05)


def test_what_is_worn_is_that_of_the_items_and_stays_in_range():
    drawn = Disguise.draw(["a", "b"], Wardrobe(12.0, 0.1), 0.9)
    samples = (torch.rand(1, 8000) * 2 - 1).repeat(2, 1)
    both = drawn.wear(samples, np.array([0, 1]))
    assert both.abs().max() <= 1 and not torch.allclose(both[0], both[1], atol=1e-3)
    assert torch.allclose(drawn.wear(samples[:1], np.array([1]))[0], both[1], atol=1e-5)
    plain = Disguise.draw(["a"], Wardrobe(), 0.9)
    assert torch.equal(plain.wear(samples[:1], np.array([0])), samples[:1])


def test_formants_follow_the_speed_as_far_as_they_shall():
    for follow, factor in ((1.0, 1.0), (0.0, 1 / 0.8), (0.5, 0.8**-0.5)):
        drawn = Disguise.draw(["a"], Wardrobe(follow=follow), 0.8)
        assert drawn.throats.tolist() == pytest.approx([factor])
        assert Wardrobe(follow=follow).is_empty == (follow == 1.0)
