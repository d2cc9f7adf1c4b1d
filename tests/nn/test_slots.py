"""Slots: a step in place is the step, each slot for itself."""

import pytest
import torch

from audiossm.errors import ConfigError, ShapeError
from audiossm.nn import Block, BlockSlots, Mamba3Config, RMSNorm
from audiossm.nn.slots import mix

D_MODEL = 32


def make_blocks(
    *, is_mimo: bool, trapezoid: bool = True, resonators: float = 0.0
) -> tuple[list[Block], RMSNorm]:
    torch.manual_seed(0)
    mixer = Mamba3Config(
        d_model=D_MODEL,
        d_state=16,
        head_dim=16,
        is_mimo=is_mimo,
        mimo_rank=2,
        max_memory=50.0,
        trapezoid=trapezoid,
        turns=trapezoid,
        resonators=resonators,
    )
    return [Block(mixer, 48).eval() for _ in range(2)], RMSNorm(D_MODEL)


@torch.no_grad()
def run_alone(blocks: list[Block], norm: RMSNorm, frames: torch.Tensor) -> list[torch.Tensor]:
    """Step one stream (frames, d_model) through the blocks as they are."""
    states, outputs = [block.init_state(1) for block in blocks], []
    for frame in frames:
        x = frame.view(1, 1, -1)
        for i, block in enumerate(blocks):
            x, states[i] = block.step(x, states[i])
        outputs.append(norm(x)[0, 0])
    return outputs


@pytest.mark.parametrize("trapezoid", [True, False])
@pytest.mark.parametrize("resonators", [0.0, 0.5])
@pytest.mark.parametrize("is_mimo", [False, True])
def test_slots_advance_like_streams_of_their_own(is_mimo, resonators, trapezoid):
    blocks, norm = make_blocks(is_mimo=is_mimo, trapezoid=trapezoid, resonators=resonators)
    slots = BlockSlots(blocks, norm, num_slots=3)
    frames = torch.randn(3, 6, D_MODEL)
    expected = [run_alone(blocks, norm, row) for row in frames]
    at = [0, 0, 0]
    for step in range(8):
        live = torch.tensor([step < 6, step % 2 == 0, step > 2])
        x = torch.stack([frames[i, min(at[i], 5)] for i in range(3)])
        y = slots.step(x, live)
        for i in range(3):
            if live[i]:
                torch.testing.assert_close(y[i], expected[i][at[i]], rtol=1e-4, atol=1e-5)
                at[i] += 1
    assert at == [6, 4, 5]


@pytest.mark.parametrize("is_mimo", [False, True])
def test_rows_prepared_once_for_all_heads_are_the_same(is_mimo, monkeypatch):
    blocks, norm = make_blocks(is_mimo=is_mimo)
    raw, prepared = (BlockSlots(blocks, norm, num_slots=3) for _ in range(2))
    for frame in torch.randn(5, 3, D_MODEL):
        expected = raw.step(frame)
        with monkeypatch.context() as context:
            context.setattr("audiossm.nn.slots.prepares", lambda *_: True)
            y = prepared.step(frame)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


def test_a_slot_begins_anew():
    blocks, norm = make_blocks(is_mimo=False)
    slots, x = BlockSlots(blocks, norm, num_slots=2), torch.randn(2, D_MODEL)
    first = slots.step(x).clone()
    second = slots.step(x).clone()
    slots.reset(1)
    third = slots.step(x)
    torch.testing.assert_close(third[1], first[1])
    assert not torch.allclose(second, first)
    assert not torch.allclose(third[0], first[0])


def test_rows_of_any_slots_are_turned_by_the_bank():
    blocks, _ = make_blocks(is_mimo=False, resonators=0.5)
    mixer = blocks[0].mixer
    state, frames = mixer.init_state(3), torch.randn(2, D_MODEL)
    with torch.no_grad():
        y = mix(mixer, frames, state, slots=torch.tensor([2, -1]))
        expected, after = mixer.step(frames[:1].unsqueeze(1), mixer.init_state(1))
    torch.testing.assert_close(y[0], expected[0, 0])
    torch.testing.assert_close(state.angle[2], after.angle[0])
    assert state.angle[:2].abs().max() == 0


def test_a_bucket_covers_the_slots_asked_for():
    blocks, norm = make_blocks(is_mimo=False)
    slots = BlockSlots(blocks, norm, num_slots=6)
    assert [slots.bucket(n) for n in range(1, 7)] == [1, 2, 4, 4, 6, 6]
    assert slots.step(torch.randn(3, D_MODEL)).shape == (3, D_MODEL)


def test_states_of_half_the_memory():
    blocks, norm = make_blocks(is_mimo=False)
    wide = BlockSlots(blocks, norm, num_slots=1)
    narrow = BlockSlots(blocks, norm, num_slots=1, state_dtype=torch.bfloat16)
    assert narrow.state[0].ssm.dtype == torch.bfloat16
    assert narrow.state[0].angle.dtype == torch.float32
    x = torch.randn(1, D_MODEL)
    torch.testing.assert_close(narrow.step(x), wide.step(x), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("shape", [(0, D_MODEL), (4, D_MODEL), (2, D_MODEL + 1), (D_MODEL,)])
def test_other_frames_are_refused(shape):
    blocks, norm = make_blocks(is_mimo=False)
    slots = BlockSlots(blocks, norm, num_slots=3)
    with pytest.raises(ShapeError, match=r"a step takes \(1 to 3, 32\), got"):
        slots.step(torch.zeros(shape))


def test_what_makes_no_slots_is_refused():
    blocks, norm = make_blocks(is_mimo=False)
    with pytest.raises(ConfigError, match="0 slots of 2 layers: must be 1 or more"):
        BlockSlots(blocks, norm, num_slots=0)
    with pytest.raises(ConfigError, match=r"call eval\(\) first"):
        BlockSlots([blocks[0].train()], norm, num_slots=1)
    with pytest.raises(ShapeError, match=r"live must be \(1,\) bool"):
        BlockSlots([blocks[1]], norm, num_slots=1).step(
            torch.zeros(1, D_MODEL), torch.ones(2, dtype=torch.bool)
        )
