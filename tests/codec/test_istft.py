"""The inverse transform undoes the transform, late by what overlap-add takes."""

import pytest
import torch

from audiossm.codec import CausalSTFT, InverseSTFT
from audiossm.errors import ConfigError, ShapeError
from contract import assert_streaming_equals_offline


@pytest.mark.parametrize(("window", "hop"), [(320, 80), (48, 16), (64, 32)])
def test_what_was_transformed_comes_out_again_late(window, hop):
    inverse = InverseSTFT(window, hop)
    x = torch.randn(2, 20 * hop)
    y = inverse(CausalSTFT(window, hop)(x))
    assert inverse.delay == window - hop
    torch.testing.assert_close(y[:, inverse.delay :], x[:, : -inverse.delay], rtol=0, atol=1e-5)
    assert y[:, : inverse.delay].abs().max() < 1e-5  # before the start there was silence


def test_any_chunking_gives_the_offline_result():
    assert_streaming_equals_offline(
        InverseSTFT(64, 16), torch.randn(2, 25, 66), time=1, out_time=1, trials=8
    )


def test_spectra_of_no_signal_are_torchs_overlap_add():
    window, hop = 320, 80
    spectra = torch.randn(2, 30, 322)
    real, imaginary = spectra.double().chunk(2, dim=-1)
    expected = torch.istft(
        torch.complex(real, imaginary).transpose(1, 2) * window**0.5,
        window,
        hop,
        window=torch.hann_window(window, dtype=torch.float64),
        center=True,  # without it torch refuses, since the first sample's windows sum to zero
    )
    # torch leaves out the first half window, where too few windows overlap
    y = InverseSTFT(window, hop)(spectra)[:, window // 2 :]
    start = window  # from here on all windows are there on both sides
    stop = y.shape[1] - window
    torch.testing.assert_close(
        y.double()[:, start:stop], expected[:, start:stop], rtol=1e-5, atol=1e-5
    )


def test_one_spectrum_sounds_in_its_window_only():
    spectra = torch.zeros(1, 12, 66)
    spectra[0, 3] = torch.randn(66)
    y = InverseSTFT(64, 16)(spectra)[0]
    assert y[3 * 16 : 3 * 16 + 64].abs().max() > 0.01
    assert not y[: 3 * 16].any() and not y[3 * 16 + 64 :].any()


@pytest.mark.parametrize("shape", [(1, 0, 66), (1, 3, 65), (3, 66)])
def test_other_shapes_are_refused(shape):
    inverse = InverseSTFT(64, 16)
    with pytest.raises(ShapeError, match=r"InverseSTFT takes \(batch, spectra >= 1, 66\), got"):
        inverse.step(torch.zeros(shape), inverse.init_state(1))


@pytest.mark.parametrize(("window", "hop"), [(64, 24), (64, 64), (45, 15)])
def test_windows_that_do_not_add_up_are_refused(window, hop):
    with pytest.raises(ConfigError, match=f"window {window} must be even and a multiple of hop"):
        InverseSTFT(window, hop)
