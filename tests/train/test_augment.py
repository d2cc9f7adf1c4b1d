"""Augmentation: what it may change, and what not."""

import numpy as np
import pytest
import torch

from audiossm.codec.stft import CausalSTFT
from audiossm.train.augment import (
    augment_audio,
    colour,
    cut_noise,
    mask_spectra,
    telephone,
    warp_spectra,
)
from audiossm.train.corpus import Corpus


def make_noise() -> Corpus:
    audio = (torch.randn(20000) * 3000).to(torch.int16)
    return Corpus(audio, np.array([0]), np.array([20000]), ([],), ([],), [""], [""])


def test_no_strength_is_no_change():
    audio = torch.randn(3, 4000) * 0.1
    assert torch.equal(augment_audio(audio, make_noise(), 0.0), audio)


def test_full_strength_keeps_the_shape_and_stays_in_range():
    audio = torch.randn(8, 8000) * 0.5
    kept = audio.clone()
    changed = augment_audio(audio, make_noise())
    assert changed.shape == audio.shape and changed.abs().max() <= 1.0
    assert changed.isfinite().all() and (changed != audio).any(1).all()
    assert torch.equal(audio, kept)


def test_silence_stays_finite():
    changed = augment_audio(torch.zeros(16, 8000), make_noise())
    assert changed.isfinite().all() and changed.abs().max() < 1e-3


def test_rows_change_each_in_its_own_way():
    audio = (torch.randn(1, 8000) * 0.1).repeat(6, 1)
    levels = augment_audio(audio, None).square().mean(1).sqrt()
    assert len(set(levels.tolist())) == 6


def test_noise_is_cut_at_unit_level_and_wraps_around():
    noise = cut_noise(make_noise(), 3, 50000)
    torch.testing.assert_close(noise.square().mean(1), torch.ones(3))
    torch.testing.assert_close(noise[:, :30000], noise[:, 20000:])


@pytest.mark.parametrize(("hertz", "passes"), [(100, 0), (1000, 1), (3000, 1), (5000, 0)])
def test_a_telephone_keeps_the_voice_band(hertz, passes):
    time = torch.arange(16000) / 16000
    tone = torch.sin(2 * torch.pi * hertz * time).unsqueeze(0)
    level = telephone(tone).square().mean() / tone.square().mean()
    assert level.item() == pytest.approx(passes, abs=0.01)


def test_a_microphone_changes_bands_but_nothing_between_them():
    time = torch.arange(16000) / 16000
    tones = torch.stack([torch.sin(2 * torch.pi * hertz * time) for hertz in (500, 1000, 6000)])
    rows = tones.sum(0).repeat(400, 1)
    heard = torch.fft.rfft(colour(rows)).abs() / torch.fft.rfft(rows).abs().clamp(min=1.0)
    decibels = 20 * heard[:, [500, 1000, 6000]].log10()
    assert decibels.mean(0).abs().max() < 1.0
    assert 3.0 < decibels.std(0).min() and decibels.std(0).max() < 6.0
    assert (decibels[:, 0] - decibels[:, 1]).std() < (decibels[:, 0] - decibels[:, 2]).std()


def test_masks_of_no_width_mask_nothing():
    spectra = torch.randn(2, 50, 514)
    assert torch.equal(mask_spectra(spectra, 0.0), spectra)


def test_masks_silence_whole_bands_and_stretches():
    spectra = torch.ones(16, 400, 514)
    masked = mask_spectra(spectra)
    assert set(masked.unique().tolist()) == {0.0, 1.0}
    real, imaginary = masked.chunk(2, dim=-1)
    assert torch.equal(real, imaginary)
    times, bins = real.amax(2), real.amax(1)
    assert torch.equal(real, times.unsqueeze(2) * bins.unsqueeze(1))
    gone_times, gone_bins = (1 - times).sum(1), (1 - bins).sum(1)
    assert gone_times.max() <= 10 * 9 and gone_bins.max() <= 2 * 61
    assert gone_times.min() > 0 and gone_bins.max() > 0
    assert len(set(gone_times.tolist())) > 5  # rows differ


def test_a_throat_moves_tones_each_row_by_its_own_factor():
    time = torch.arange(16000) / 16000
    tone = 0.1 * torch.sin(2 * torch.pi * 2000 * time).repeat(64, 1)
    spectra = CausalSTFT(512, 160)(tone)[:, 5:]
    real, imaginary = warp_spectra(spectra, 0.1).chunk(2, dim=-1)
    power = real.square() + imaginary.square()
    peaks = power.mean(1).argmax(-1)
    assert peaks.min() >= 64 / 1.1 - 1 and peaks.max() <= 64 / 0.9 + 1
    assert peaks.min() < 62 and peaks.max() > 66
    # a tone between two bins is no weaker than a window makes it there
    loudest = power.mean(1).amax(-1)
    assert loudest.min() > 0.5 * loudest.max()


def test_no_warp_is_no_change():
    spectra = torch.randn(2, 5, 2 * 257)
    assert torch.equal(warp_spectra(spectra, 0.0), spectra)
    torch.testing.assert_close(warp_spectra(spectra, 1e-9), spectra, atol=1e-4, rtol=0)
