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
SHORT = {"attention_layers": (1,), "attention_window": 6, "attention_heads": 2}
HYBRID = dataclasses.replace(
    TINY, backbone=dataclasses.replace(TINY.backbone, **SHORT, attention_kv_heads=1)
)
FRAME = TINY.frame_size


@pytest.fixture(params=[TINY, HYBRID], ids=["mamba", "hybrid"])
def network(request: pytest.FixtureRequest) -> Recogniser:
    return Recogniser(request.param).eval().requires_grad_(False)


def test_any_chunking_gives_the_offline_result(network):
    x = torch.randn(2, 14 * FRAME) * 0.1
    assert_streaming_equals_offline(network, x, out_time=1, multiple=FRAME, trials=5)


def test_compiled_layers_do_what_they_did(network):
    x = torch.randn(2, 4 * FRAME) * 0.1
    expected = network(x)
    for module in (network.encoder, *network.blocks()):
        module.step = torch.compile(module.step, backend="eager", dynamic=False)
    torch.testing.assert_close(network(x), expected)


def test_a_backbone_frame_gives_its_label_frames_of_probabilities(network):
    log_probs = network(torch.randn(2, 3 * FRAME) * 0.1)
    assert log_probs.shape == (2, 3 * TINY.stack, len(TINY.pieces))
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(2, 6))


@pytest.mark.parametrize("is_mimo", [False, True])
def test_a_state_that_is_turned_back_has_no_angle_and_the_same_future(is_mimo):
    backbone = dataclasses.replace(TINY.backbone, is_mimo=is_mimo, mimo_rank=2)
    network = Recogniser(dataclasses.replace(TINY, backbone=backbone)).eval().requires_grad_(False)
    state = network.init_state(2)
    encoded, encoder = network.encoder.step(torch.randn(2, 20 * FRAME) * 0.1, state.encoder)
    _, _, state = network.step_encoded(encoded, state._replace(encoder=encoder))
    back = network.turn_back(state)
    for old, new in zip(state.lower + state.upper, back.lower + back.upper, strict=True):
        assert old.angle.any() and not new.angle.any()
        assert (old.ssm - new.ssm).abs().max() > 1e-3
    assert state.encoder.ssm.angle.any() and not back.encoder.ssm.angle.any()
    x = torch.randn(2, 10 * FRAME) * 0.1
    torch.testing.assert_close(network.step(x, back)[0], network.step(x, state)[0])


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
    state = network.init_state(2)
    encoded, _ = network.encoder.step(torch.randn(2, 12 * FRAME) * 0.1, state.encoder)
    hidden, phones, _ = network.step_encoded(encoded, state)
    (network.log_probs(hidden).square().sum() + phones.square().sum()).backward()
    still = [
        name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()
    ]
    # each row takes one of the look-aheads: here the last
    assert still == []
    assert network.lookahead.weight.grad.abs().sum((1, 2)).gt(0).tolist() == [False, False, True]


def test_the_layers_above_are_told_the_phones(network):
    x = torch.randn(1, 6 * FRAME) * 0.1
    before = network(x)
    network.phones.condition.weight.normal_()
    assert (network(x) - before).abs().max() > 0.01


def test_pieces_give_the_offline_gradient():
    network = Recogniser(TINY)
    x = torch.randn(1, 8 * FRAME) * 0.1
    weights = [p for name, p in network.named_parameters() if not name.startswith("phones.")]
    whole = torch.autograd.grad(network(x).square().sum(), weights)
    state, loss = network.init_state(1), torch.zeros(())
    for piece in x.split([FRAME, 4 * FRAME, 3 * FRAME], dim=1):
        log_probs, state = network.step(piece, state)
        loss = loss + log_probs.square().sum()
    pieces = torch.autograd.grad(loss, weights)
    for a, b in zip(pieces, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()) + 1e-6)


def test_phones_come_with_the_letters_of_the_same_frames(network):
    state = network.init_state(1)
    encoded = torch.randn(1, 6, TINY.encoder.d_model)
    hidden, phones, _ = network.step_encoded(encoded, state)
    assert phones.shape == (1, TINY.stack * hidden.shape[1], len(TINY.phones) + 1)
    torch.testing.assert_close(phones.exp().sum(-1), torch.ones(1, 6))
    bare = Recogniser(dataclasses.replace(TINY, phones=()))
    assert bare.step_encoded(encoded, bare.init_state(1))[1] is None


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
    assert from_dict(RecogniserConfig, to_dict(HYBRID), "recogniser") == HYBRID
    assert not any(name.startswith("attention") for name in to_dict(TINY)["backbone"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_layers": (2,)}, r"attention_layers is \[2\], must be different numbers"),
        ({"attention_layers": (0, 1)}, "attention_layers names all layers"),
        ({"attention_window": 0}, "window must be 1 or more, not 0"),
    ],
)
def test_a_hybrid_that_cant_be_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(HYBRID.backbone, **change)
