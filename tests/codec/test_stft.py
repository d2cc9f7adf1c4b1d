"""The transform that the encoder sees, against torch's own."""

import pytest
import torch
import torchaudio

from audiossm.codec import CausalSTFT
from audiossm.codec.stft import mel_filters
from audiossm.errors import ShapeError
from contract import assert_streaming_equals_offline

WINDOW, HOP = 64, 16


def test_any_chunking_gives_the_offline_result():
    assert_streaming_equals_offline(
        CausalSTFT(WINDOW, HOP), torch.randn(2, 25 * HOP), out_time=1, multiple=HOP, trials=8
    )


@pytest.mark.parametrize(("window", "hop"), [(512, 160), (64, 64)])
def test_spectra_are_torchs_over_the_newest_samples(window, hop):
    x = torch.randn(2, 20 * hop)
    expected = (
        torch.stft(
            torch.nn.functional.pad(x, (window - hop, 0)).double(),
            window,
            hop,
            window=torch.hann_window(window, dtype=torch.float64),
            center=False,
            normalized=False,
            return_complex=True,
        ).transpose(1, 2)
        / window**0.5
    )
    real, imaginary = CausalSTFT(window, hop)(x).chunk(2, dim=-1)
    torch.testing.assert_close(real.double(), expected.real, rtol=0, atol=1e-5)
    torch.testing.assert_close(imaginary.double(), expected.imag, rtol=0, atol=1e-5)


def test_the_future_does_not_change_the_past():
    stft = CausalSTFT(WINDOW, HOP)
    x = torch.randn(1, 20 * HOP)
    changed = x.clone()
    changed[:, 10 * HOP :] += 1.0
    before, after = stft(x), stft(changed)
    assert torch.equal(before[:, :10], after[:, :10])
    assert not torch.equal(before[:, 10], after[:, 10])


def test_rows_do_not_touch_each_other():
    stft = CausalSTFT(WINDOW, HOP)
    x = torch.randn(3, 9 * HOP)
    rows = torch.cat([stft(row) for row in x.split(1)])
    torch.testing.assert_close(stft(x), rows, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 40), (2, 0), (48,)])
def test_a_piece_that_is_no_multiple_of_the_hop_is_refused_with_both_numbers(shape):
    stft = CausalSTFT(WINDOW, HOP)
    with pytest.raises(ShapeError) as caught:
        stft.step(torch.zeros(shape), stft.init_state(2))
    assert str(caught.value) == (
        f"CausalSTFT takes (batch, samples), a multiple of 16, got {shape}"
    )


@pytest.mark.parametrize("num_mels", [8, 64])
def test_mel_filters_are_torchaudios(num_mels):
    expected = torchaudio.functional.melscale_fbanks(
        257, 20.0, 8000.0, num_mels, 16000, norm=None, mel_scale="htk"
    )
    torch.testing.assert_close(mel_filters(num_mels, 257, 16000), expected, rtol=0, atol=1e-4)


def test_mel_filters_part_the_spectrum_between_their_first_and_last_peak():
    filters = mel_filters(20, 1025, 16000)
    peaks = filters.argmax(0)
    assert (peaks[1:] > peaks[:-1]).all()
    total = filters.sum(1)[int(peaks[0]) + 1 : int(peaks[-1])]
    torch.testing.assert_close(total, torch.ones_like(total))
