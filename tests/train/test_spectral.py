"""The spectral distances against their definitions, written out."""

import pytest
import torch

from audiossm.codec.stft import mel_filters
from audiossm.train.spectral import MAGNITUDE_WINDOWS, MEL_WINDOWS, PEAK_WINDOWS, SpectralLoss
from tiny_model import read_speech


@pytest.fixture
def speech() -> torch.Tensor:
    return torch.from_numpy(read_speech()[16000:24000].copy()).view(2, -1)


def log_spectra(
    x: torch.Tensor, window: int, filters: torch.Tensor | None = None, floor: float = 1e-4
) -> torch.Tensor:
    pieces = x.double().unfold(1, window, window // 4)
    hann = torch.hann_window(window, dtype=torch.float64)
    spectra = torch.fft.rfft(pieces * hann).abs() / window**0.5
    if filters is not None:
        spectra = spectra @ filters.double()
    return spectra.clamp(min=floor).log10()


def test_distances_are_means_over_windows_frames_and_bands(speech):
    other = 0.5 * speech + 0.01 * torch.randn_like(speech)
    mels = []
    for window, bands in MEL_WINDOWS:
        filters = mel_filters(bands, window // 2 + 1, 16000)
        a, b = (log_spectra(x, window, filters) for x in (speech, other))
        mels.append((a - b).abs().mean())
    bins = [
        (log_spectra(speech, w) - log_spectra(other, w)).abs().mean() for w in MAGNITUDE_WINDOWS
    ]
    peaks = []
    for window in PEAK_WINDOWS:
        a, b = (log_spectra(x, window, floor=0.0).double() for x in (speech, other))
        a, b = (((10**x) + 1e-6).sqrt() for x in (a, b))
        peaks.append((a - b).abs().mean() / a.mean())
    mel, magnitude, peak = SpectralLoss(16000)(other, speech)
    torch.testing.assert_close(peak.double(), torch.stack(peaks).mean(), rtol=1e-4, atol=0)
    torch.testing.assert_close(mel.double(), torch.stack(mels).mean(), rtol=1e-4, atol=0)
    torch.testing.assert_close(magnitude.double(), torch.stack(bins).mean(), rtol=1e-4, atol=0)


def test_equal_signals_have_no_distance_and_ten_times_as_loud_is_one(speech):
    loss = SpectralLoss(16000)
    assert max(loss(speech, speech)) == 0
    noise = 0.05 * torch.randn(2, 8000)  # above the floor at every place
    mel, magnitude, peaks = loss(noise, 10 * noise)
    for distance in (mel, magnitude):
        torch.testing.assert_close(distance, torch.tensor(1.0), rtol=1e-4, atol=0)
    torch.testing.assert_close(peaks, torch.tensor(1 - 10**-0.5), rtol=1e-3, atol=0)


def test_what_lies_below_the_floor_is_silence(speech):
    loss = SpectralLoss(16000)
    mel, magnitude, _ = loss(torch.zeros_like(speech), 1e-6 * torch.randn_like(speech))
    assert mel == magnitude == 0


def test_every_band_of_every_window_hears_something():
    for window, bands in MEL_WINDOWS:
        filters = mel_filters(bands, window // 2 + 1, 16000)
        assert (filters.sum(0) > 0).all(), window


def test_gradients_are_finite_in_silence_too(speech):
    output = torch.zeros_like(speech).requires_grad_()
    sum(SpectralLoss(16000)(output, speech)).backward()
    assert output.grad.isfinite().all()


def test_going_down_the_gradient_brings_signals_together(speech):
    loss = SpectralLoss(16000)
    output = (0.1 * torch.randn_like(speech)).requires_grad_()
    optimizer = torch.optim.Adam([output], lr=1e-2)
    distances = []
    for _ in range(30):
        optimizer.zero_grad()
        mel, magnitude, peaks = loss(output, speech)
        (mel + magnitude + peaks).backward()
        optimizer.step()
        distances.append(mel.item())
    assert distances[-1] < 0.7 * distances[0]
