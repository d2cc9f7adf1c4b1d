"""The encoder: one state a frame, from the past alone."""

import dataclasses

import pytest
import torch

from audiossm.codec import Encoder, EncoderConfig
from audiossm.errors import ConfigError, ShapeError
from audiossm.nn import map_state, stack_states, where_state
from contract import assert_streaming_equals_offline, flat_tensors

SMALL = EncoderConfig(
    frame_size=32,
    window=64,
    hop=16,
    num_mels=8,
    d_model=24,
    d_hidden=32,
    num_blocks=2,
    kernel=3,
    ssm_head_dim=12,
    ssm_state=8,
)
FRAME = SMALL.frame_size


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(SMALL).requires_grad_(False)


def test_any_chunking_gives_the_offline_result(encoder):
    x = torch.randn(2, 19 * FRAME) * 0.1
    assert_streaming_equals_offline(encoder, x, out_time=1, multiple=FRAME, trials=8)


def test_the_future_does_not_change_the_past(encoder):
    x = torch.randn(1, 12 * FRAME) * 0.1
    changed = x.clone()
    changed[:, 7 * FRAME :] *= -3.0
    before, after = encoder(x), encoder(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7], rtol=0, atol=1e-6)
    assert (before[:, 7] - after[:, 7]).abs().max() > 1e-3


def test_rows_do_not_touch_each_other(encoder):
    x = torch.randn(3, 9 * FRAME) * torch.tensor([[0.01], [0.1], [1.0]])
    rows = torch.cat([encoder(row) for row in x.split(1)])
    torch.testing.assert_close(encoder(x), rows, rtol=1e-4, atol=1e-5)


def test_a_row_that_pauses_goes_on_where_it_was(encoder):
    x = torch.randn(2, 8 * FRAME) * 0.1
    _, states = encoder.step(x[:, : 4 * FRAME], encoder.init_state(2))
    _, moved = encoder.step(x[:, 4 * FRAME :], states)
    kept = where_state(torch.tensor([False, True]), moved, states)
    for row, state in ((0, states), (1, moved)):
        for a, b in zip(flat_tensors(kept), flat_tensors(state), strict=True):
            assert torch.equal(a[row], b[row])


def test_states_of_two_streams_join_to_a_batch(encoder):
    x = torch.randn(2, 6 * FRAME) * 0.1
    separate = [encoder.step(row, encoder.init_state(1))[1] for row in x.split(1)]
    _, together = encoder.step(x, encoder.init_state(2))
    joined = stack_states(separate)
    for a, b in zip(flat_tensors(joined), flat_tensors(together), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_control_hears_log_mels_alone(encoder):
    control = Encoder(dataclasses.replace(SMALL, spectra="none")).requires_grad_(False)
    spectra = encoder.stft(torch.randn(1, 4 * FRAME) * 0.1)
    both = encoder.features(spectra).view(8, -1)
    assert torch.equal(control.features(spectra).view(8, -1), both[:, -SMALL.num_mels :])
    assert control(torch.randn(1, 2 * FRAME)).shape == (1, 2, SMALL.d_model)


def test_magnitudes_are_those_of_the_complex_spectra(encoder):
    flat = Encoder(dataclasses.replace(SMALL, spectra="magnitude")).requires_grad_(False)
    spectra = encoder.stft(torch.randn(1, 4 * FRAME) * 0.1)
    both, magnitude = encoder.features(spectra).view(8, -1), flat.features(spectra).view(8, -1)
    bins = encoder.stft.num_bins
    value = torch.complex(both[:, :bins], both[:, bins : 2 * bins])
    loud = value.abs() > 0.1
    expected = (value.abs()[loud].log() * 2 / 0.3 + 10) / 4
    torch.testing.assert_close(magnitude[:, :bins][loud], expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(magnitude[:, bins:], both[:, 2 * bins :])
    assert flat(torch.randn(1, 2 * FRAME)).shape == (1, 2, SMALL.d_model)


def test_other_spectra_are_refused():
    with pytest.raises(ConfigError, match="encoder.spectra is 'phase', must be one of complex"):
        dataclasses.replace(SMALL, spectra="phase")


def test_features_are_compressed_spectra_and_log_mels(encoder):
    spectra = encoder.stft(torch.randn(1, 2 * FRAME) * 0.1)
    first, second = encoder.features(spectra).view(2, 2, -1).unbind(1)
    bins, mels = encoder.stft.num_bins, SMALL.num_mels
    for features, row in ((first[0], spectra[0, 0]), (second[1], spectra[0, 3])):
        value = torch.complex(row[:bins], row[bins:])
        compressed = torch.complex(features[:bins], features[bins : 2 * bins])
        # the floor 1e-10 inside the power bends what is close to it
        loud = value.abs() > 1e-3
        torch.testing.assert_close(compressed.abs()[loud], value.abs()[loud] ** 0.3)
        torch.testing.assert_close(compressed.angle()[loud], value.angle()[loud])
        energy = value.abs().square() @ encoder.filters
        torch.testing.assert_close(features[-mels:], (torch.log(energy + 1e-8) + 10) / 4)


def test_silence_and_full_scale_stay_finite(encoder):
    for x in (torch.zeros(1, 5 * FRAME), torch.ones(1, 5 * FRAME)):
        y, state = encoder.step(x, encoder.init_state(1))
        assert y.isfinite().all()
        assert all(tensor.isfinite().all() for tensor in flat_tensors(state))


def test_the_state_has_the_same_size_after_any_time(encoder):
    first = encoder.init_state(2)
    _, later = encoder.step(torch.randn(2, 40 * FRAME), first)
    assert [t.shape for t in flat_tensors(first)] == [t.shape for t in flat_tensors(later)]
    map_state(lambda a, b: a.copy_(b), first, later)


@pytest.mark.parametrize("shape", [(1, 33), (1, 0), (32,)])
def test_a_piece_that_is_no_multiple_of_the_frame_is_refused(encoder, shape):
    with pytest.raises(ShapeError) as caught:
        encoder.step(torch.zeros(shape), encoder.init_state(1))
    assert str(caught.value) == f"Encoder takes (batch, samples), a multiple of 32, got {shape}"


def test_a_frame_that_is_no_multiple_of_the_hop_is_refused():
    with pytest.raises(ConfigError, match=r"frame_size 320 is not a multiple of hop 150"):
        EncoderConfig(hop=150)
