"""The resampler is torchaudio's, in pieces of any size."""

import math

import pytest
import torch
import torchaudio

from audiossm.audio import Resampler, resample
from audiossm.errors import AudioError, ShapeError
from contract import assert_streaming_equals_offline

PAIRS = [
    (8000, 16000),
    (11025, 16000),
    (12000, 16000),
    (22050, 16000),
    (24000, 16000),
    (32000, 16000),
    (44100, 16000),
    (48000, 16000),
    (88200, 16000),
    (96000, 16000),
    (192000, 16000),
    (16000, 48000),
    (16000, 44100),
]


def make_noise(batch: int, samples: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.rand(batch, samples, generator=generator) * 2 - 1


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("samples", [1, 2, 441, 5003])
def test_a_whole_signal_equals_torchaudio(source, target, samples):
    x = make_noise(2, samples)
    # float64, because torchaudio computes its filter in the dtype of the audio
    expected = torchaudio.functional.resample(x.double(), source, target)
    torch.testing.assert_close(resample(x, source, target).double(), expected, rtol=0, atol=1e-5)


def test_rates_without_a_common_divisor_follow_the_definition():
    source, target, n = 44099, 16000, 3000
    x = make_noise(1, n)
    y = resample(x, source, target)
    assert y.shape[1] == math.ceil(n * target / source)
    cutoff = target * 0.99 / source
    time = torch.arange(y.shape[1], dtype=torch.float64)[:, None] * source / target
    t = ((torch.arange(n, dtype=torch.float64) - time) * cutoff).clamp(-6, 6)
    weights = torch.sinc(t) * torch.cos(t * math.pi / 12) ** 2 * cutoff
    torch.testing.assert_close(y[0].double(), weights @ x[0].double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("source", "target"), [(8000, 16000), (44100, 16000), (192000, 16000), (44099, 16000)]
)
def test_any_chunking_gives_the_offline_result(source, target):
    assert_streaming_equals_offline(Resampler(source, target), make_noise(2, 701))


@pytest.mark.parametrize(("source", "target"), [(44100, 16000), (16000, 48000), (192000, 16000)])
def test_chunks_and_finish_give_the_offline_result(source, target):
    x = make_noise(1, 1003)
    resampler = Resampler(source, target)
    state, pieces = resampler.init_state(1), []
    for chunk in x.split(97, dim=1):
        y, state = resampler.step(chunk, state)
        pieces.append(y)
    joined = torch.cat([*pieces, resampler.finish(state)], dim=1)
    torch.testing.assert_close(joined, resample(x, source, target), rtol=0, atol=1e-6)


def test_a_signal_longer_than_a_block_equals_torchaudio():
    x = make_noise(1, 60000)
    y = resample(x, 44100, 16000)
    expected = torchaudio.functional.resample(x.double(), 44100, 16000)
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-5)


def test_more_phases_than_a_block_holds_follow_the_definition():
    source, target = 16000, 44101
    x = make_noise(1, 12000)
    y = resample(x, source, target)
    at = torch.tensor([0, 1, 18723, 18724, 18725, 20000, y.shape[1] - 1])
    cutoff = 0.99
    time = at.double()[:, None] * source / target
    t = ((torch.arange(x.shape[1], dtype=torch.float64) - time) * cutoff).clamp(-6, 6)
    weights = torch.sinc(t) * torch.cos(t * math.pi / 12) ** 2 * cutoff
    torch.testing.assert_close(y[0, at].double(), weights @ x[0].double(), rtol=0, atol=1e-5)


def test_the_state_stays_the_same_size():
    resampler = Resampler(44100, 16000)
    first = state = resampler.init_state(3)
    for chunk in make_noise(3, 5000).split(123, dim=1):
        _, state = resampler.step(chunk, state)
    assert [part.shape for part in state] == [part.shape for part in first]
    assert state.tail.untyped_storage().nbytes() == state.tail.numel() * 4


def test_rows_do_not_touch_each_other():
    x = make_noise(3, 2000)
    together = resample(x, 44100, 16000)
    for row in range(3):
        assert torch.equal(resample(x[row : row + 1], 44100, 16000)[0], together[row])


def test_the_future_does_not_change_the_past():
    x = make_noise(1, 2000)
    changed = x.clone()
    changed[:, 1000:] = 0.5
    before, after = (Resampler(44100, 16000)(signal)[0] for signal in (x, changed))
    safe = int((1000 - 17) * 16000 / 44100)
    assert torch.equal(before[:safe], after[:safe])
    assert not torch.equal(before, after)


def test_equal_rates_change_nothing():
    x = make_noise(2, 333)
    assert torch.equal(resample(x, 16000, 16000), x)
    assert_streaming_equals_offline(Resampler(22050, 22050), x, trials=3)


def test_an_empty_signal_stays_empty():
    assert resample(torch.zeros(2, 0), 44100, 16000).shape == (2, 0)


@pytest.mark.parametrize("rate", [0, -16000, 999, 768001])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(AudioError, match=r"outside 1000\.\.768000"):
        Resampler(rate, 16000)
    with pytest.raises(AudioError, match=r"outside 1000\.\.768000"):
        Resampler(16000, rate)


@pytest.mark.parametrize("rate", [44100.0, "44100", True, None])
def test_a_rate_that_is_no_whole_number_is_refused(rate):
    with pytest.raises(AudioError, match="not a whole number"):
        Resampler(rate, 16000)


def test_wrong_input_is_refused():
    resampler = Resampler(44100, 16000)
    state = resampler.init_state(2)
    for x in (torch.zeros(3, 10), torch.zeros(10), torch.zeros(2, 10, dtype=torch.float64)):
        with pytest.raises(ShapeError, match=r"expected \(2, samples\)"):
            resampler.step(x, state)
    _, moved = resampler.step(torch.zeros(2, 5), state)
    mixed = type(state)(state.tail, state.phase, torch.stack([state.skip[0], moved.skip[1]]))
    with pytest.raises(ShapeError, match="different places"):
        resampler.step(torch.zeros(2, 10), mixed)
