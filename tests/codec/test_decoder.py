"""The decoder: samples from latents, from the past alone."""

import dataclasses
import math

import pytest
import torch

from audiossm.codec import Decoder, DecoderConfig
from audiossm.codec.decoder import MAX_LOG_MAGNITUDE, make_spectra
from audiossm.errors import ConfigError, ShapeError
from contract import assert_streaming_equals_offline, flat_tensors

SMALL = dataclasses.replace(DecoderConfig.tiny(), window=64, hop=16, num_blocks=2, kernel=3)
FRAME, LATENT = SMALL.frame_size, 12


@pytest.fixture
def decoder() -> Decoder:
    decoder = Decoder(SMALL, LATENT).requires_grad_(False)
    decoder.head.weight.mul_(3.0)  # so that the result depends on the input well above rounding
    return decoder


def test_any_chunking_gives_the_offline_result(decoder):
    x = torch.randn(2, 19, LATENT)
    assert decoder(x).std() > 1e-3
    assert_streaming_equals_offline(decoder, x, time=1, out_time=1, trials=8)


def test_gradients_through_pieces_are_those_of_the_whole(decoder):
    x = torch.randn(1, 9, LATENT, requires_grad=True)
    (whole,) = torch.autograd.grad(decoder(x).square().sum(), x)
    first, state = decoder.step(x[:, :4], decoder.init_state(1))
    rest, _ = decoder.step(x[:, 4:], state)
    (pieces,) = torch.autograd.grad(torch.cat([first, rest], 1).square().sum(), x)
    assert whole.abs().max() > 1e-3
    torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-6)


def test_the_future_does_not_change_the_past(decoder):
    x = torch.randn(1, 12, LATENT)
    changed = x.clone()
    changed[:, 7:] *= -3.0
    before, after = decoder(x), decoder(changed)
    torch.testing.assert_close(before[:, : 7 * FRAME], after[:, : 7 * FRAME], rtol=0, atol=1e-6)
    assert (before - after)[:, 7 * FRAME : 8 * FRAME].abs().max() > 1e-4


def test_rows_do_not_touch_each_other(decoder):
    x = torch.randn(3, 9, LATENT) * torch.tensor([0.1, 1.0, 3.0]).view(3, 1, 1)
    rows = torch.cat([decoder(row) for row in x.split(1)])
    torch.testing.assert_close(decoder(x), rows, rtol=1e-4, atol=1e-5)


def test_the_state_has_the_same_size_after_any_time(decoder):
    first = decoder.init_state(2)
    _, later = decoder.step(torch.randn(2, 40, LATENT), first)
    assert [t.shape for t in flat_tensors(first)] == [t.shape for t in flat_tensors(later)]


def test_spectra_have_the_magnitudes_and_phases_of_the_head():
    x = 0.5 * torch.randn(1, 3, 66)
    log_magnitude, phase = x.chunk(2, dim=-1)
    real, imaginary = make_spectra(x).chunk(2, dim=-1)
    value = torch.complex(real, imaginary)
    torch.testing.assert_close(value.abs(), log_magnitude.exp())
    torch.testing.assert_close(value, torch.polar(log_magnitude.exp(), phase))


def test_a_wild_magnitude_is_bounded():
    spectra = make_spectra(torch.full((1, 1, 66), 1000.0))
    assert spectra.square().view(2, 33).sum(0).sqrt().max() <= math.exp(MAX_LOG_MAGNITUDE) * 1.001


def test_it_begins_quieter_than_speech():
    decoder = Decoder(DecoderConfig.tiny(), LATENT).requires_grad_(False)
    level = decoder(torch.randn(1, 50, LATENT)).square().mean().sqrt()
    assert 0.001 < level < 0.05


@pytest.mark.parametrize("shape", [(1, 0, LATENT), (1, 2, LATENT + 1), (2, LATENT)])
def test_other_shapes_are_refused(decoder, shape):
    with pytest.raises(ShapeError, match=r"Decoder takes \(batch, frames >= 1, 12\), got"):
        decoder.step(torch.zeros(shape), decoder.init_state(1))


@pytest.mark.parametrize("field", ["d_model", "upsample", "fine_kernel", "hop", "ssm_max_memory"])
def test_a_size_that_is_not_above_zero_is_refused(field):
    with pytest.raises(ConfigError, match=rf"decoder\.{field} is 0, must be above 0"):
        DecoderConfig(**{field: 0})
