"""The mixer and the block around it, as streams and as formulas."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from audiossm.errors import ConfigError, ShapeError
from audiossm.nn import Block, Mamba3, Mamba3Config
from audiossm_kernels.projection import heavy_tail
from contract import assert_streaming_equals_offline

SMALL = Mamba3Config(d_model=16, d_state=8, head_dim=8)
CONFIGS = {
    "siso": SMALL,
    "siso, groups, full rotation, norm": dataclasses.replace(
        SMALL, num_groups=2, rope_fraction=1.0, out_norm=True
    ),
    "mimo": dataclasses.replace(SMALL, is_mimo=True, mimo_rank=4, chunk_size=5),
    "resonators": dataclasses.replace(SMALL, resonators=0.5),
    "mimo, resonators alone": dataclasses.replace(
        SMALL, is_mimo=True, mimo_rank=2, resonators=0.3, turns=False
    ),
    "mimo, norm, softplus": dataclasses.replace(
        SMALL, is_mimo=True, mimo_rank=2, out_norm=True, a_activation="softplus"
    ),
}

each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def make_mixer(config: Mamba3Config) -> Mamba3:
    """A mixer whose parameters all differ from their start."""
    torch.manual_seed(0)
    mixer = Mamba3(config)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        mixer.dt_bias.add_(2.0)
    return mixer


@each_config
@pytest.mark.parametrize("frames", [1, 7, 70])
def test_any_chunking_gives_the_offline_result(config, frames):
    mixer = make_mixer(config)
    with torch.no_grad():
        assert_streaming_equals_offline(mixer, torch.randn(2, frames, 16), time=1, trials=6)


@each_config
def test_any_chunking_gives_the_offline_gradients(config):
    mixer = make_mixer(config).double()
    x = torch.randn(2, 23, 16, dtype=torch.float64)
    target = torch.randn(2, 23, 16, dtype=torch.float64)
    whole = torch.autograd.grad((mixer(x) * target).sum(), tuple(mixer.parameters()))
    state, loss = mixer.init_state(2), torch.zeros((), dtype=torch.float64)
    sizes = [1, 9, 1, 1, 11]
    for chunk, goal in zip(x.split(sizes, 1), target.split(sizes, 1), strict=True):
        y, state = mixer.step(chunk, state)
        loss = loss + (y * goal).sum()
    pieces = torch.autograd.grad(loss, tuple(mixer.parameters()))
    for a, b in zip(pieces, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_a_block_streams_too():
    torch.manual_seed(0)
    block = Block(SMALL, 24, dropout=0.5).eval()
    with torch.no_grad():
        assert_streaming_equals_offline(block, torch.randn(2, 30, 16), time=1, trials=6)


def test_a_block_adds_its_two_branches_to_the_residual():
    torch.manual_seed(0)
    block = Block(SMALL, 24)
    x = torch.randn(2, 5, 16)
    middle = x + block.mixer(block.norm(x))
    torch.testing.assert_close(block(x), middle + block.mlp(block.norm2(middle)))


def test_dropout_acts_on_both_branches_in_training_only():
    torch.manual_seed(0)
    block = Block(SMALL, 24, dropout=1.0)
    x = torch.randn(2, 5, 16)
    assert torch.equal(block(x), x)
    assert not torch.equal(block.eval()(x), x)


@each_config
def test_the_future_does_not_change_the_past(config):
    mixer = make_mixer(config)
    x = torch.randn(1, 40, 16)
    changed = torch.cat([x[:, :25], torch.randn(1, 15, 16)], dim=1)
    torch.testing.assert_close(mixer(x)[:, :25], mixer(changed)[:, :25], rtol=1e-5, atol=1e-6)


@each_config
def test_rows_of_a_batch_are_independent(config):
    mixer = make_mixer(config)
    x = torch.randn(3, 12, 16)
    alone = torch.cat([mixer(row.unsqueeze(0)) for row in x])
    torch.testing.assert_close(mixer(x), alone, rtol=1e-5, atol=1e-6)


def test_names_and_sizes_are_those_of_the_authors_checkpoints():
    mixer = Mamba3(Mamba3Config(d_model=64, d_state=32, head_dim=16, is_mimo=True, mimo_rank=4))
    shapes = {name: tuple(tensor.shape) for name, tensor in mixer.state_dict().items()}
    assert shapes == {
        "in_proj.weight": (544, 64),
        "dt_bias": (8,),
        "B_bias": (8, 4, 32),
        "C_bias": (8, 4, 32),
        "B_norm.weight": (32,),
        "C_norm.weight": (32,),
        "D": (8,),
        "mimo_x": (8, 4, 16),
        "mimo_z": (8, 4, 16),
        "mimo_o": (8, 4, 16),
        "out_proj.weight": (64, 128),
    }
    siso = Mamba3(dataclasses.replace(SMALL, mimo_rank=4, out_norm=True)).state_dict()
    assert "mimo_x" not in siso
    assert siso["B_bias"].shape == (4, 1, 8)
    assert siso["norm.weight"].shape == (32,)
    widths = [sum(Mamba3Config(d_model=d).split_sizes) for d in (2048, 1536, 1024, 768)]
    assert widths == [8672, 6576, 4480, 3432]


def test_steps_start_between_their_bounds():
    torch.manual_seed(0)
    config = Mamba3Config(d_model=512, head_dim=1, d_state=4, dt_min=1e-3, dt_max=0.1)
    dt = F.softplus(Mamba3(config).dt_bias).detach()
    assert 0.99e-3 <= dt.min() <= 1.2e-3
    assert 0.09 <= dt.max() <= 0.101
    assert dt.log().mean().item() == pytest.approx(-4.605, abs=0.1)  # log-uniform: 0.01


def test_heavy_tail_is_its_formula_with_a_finite_slope_everywhere():
    s = torch.tensor([-3.0, -1.0, 0.0, 1.0, 2.0], requires_grad=True)
    y = heavy_tail(s)
    assert y.tolist() == [0.25, 0.5, 1.0, 2.0, 3.0]
    y.sum().backward()
    assert s.grad.tolist() == [0.0625, 0.25, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(("activation", "rate"), [("heavy_tail", 1 / 21), ("softplus", 2.06e-9)])
@pytest.mark.parametrize("floor", [1e-12, 0.5])
def test_the_decay_rate_is_the_activation_but_not_below_the_floor(activation, rate, floor):
    config = dataclasses.replace(SMALL, a_activation=activation, a_floor=floor)
    torch.manual_seed(0)
    mixer = Mamba3(config)
    start = sum(config.split_sizes[:5])
    with torch.no_grad():
        mixer.in_proj.weight.zero_()
        mixer.in_proj.weight[start : start + config.num_heads, 0] = -20.0  # rows of A
        mixer.dt_bias.fill_(1.0)
    x = torch.zeros(1, 1, 16)
    x[..., 0] = 1.0
    state = mixer.init_state(1)._replace(ssm=torch.ones(1, 4, 8, 8))
    _, after = mixer.step(x, state)
    dt = F.softplus(torch.tensor(1.0))
    expected = torch.exp(-max(rate, floor) * dt).expand_as(after.ssm)
    torch.testing.assert_close(after.ssm, expected)


def test_an_odd_rotary_split_gives_up_one_dimension():
    assert Mamba3Config(d_model=16, d_state=6, head_dim=8).num_angles == 1
    assert Mamba3Config(d_model=16, d_state=6, head_dim=8, rope_fraction=1.0).num_angles == 3
    odd = Mamba3Config(d_model=16, d_state=7, head_dim=8, rope_fraction=1.0)
    assert odd.num_angles == 3
    with torch.no_grad():
        assert_streaming_equals_offline(make_mixer(odd), torch.randn(1, 9, 16), time=1, trials=2)


def test_bfloat16_layers_keep_float32_states():
    mixer = make_mixer(SMALL).bfloat16()
    y, state = mixer.step(torch.randn(2, 5, 16).bfloat16(), mixer.init_state(2))
    assert y.dtype == torch.bfloat16
    assert {part.dtype for part in state} == {torch.float32}
    y, state = mixer.step(torch.randn(2, 1, 16).bfloat16(), state)
    assert y.dtype == torch.bfloat16
    assert {part.dtype for part in state} == {torch.float32}


def test_autocast_stays_near_float32():
    mixer = make_mixer(SMALL)
    x = torch.randn(2, 30, 16)
    with torch.autocast("cpu", torch.bfloat16):
        y = mixer(x)
    error = (y.float() - mixer(x)).norm() / mixer(x).norm()
    assert 0 < error < 0.03


def test_a_wrong_input_is_refused_with_the_numbers():
    mixer = Mamba3(SMALL)
    with pytest.raises(ShapeError, match=r"\(batch, frames >= 1, 16\), not \(2, 0, 16\)"):
        mixer(torch.zeros(2, 0, 16))
    with pytest.raises(ShapeError, match=r"not \(2, 3, 15\)"):
        mixer(torch.zeros(2, 3, 15))
    with pytest.raises(ShapeError, match="batch 2, but the state 3"):
        mixer.step(torch.zeros(2, 3, 16), mixer.init_state(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head_dim": 7}, "expand \\* d_model = 32 must be a multiple of head_dim 7"),
        ({"expand": 1.03}, "expand \\* d_model = 16.48"),
        ({"num_groups": 3}, "4 heads can't be shared by 3 groups"),
        ({"rope_fraction": 0.25}, "rope_fraction must be 0.5 or 1, not 0.25"),
        ({"d_state": 2}, "d_state 2 has no pairs to rotate"),
        ({"d_state": 7, "is_mimo": True}, "d_state 7 has no pairs to rotate"),
        ({"a_activation": "relu"}, "not 'relu'"),
        ({"chunk_size": 0}, "chunk_size must be 1 or more, not 0"),
        ({"dt_min": 0.2}, "0 < dt_min <= dt_max"),
        ({"resonators": 1.5}, "resonators must be a share from 0 to 1, not 1.5"),
        ({"d_model": 0}, "d_model must be 1 or more, not 0"),
    ],
)
def test_a_wrong_config_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SMALL, **change)


def test_a_bounded_memory_fades_however_small_a_and_dt_are():
    config = Mamba3Config(d_model=8, d_state=8, head_dim=4, max_memory=10.0)
    layer = Mamba3(config)
    with torch.no_grad():
        layer.dt_bias.fill_(-20.0)  # hardly any step: as published, nothing would be forgotten
        layer.in_proj.weight.zero_()
    start = layer.init_state(1)
    start = start._replace(ssm=torch.ones_like(start.ssm))
    _, many = layer.step(torch.zeros(1, 30, 8), start)
    torch.testing.assert_close(many.ssm, start.ssm * math.exp(-3.0))
    _, state = layer.step(torch.zeros(1, 1, 8), start)
    torch.testing.assert_close(state.ssm, start.ssm * math.exp(-0.1))


def test_eulers_rule_forgets_the_input_before():
    config = dataclasses.replace(SMALL, trapezoid=False)
    euler, published = make_mixer(config), make_mixer(SMALL)
    x = torch.randn(2, 9, 16)
    assert not torch.allclose(euler(x), published(x), atol=1e-3)
    with torch.no_grad():  # the published layer whose lambda is 1
        trap = slice(sum(config.split_sizes[:6]), sum(config.split_sizes[:7]))
        published.in_proj.weight[trap] = 0.0
    published.weigh = lambda trap: trap + 30.0  # type: ignore[method-assign]
    torch.testing.assert_close(euler(x), published(x))
    for weight in (euler.in_proj.weight,):
        (gradient,) = torch.autograd.grad(euler(x).square().sum(), weight)
        assert gradient[trap].abs().max() == 0
    # what the state keeps of the last input has no say any more
    _, state = euler.step(x, euler.init_state(2))
    other = state._replace(k=state.k + 1.0, v=state.v - 1.0)
    torch.testing.assert_close(euler.step(x, state)[0], euler.step(x, other)[0])


def test_without_turns_no_state_turns():
    still, published = make_mixer(dataclasses.replace(SMALL, turns=False)), make_mixer(SMALL)
    x = torch.randn(2, 9, 16)
    assert not torch.allclose(still(x), published(x), atol=1e-3)
    with torch.no_grad():
        published.in_proj.weight[-SMALL.num_angles :] = 0.0
    torch.testing.assert_close(still(x), published(x))
    (gradient,) = torch.autograd.grad(still(x).square().sum(), still.in_proj.weight)
    assert gradient[-SMALL.num_angles :].abs().max() == 0


def test_a_bank_turns_its_heads_by_its_frequencies_whatever_dt_is():
    config = dataclasses.replace(SMALL, resonators=0.5, turns=False)
    mixer = make_mixer(config)
    for frames in (1, 2, 100):
        _, state = mixer.step(torch.randn(1, frames, 16), mixer.init_state(1))
        turned = (mixer.frequency * frames) % (2 * math.pi)
        torch.testing.assert_close(state.angle[0, :2], turned, rtol=1e-4, atol=1e-4)
        assert state.angle[0, 2:].abs().max() == 0


def test_a_bank_begins_with_periods_from_2_to_200_frames():
    mixer = Mamba3(dataclasses.replace(SMALL, resonators=0.3))
    assert mixer.config.num_resonant == len(mixer.frequency) == 2
    periods = 2 * math.pi / mixer.frequency.detach()
    torch.testing.assert_close(
        periods.T.flatten(), torch.tensor([200.0, 43.0887, 9.28318, 2.0]), rtol=1e-4, atol=1e-4
    )


def test_turning_the_inputs_is_turning_the_state():
    """The recurrence itself, frame by frame, with the bank's turn added to each frame's own."""
    mixer = make_mixer(dataclasses.replace(SMALL, resonators=1.0)).double()
    x = torch.randn(1, 8, 16, dtype=torch.float64)
    state, outputs = mixer.init_state(1), []
    for frame in x.split(1, dim=1):
        turned = state.angle + mixer.frequency
        plain = Mamba3(SMALL).double()
        plain.load_state_dict(mixer.state_dict(), strict=False)
        y, state = plain.step(frame, state._replace(angle=turned))
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, dim=1), mixer(x))


def test_a_bank_learns_its_frequencies():
    mixer = make_mixer(dataclasses.replace(SMALL, resonators=0.5))
    (gradient,) = torch.autograd.grad(
        mixer(torch.randn(1, 9, 16)).square().sum(), mixer.log_frequency
    )
    assert (gradient != 0).all()


def test_without_a_bank_the_layer_has_the_published_parameters():
    assert "log_frequency" not in Mamba3(SMALL).state_dict()
    assert Mamba3(SMALL).log_frequency is None
