"""Each layer of a compiled loop does what torch does, whatever its sizes."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiossm.errors import ModelError
from audiossm.loops import Loop, LoopState, Output, Program, Slot
from audiossm.loops import program as layers
from audiossm.nn import CausalConv1d, Mamba3, Mamba3Config, RMSNorm, named_tensors
from audiossm.rounding import restore_rows, round_rows


def make_bytes(rows: int, width: int) -> Tensor:
    return restore_rows(*round_rows(torch.randn(rows, width) * torch.rand(rows, 1)))


def run_layer(
    rows: int, width: int, add: Callable[[Program, Slot], Slot], x: Tensor, state: object = ()
) -> tuple[Tensor, object]:
    """Run one layer on each of x (frames, rows, width)."""
    program = Program([name for name, _ in named_tensors(state)])
    slot = program.slot(rows, width)
    y = add(program, slot)
    loop = Loop(program, slot, Output(y, (1, y.rows, y.width), 0, np.float32))
    # a stream without a state is one of an empty tensor
    running = LoopState(loop, state or (torch.zeros(1, 1),))
    (found,) = running.step(x.reshape(1, len(x), -1))
    return found[0], running.read()


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("width, outputs", [(320, 64), (67, 5), (1, 3)])
def test_products_of_bytes_and_of_floats(rows, width, outputs):
    layer = nn.Linear(width, outputs).requires_grad_(False)
    layer.weight.copy_(make_bytes(outputs, width))
    scale, x = torch.rand(outputs), torch.randn(3, rows, width)
    found, _ = run_layer(rows, width, lambda p, slot: p.linear(slot, layer, scale), x)
    torch.testing.assert_close(found, scale * layer(x), rtol=1e-5, atol=1e-4)
    weight = torch.randn(outputs, width)
    found, _ = run_layer(rows, width, lambda p, slot: p.multiply(slot, weight), x)
    torch.testing.assert_close(found, x @ weight.T, rtol=1e-5, atol=1e-4)


def test_a_weight_that_is_no_bytes_is_refused():
    weight = make_bytes(4, 8)
    weight[1, 2] *= 1.001
    with pytest.raises(ModelError, match="aren't rows of bytes"):
        Program([]).writer.add_product(weight)


def test_gelu_from_end_to_end():
    x = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([-1e30, -0.0, 0.0, 1e-30, 1e30])])
    found, _ = run_layer(
        1, len(x), lambda p, slot: p.line(layers.GELU, slot, slot), x.view(1, 1, -1)
    )
    expected = F.gelu(x.double()).float().view(1, 1, -1)
    # in float32, torch itself errs by 1.1e-6
    torch.testing.assert_close(found, expected, rtol=3e-7, atol=1e-6)


@pytest.mark.parametrize("rows, width", [(1, 320), (4, 33)])
def test_norms(rows, width):
    norm = nn.LayerNorm(width).requires_grad_(False)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = 3 + 10 * torch.randn(2, rows, width)
    found, _ = run_layer(rows, width, lambda p, slot: p.layer_norm(slot, norm), x)
    torch.testing.assert_close(found, norm(x), rtol=1e-5, atol=1e-5)
    power = RMSNorm(width).requires_grad_(False)
    nn.init.normal_(power.weight)
    one = x[:, :1]
    found, _ = run_layer(1, width, lambda p, slot: p.rms_norm(slot, power), one)
    torch.testing.assert_close(found, power(one), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows, kernel", [(1, 7), (4, 5), (4, 2), (3, 7)])
def test_convolutions_remember(rows, kernel):
    width, frames = 12, 5
    conv = CausalConv1d(width, width, kernel, groups=width).requires_grad_(False)
    nn.init.normal_(conv.bias)

    def add(program: Program, slot: Slot) -> Slot:
        table = program.writer.add(conv.weight.squeeze(1).T)
        program.writer.add(conv.bias)
        y = program.slot(slot.rows, slot.width)
        return program.line(layers.CONVOLVE, slot, y, table=table, part="tail")

    x = torch.randn(frames, rows, width)
    found, state = run_layer(rows, width, add, x, conv.init_state(1))
    expected, end = conv.step(x.view(1, frames * rows, width).transpose(1, 2), conv.init_state(1))
    torch.testing.assert_close(found.view(-1, width), expected[0].T, rtol=1e-5, atol=1e-5)
    assert torch.equal(state.tail, end.tail)


@pytest.mark.parametrize("fraction, memory", [(0.5, None), (1.0, 20.0)])
def test_a_mixer_goes_on_as_torch_does(fraction, memory):
    config = Mamba3Config(
        d_model=20, d_state=10, expand=1.5, head_dim=6, rope_fraction=fraction, max_memory=memory
    )
    mixer = Mamba3(config).requires_grad_(False)
    for weight in (mixer.in_proj.weight, mixer.out_proj.weight):
        weight.copy_(make_bytes(*weight.shape))
    for small in (mixer.B_bias, mixer.C_bias, mixer.D, mixer.B_norm.weight, mixer.C_norm.weight):
        nn.init.normal_(small)
    x = 3 * torch.randn(40, 1, 20)
    found, end = run_layer(
        1, 20, lambda p, slot: p.mixer(slot, mixer, "angle"), x, mixer.init_state(1)
    )
    state, pieces = mixer.init_state(1), []
    for frame in x:
        y, state = mixer.step(frame.unsqueeze(0), state)
        pieces.append(y[0])
    for ours, theirs in zip((found, *end), (torch.stack(pieces), *state), strict=True):
        assert (ours - theirs).abs().max() <= 1e-4 * max(1.0, float(theirs.abs().max()))


def test_other_mixers_are_refused():
    for options in (
        {"is_mimo": True, "mimo_rank": 2},
        {"out_norm": True},
        {"num_groups": 2},
        {"trapezoid": False},
        {"turns": False},
        {"resonators": 0.5},
    ):
        mixer = Mamba3(Mamba3Config(d_model=32, d_state=8, head_dim=16, **options))
        mixer.requires_grad_(False)
        mixer.in_proj.weight.copy_(make_bytes(*mixer.in_proj.weight.shape))
        with pytest.raises(ModelError, match="of another kind"):
            Program(["angle"]).mixer(Slot(0, 1, 32), mixer, "angle")
