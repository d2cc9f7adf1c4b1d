"""Attention over a window streams like every layer, and sees no frame more than it says."""

import pytest
import torch

from audiossm.errors import ConfigError, ModelError, ShapeError
from audiossm.nn import (
    AttentionBlock,
    AttentionConfig,
    Block,
    Mamba3Config,
    WindowAttention,
    mamba_blocks,
    stack_states,
    unstack_states,
)
from contract import assert_streaming_equals_offline

SMALL = AttentionConfig(d_model=12, window=5, num_heads=4, num_kv_heads=2, head_dim=6)


@pytest.fixture
def layer() -> WindowAttention:
    return WindowAttention(SMALL).requires_grad_(False)


@pytest.mark.parametrize("window, length", [(1, 6), (5, 4), (5, 23), (5, 25), (40, 23)])
def test_any_chunking_gives_the_offline_result(window, length):
    config = AttentionConfig(d_model=12, window=window, num_heads=2, num_kv_heads=2, head_dim=6)
    with torch.no_grad():
        x = torch.randn(2, length, 12)
        assert_streaming_equals_offline(WindowAttention(config), x, time=1, trials=10)


def test_blocks_do_what_the_formula_says(layer):
    """Frame by frame and head by head, over keys that turn by their place in the stream."""
    x = torch.randn(1, 13, 12)
    q, k, v = layer.in_proj(x).split(SMALL.split_sizes, dim=-1)
    q, k, v = (part.view(13, -1, 6) for part in (q, k, v))
    q, k = layer.q_norm(q), layer.k_norm(k)
    speeds = 10000.0 ** (-torch.arange(3) / 3)

    def turn(vector: torch.Tensor, place: int) -> torch.Tensor:
        turned = torch.view_as_complex(torch.stack([vector[:3], vector[3:]], dim=-1))
        turned = turned * torch.exp(1j * place * speeds)
        return torch.cat([turned.real, turned.imag])

    zero = torch.zeros(6)
    frames = []
    for t in range(13):
        heads = []
        for head in range(4):
            places = range(t - 4, t + 1)
            keys = [turn(k[i, head // 2], i) if i >= 0 else zero for i in places]
            values = [v[i, head // 2] if i >= 0 else zero for i in places]
            logits = torch.stack(keys) @ turn(q[t, head], t) / 6**0.5
            heads.append(logits.softmax(0) @ torch.stack(values))
        frames.append(torch.cat(heads))
    expected = layer.out_proj(torch.stack(frames)).unsqueeze(0)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [5, 17])
def test_an_output_sees_the_window_and_no_frame_more(layer, length):
    x = torch.randn(1, length, 12)
    other = x.clone()
    other[:, 3] += 1.0
    changed = ((layer(x) - layer(other)).abs() > 1e-6).any(-1)[0]
    assert changed.tolist() == [3 <= frame < 8 for frame in range(length)]


def test_how_long_a_stream_has_run_changes_nothing(layer):
    x, before = torch.randn(2, 9, 12), torch.randn(2, 1000, 12)
    tail = torch.randn(2, 4, 12)
    short = layer(torch.cat([tail, x], dim=1))[:, 4:]
    long = layer(torch.cat([before, tail, x], dim=1))[:, -9:]
    torch.testing.assert_close(short, long, rtol=1e-4, atol=1e-5)


def test_a_state_has_one_size_and_rows_dont_touch_each_other(layer):
    state = layer.init_state(3)
    sizes = [part.shape for part in state]
    x = torch.randn(3, 11, 12)
    whole, after = layer.step(x, state)
    assert [part.shape for part in after] == sizes and after.keys.dtype == torch.float32
    again = torch.randn(3, 2, 12)
    together, _ = layer.step(again, after)
    states = unstack_states(after, 3)
    alone = [layer.step(again[i : i + 1], states[i])[0] for i in range(3)]
    torch.testing.assert_close(torch.cat(alone), together)
    swapped, _ = layer.step(again[[2, 0]], stack_states([states[2], states[0]]))
    torch.testing.assert_close(swapped, together[[2, 0]])
    assert whole.shape == x.shape


def test_pieces_give_the_offline_gradient():
    layer = WindowAttention(SMALL)
    x = torch.randn(2, 14, 12)
    whole = torch.autograd.grad(layer(x).square().sum(), [*layer.parameters()])
    state, total = layer.init_state(2), torch.zeros(())
    for piece in x.split([3, 1, 7, 3], dim=1):
        y, state = layer.step(piece, state)
        total = total + y.square().sum()
    pieces = torch.autograd.grad(total, [*layer.parameters()])
    for a, b in zip(whole, pieces, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"window": 0}, "window must be 1 or more, not 0"),
        ({"num_heads": 3}, "3 heads can't share 2 of keys and values evenly"),
        ({"head_dim": 5}, "head_dim must be even to rotate, 2 or more, not 5"),
    ],
)
def test_a_wrong_config_is_refused(change, message):
    sizes = {"d_model": 12, "num_heads": 4, "num_kv_heads": 2} | change
    with pytest.raises(ConfigError, match=message):
        AttentionConfig(**sizes)


def test_a_wrong_input_is_refused(layer):
    with pytest.raises(ShapeError, match=r"must be \(batch, frames >= 1, 12\), not \(2, 0, 12\)"):
        layer.step(torch.zeros(2, 0, 12), layer.init_state(2))
    with pytest.raises(ShapeError, match="batch 2, but the state 3"):
        layer.step(torch.zeros(2, 1, 12), layer.init_state(3))


def test_what_knows_no_attention_says_which_layers_are_that():
    mamba = Block(Mamba3Config(d_model=12, d_state=8, head_dim=12), 8)
    assert mamba_blocks([mamba, mamba], "loops") == [mamba, mamba]
    with pytest.raises(ModelError, match=r"loops take no attention, but layers \[1\] of this"):
        mamba_blocks([mamba, AttentionBlock(SMALL, 8)], "loops")
