"""Finite scalar quantisation: codes are values, values are codes, and the groups are ordered."""

import math

import pytest
import torch

from audiossm.codec import Quantiser, QuantiserConfig
from audiossm.errors import ConfigError, ShapeError

CONFIG = QuantiserConfig()


@pytest.fixture
def quantiser() -> Quantiser:
    return Quantiser(CONFIG)


def every_code() -> torch.Tensor:
    """(1, 8, 1000): each group counts through its codes, each from another one on."""
    return torch.stack([torch.arange(1000).roll(7 * group) for group in range(8)]).unsqueeze(0)


def test_sizes_follow_from_the_levels():
    assert (CONFIG.group_dim, CONFIG.latent_dim, CONFIG.num_codes) == (4, 32, 1000)
    assert CONFIG.bits_per_code == pytest.approx(math.log2(1000))


def test_every_code_has_values_of_its_own_on_the_grid(quantiser):
    values = quantiser.decode(every_code())
    first = values[0, :, :4]
    assert len(first.unique(dim=0)) == 1000
    grids = [torch.arange(-4, 4) / 4, *[torch.arange(-2, 3) / 2] * 3]
    for dimension, grid in enumerate(grids):
        assert torch.equal(first[:, dimension].unique(), grid)
    # digits count from the first dimension up, as in the paper
    assert first[0].tolist() == [-1, -1, -1, -1]
    assert first[1].tolist() == [-0.75, -1, -1, -1]
    assert first[8].tolist() == [-1, -0.5, -1, -1]


def test_encoding_finds_every_code_again(quantiser):
    codes = every_code()
    bounded = quantiser.decode(codes) * quantiser.scale + quantiser.offset
    latent = torch.atanh(bounded / quantiser.half_width) - quantiser.shift
    assert torch.equal(quantiser.encode(latent), codes)


def test_a_latent_goes_to_the_nearest_value_of_its_bounded_self(quantiser):
    latent = 2 * torch.randn(2, 50, 32)
    levels = torch.tensor([8.0, 5.0, 5.0, 5.0]).repeat(8)
    half, offset = (levels - 1) * 1.001 / 2, torch.where(levels == 8, 0.5, 0.0)
    bounded = torch.tanh(latent + torch.atanh(offset / half)) * half - offset
    expected = bounded.round() / (levels // 2)
    torch.testing.assert_close(quantiser(latent), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(quantiser.decode(quantiser.encode(latent)), expected)


def test_nothing_is_nothing_and_the_ends_are_reached(quantiser):
    assert not quantiser(torch.zeros(1, 1, 32)).any()
    ends = torch.tensor([[0.75, 1, 1, 1], [-1, -1, -1, -1]]).repeat(1, 8)
    far = torch.tensor([[[30.0] * 32, [-30.0] * 32]])
    assert torch.equal(quantiser(far)[0], ends)
    assert quantiser.encode(far)[0, :, 0].tolist() == [999] * 8
    assert quantiser.encode(far)[0, :, 1].tolist() == [0] * 8


def test_gradients_are_those_of_not_rounding(quantiser):
    latent = torch.randn(1, 6, 32, dtype=torch.float64, requires_grad=True)
    quantiser.double()
    (gradient,) = torch.autograd.grad(quantiser(latent).sum(), latent)
    smooth = torch.tanh(latent + quantiser.shift) * quantiser.half_width / quantiser.scale
    (expected,) = torch.autograd.grad(smooth.sum(), latent)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("kept", [1, 2, 5, 8])
def test_decoding_fewer_groups_is_keeping_the_first_ones(quantiser, kept):
    latent = torch.randn(2, 7, 32)
    codes, values = quantiser.encode(latent), quantiser(latent)
    expected = values.clone()
    expected[..., 4 * kept :] = 0
    torch.testing.assert_close(quantiser.decode(codes[:, :kept]), expected)
    torch.testing.assert_close(quantiser.keep_groups(values, torch.tensor([kept, kept])), expected)


def test_each_row_keeps_its_own_number_of_groups(quantiser):
    kept = quantiser.keep_groups(torch.ones(3, 2, 32), torch.tensor([1, 8, 2]))
    assert kept.sum(-1).tolist() == [[4, 4], [32, 32], [8, 8]]


def test_half_of_the_rows_are_drawn_from_powers_of_two(quantiser):
    drawn = quantiser.draw_num_groups(20000)
    shares = {g: (drawn == g).float().mean().item() for g in drawn.unique().tolist()}
    assert shares == pytest.approx({1: 0.125, 2: 0.125, 4: 0.125, 8: 0.625}, abs=0.01)
    odd = Quantiser(QuantiserConfig(num_groups=6))
    assert odd.draw_num_groups(2000).unique().tolist() == [1, 2, 4, 6]


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(1, 9, 3, dtype=torch.int64), "codes have 9 groups, but this codec has 8"),
        (torch.zeros(1, 0, 3, dtype=torch.int64), "codes have 0 groups, but this codec has 8"),
        (torch.full((1, 2, 3), 1000), "between 1000 and 1000, but this codec's between 0 and 999"),
        (torch.tensor([[[5, -1]]]), "between -1 and 5, but this codec's between 0 and 999"),
        (torch.zeros(1, 8, 3), r"\(batch, groups, frames\) int64, got \(1, 8, 3\) torch.float32"),
        (torch.zeros(8, 3, dtype=torch.int64), r"int64, got \(8, 3\) torch.int64"),
    ],
)
def test_codes_of_another_codec_are_refused_in_one_line(quantiser, codes, message):
    with pytest.raises(ShapeError, match=message) as caught:
        quantiser.decode(codes)
    assert "\n" not in str(caught.value)
    with pytest.raises(ShapeError, match=message.replace("torch.", "")):
        quantiser.decode_array(codes.numpy())


@pytest.mark.parametrize("groups, frames", [(8, 5), (3, 1), (8, 0)])
def test_an_array_of_codes_decodes_as_a_tensor_does(quantiser, groups, frames):
    codes = torch.randint(1000, (2, groups, frames))
    found = torch.from_numpy(quantiser.decode_array(codes.numpy()))
    torch.testing.assert_close(found, quantiser.decode(codes), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(1, 3, 31), (3, 32)])
def test_latents_of_another_width_are_refused(quantiser, shape):
    with pytest.raises(ShapeError, match=r"Quantiser takes \(batch, frames, 32\), got"):
        quantiser.encode(torch.zeros(shape))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"num_groups": 0}, "num_groups is 0"), ({"levels": (8, 1)}, r"\[8, 1\], must be numbers")],
)
def test_a_config_without_codes_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        QuantiserConfig(**changes)
