"""Rounded weights are near, are float16 numbers, and are rounded once for all."""

import pytest
import torch

from audiossm.rounding import SCALES, pack_rows, restore_rows, round_rows, unpack_rows


def spread_rows(width: int, num_rows: int = 2000) -> torch.Tensor:
    """(num_rows, width) of all sizes that float16 has, in steps of its own."""
    sizes = torch.logspace(-7, 4, num_rows).unsqueeze(1)
    return (torch.randn(num_rows, width).clamp(-6, 6) * sizes).half().float()


@pytest.mark.parametrize("shape", [(3, 5), (4, 1, 7), (1, 1, 1)])
def test_shapes_stay(shape):
    numbers, codes = round_rows(torch.randn(shape))
    assert (numbers.shape, codes.shape) == (shape, shape[:1])
    assert (numbers.dtype, codes.dtype) == (torch.int8, torch.uint8)
    assert restore_rows(numbers, codes).shape == shape


def test_a_weight_is_off_by_half_a_scale_of_at_most_an_eighth_more_than_need_be():
    rows = spread_rows(40)
    numbers, codes = round_rows(rows)
    off = (restore_rows(numbers, codes) - rows).abs().amax(1)
    scales = SCALES[codes.long()]
    assert (off <= scales / 2).all()
    need = rows.abs().amax(1) / 127
    assert (scales <= 1.126 * need)[need > SCALES[8]].all()
    assert numbers.abs().max() == 127


@pytest.mark.parametrize("bits", [8, 6])
@pytest.mark.parametrize("width", [1, 3, 7, 320])
def test_rounding_again_changes_nothing(width, bits):
    once = restore_rows(*round_rows(spread_rows(width), bits=bits))
    assert torch.equal(restore_rows(*round_rows(once, bits=bits)), once)


@pytest.mark.parametrize("width", [1, 3, 320])
def test_six_bits_are_exact_in_eight(width):
    rows = spread_rows(width)
    numbers, codes = round_rows(rows[rows.abs().amax(1) > 1e-4], bits=6)
    assert numbers.abs().max() == 31
    once = restore_rows(numbers, codes)
    assert torch.equal(restore_rows(*round_rows(once)), once)
    assert torch.equal(once.half().float(), once)


@pytest.mark.parametrize("shape", [(4,), (3, 8), (2, 5, 12)])
def test_numbers_of_six_bits_are_packed_into_three_quarters(shape):
    numbers = torch.randint(-32, 32, shape, dtype=torch.int8)
    packed = pack_rows(numbers)
    assert packed.dtype == torch.uint8 and packed.shape == (*shape[:-1], shape[-1] * 3 // 4)
    assert torch.equal(unpack_rows(packed), numbers)


def test_packed_numbers_stand_as_the_format_says():
    joined = 1 + 2 * 64 + 3 * 64**2 + 63 * 64**3
    packed = pack_rows(torch.tensor([[1 - 32, 2 - 32, 3 - 32, 31]], dtype=torch.int8))
    assert int.from_bytes(bytes(packed[0].tolist()), "little") == joined


def test_a_row_whose_largest_was_rounded_down_keeps_its_scale():
    # 114 times the larger scale is less than 127 times the one below
    small, large = SCALES[160 + 1].item(), SCALES[160 + 2].item()
    row = torch.tensor([[127 * small + small / 64, 3 * large, 0.4 * large]])
    numbers, codes = round_rows(row)
    assert numbers.tolist() == [[114, 3, 0]] and codes.tolist() == [162]
    assert 114 * large < 127 * small
    assert torch.equal(round_rows(restore_rows(numbers, codes))[1], codes)


def test_rounded_weights_are_float16_numbers():
    rounded = restore_rows(*round_rows(spread_rows(40)))
    assert torch.equal(rounded.half().float(), rounded)


def test_rows_do_not_touch_each_other():
    rows = torch.randn(4, 9)
    loud = rows.clone()
    loud[0] *= 100
    assert torch.equal(restore_rows(*round_rows(loud))[1:], restore_rows(*round_rows(rows))[1:])


def test_zeros_stay_zeros():
    assert not restore_rows(*round_rows(torch.zeros(2, 3))).any()


def test_with_a_step_the_numbers_are_its_multiples():
    rows = torch.tensor([[0.5, -1 / 128, 0.6 / 128, 3.0, -3.0]])
    numbers, codes = round_rows(rows, 1 / 128)
    assert SCALES[codes.long()].tolist() == [1 / 128]
    assert numbers.tolist() == [[64, -1, 1, 127, -127]]
