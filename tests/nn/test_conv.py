"""Convolutions stream: the past is a value, the future a declared delay."""

import pytest
import torch
from torch.nn import functional as F

from audiossm.errors import ShapeError
from audiossm.nn import CausalConv1d, LookAheadConv, LookAheadState, stack_states
from contract import assert_streaming_equals_offline

RIGHTS = (0, 2, 5)


def make_lookahead() -> LookAheadConv:
    torch.manual_seed(0)
    return LookAheadConv(6, left=3, right_frames=RIGHTS)


class Row:
    """The look-ahead convolution at one of its look-aheads."""

    def __init__(self, conv: LookAheadConv, right: int) -> None:
        self.conv, self.right, self.step = conv, right, conv.step

    def init_state(self, batch: int) -> LookAheadState:
        return self.conv.init_state(batch, self.right)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.step(x, self.init_state(x.shape[0]))[0]


@pytest.mark.parametrize("kernel", [1, 2, 7])
@pytest.mark.parametrize(("channels", "groups"), [((4, 6), 1), ((4, 6), 2), ((6, 6), 6)])
def test_any_chunking_of_a_causal_convolution_gives_the_offline_result(kernel, channels, groups):
    conv = CausalConv1d(*channels, kernel, groups=groups)
    with torch.no_grad():
        assert_streaming_equals_offline(conv, torch.randn(2, channels[0], 23), trials=8)


@pytest.mark.parametrize("kernel", [1, 5])
def test_a_causal_convolution_is_torchs_with_zeros_before_the_start(kernel):
    conv = CausalConv1d(4, 6, kernel, groups=2)
    torch.nn.init.normal_(conv.bias)
    x = torch.randn(2, 4, 11)
    expected = F.conv1d(F.pad(x, (kernel - 1, 0)), conv.weight, conv.bias, groups=2)
    torch.testing.assert_close(conv(x), expected)


def test_any_chunking_of_a_causal_convolution_gives_the_offline_gradient():
    conv = CausalConv1d(3, 5, 4)
    x = torch.randn(2, 3, 17)
    whole = torch.autograd.grad(conv(x).square().sum(), conv.weight)
    state, loss = conv.init_state(2), torch.zeros(())
    for chunk in x.split([1, 5, 2, 9], dim=-1):
        y, state = conv.step(chunk, state)
        loss = loss + y.square().sum()
    torch.testing.assert_close(torch.autograd.grad(loss, conv.weight), whole)


def test_a_causal_convolution_does_not_look_ahead():
    conv = CausalConv1d(3, 5, 4)
    x = torch.randn(1, 3, 20)
    changed = x.clone()
    changed[..., 12:] += 1.0
    before, after = conv(x), conv(changed)
    assert torch.equal(before[..., :12], after[..., :12])
    assert (before[..., 12] != after[..., 12]).all()


def test_the_state_of_a_causal_convolution_owns_its_memory():
    conv = CausalConv1d(3, 3, 4)
    _, state = conv.step(torch.randn(1, 3, 500), conv.init_state(1))
    assert state.tail.untyped_storage().nbytes() == 3 * 3 * 4


@pytest.mark.parametrize("shape", [(2, 3, 0), (2, 4, 5), (3, 5)])
def test_a_causal_convolution_refuses_other_shapes(shape):
    conv = CausalConv1d(3, 5, 4)
    with pytest.raises(ShapeError, match=r"takes \(batch, 3, frames >= 1\), got \("):
        conv.step(torch.zeros(shape), conv.init_state(2))


def test_a_causal_convolution_refuses_the_state_of_another_batch():
    conv = CausalConv1d(3, 5, 4)
    with pytest.raises(ShapeError, match="batch of 2, but the state has 3"):
        conv.step(torch.zeros(2, 3, 1), conv.init_state(3))


@pytest.mark.parametrize("right", RIGHTS)
def test_any_chunking_of_a_lookahead_gives_the_offline_result(right):
    with torch.no_grad():
        assert_streaming_equals_offline(
            Row(make_lookahead(), right), torch.randn(2, 31, 6), time=1, trials=8
        )


@pytest.mark.parametrize("right", RIGHTS)
def test_a_lookahead_is_late_by_exactly_its_frames(right):
    conv = make_lookahead()
    with torch.no_grad():
        conv.weight.zero_()  # what is left is the residual
    x = torch.randn(2, 20, 6)
    y = Row(conv, right)(x)
    assert torch.equal(y[:, right:], x[:, : 20 - right])
    assert torch.equal(y[:, :right], torch.zeros(2, right, 6))


@pytest.mark.parametrize("right", RIGHTS)
def test_a_lookahead_sees_its_frames_and_not_one_more(right):
    row = Row(make_lookahead(), right)
    x = torch.randn(1, 30, 6)
    changed = x.clone()
    changed[:, 20:] += 1.0
    before, after = (row(signal)[:, right:] for signal in (x, changed))
    assert torch.equal(before[:, : 20 - right], after[:, : 20 - right])
    assert (before[:, 20 - right] != after[:, 20 - right]).all()


def test_rows_of_different_lookaheads_share_a_batch():
    conv = make_lookahead()
    x = torch.randn(3, 17, 6)
    rows = [Row(conv, right)(x[i : i + 1]) for i, right in enumerate(RIGHTS)]
    states = stack_states([conv.init_state(1, right) for right in RIGHTS])
    mixed, state = conv.step(x, states)
    torch.testing.assert_close(mixed, torch.cat(rows), rtol=0, atol=1e-6)
    assert state.option.tolist() == [0, 1, 2]


def test_the_widest_lookahead_is_the_default():
    conv = make_lookahead()
    x = torch.randn(2, 9, 6)
    assert torch.equal(conv(x), Row(conv, 5)(x))


def test_a_lookahead_that_does_not_exist_is_refused():
    with pytest.raises(ShapeError, match=r"look-ahead of 3 frames, but there are \(0, 2, 5\)"):
        make_lookahead().init_state(1, 3)


@pytest.mark.parametrize("shape", [(2, 0, 6), (2, 4, 5), (2, 6)])
def test_a_lookahead_refuses_other_shapes(shape):
    conv = make_lookahead()
    with pytest.raises(ShapeError, match=r"takes \(batch, frames >= 1, 6\), got \("):
        conv.step(torch.zeros(shape), conv.init_state(2))


def test_a_lookahead_refuses_the_state_of_another_batch():
    conv = make_lookahead()
    with pytest.raises(ShapeError, match="batch of 2, but the state has 3"):
        conv.step(torch.zeros(2, 4, 6), conv.init_state(3))
