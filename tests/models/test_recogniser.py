"""The recogniser network: samples to label probabilities, in any pieces."""

import dataclasses

import pytest
import torch

from audiossm.config import from_dict, to_dict
from audiossm.errors import ConfigError, ShapeError
from audiossm.models import Recogniser, RecogniserConfig
from audiossm.nn import stack_states
from contract import assert_streaming_equals_offline

TINY = RecogniserConfig.tiny()
FRAME = TINY.frame_size


@pytest.fixture
def network() -> Recogniser:
    return Recogniser(TINY).eval().requires_grad_(False)


def test_any_chunking_gives_the_offline_result(network):
    x = torch.randn(2, 14 * FRAME) * 0.1
    assert_streaming_equals_offline(network, x, out_time=1, multiple=FRAME, trials=5)


def test_a_backbone_frame_gives_its_label_frames_of_probabilities(network):
    log_probs = network(torch.randn(2, 3 * FRAME) * 0.1)
    assert log_probs.shape == (2, 3 * TINY.stack, len(TINY.pieces))
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(2, 6))


def test_rows_of_different_lookaheads_share_a_batch(network):
    x = torch.randn(3, 12 * FRAME) * 0.1
    states = [network.init_state(1, right) for right in TINY.lookahead_frames]
    rows = [network.step(row, state)[0] for row, state in zip(x.split(1), states, strict=True)]
    mixed, _ = network.step(x, stack_states(states))
    torch.testing.assert_close(mixed, torch.cat(rows), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("right", TINY.lookahead_frames)
def test_a_label_sees_its_lookahead_and_not_one_frame_more(network, right):
    x = torch.randn(1, 24 * FRAME) * 0.1
    changed = x.clone()
    changed[:, 15 * FRAME :] *= -3.0
    first, second = (
        network.step(signal, network.init_state(1, right))[0][:, right * TINY.stack :]
        for signal in (x, changed)
    )
    safe = (15 - right) * TINY.stack
    torch.testing.assert_close(first[:, :safe], second[:, :safe], rtol=0, atol=1e-5)
    assert (first[:, safe] - second[:, safe]).abs().max() > 1e-4


@pytest.mark.parametrize("middle", [1, 2])
def test_a_gradient_reaches_every_parameter(middle):
    network = Recogniser(dataclasses.replace(TINY, middle_after=middle))
    network(torch.randn(2, 12 * FRAME) * 0.1).square().sum().backward()
    still = [
        name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()
    ]
    # each row takes one of the look-aheads: here the last
    assert still == []
    assert network.lookahead.weight.grad.abs().sum((1, 2)).gt(0).tolist() == [False, False, True]


def test_pieces_give_the_offline_gradient():
    network = Recogniser(TINY)
    x = torch.randn(1, 8 * FRAME) * 0.1
    whole = torch.autograd.grad(network(x).square().sum(), list(network.parameters()))
    state, loss = network.init_state(1), torch.zeros(())
    for piece in x.split([FRAME, 4 * FRAME, 3 * FRAME], dim=1):
        log_probs, state = network.step(piece, state)
        loss = loss + log_probs.square().sum()
    pieces = torch.autograd.grad(loss, list(network.parameters()))
    for a, b in zip(pieces, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()) + 1e-6)


def test_step_encoded_gives_the_middle_that_training_asks_for(network):
    config = dataclasses.replace(TINY, middle_after=2)
    full = Recogniser(config).eval().requires_grad_(False)
    encoded = torch.randn(1, 6, TINY.encoder.d_model)
    last, middle, _ = full.step_encoded(encoded, full.init_state(1))
    assert torch.equal(last, middle)
    last, middle, _ = network.step_encoded(encoded, network.init_state(1))
    assert not torch.equal(last, middle)


@pytest.mark.parametrize("shape", [(1, FRAME + 320), (1, 0), (FRAME,)])
def test_a_piece_that_is_no_multiple_of_the_frame_is_refused(network, shape):
    with pytest.raises(ShapeError) as caught:
        network.step(torch.zeros(shape), network.init_state(1))
    assert str(caught.value) == f"Recogniser takes (batch, samples), a multiple of 640, got {shape}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lookahead_after": 0}, "lookahead_after is 0, must lie between 1 and 1 layers"),
        ({"lookahead_after": 2}, "lookahead_after is 2"),
        ({"middle_after": 0}, "middle_after is 0, must lie between lookahead_after 1 and 2"),
        ({"middle_after": 3}, "middle_after is 3"),
        ({"pieces": ("a", "▁")}, "must begin with '<blank>'"),
        ({"stack": 0}, "stack is 0, must be 1 or more"),
        ({"lookahead_left": -1}, "lookahead_left is -1, must be 0 or more"),
        ({"lookahead_frames": ()}, r"lookahead_frames is \(\), must be different numbers"),
        ({"lookahead_frames": (4, 4)}, r"lookahead_frames is \(4, 4\), must be different numbers"),
        ({"lookahead_frames": (-1, 4)}, "must be different numbers from 0 up"),
    ],
)
def test_a_wrong_config_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TINY, **change)


def test_a_config_is_the_same_after_a_trip_through_tables():
    assert from_dict(RecogniserConfig, to_dict(TINY), "recogniser") == TINY
