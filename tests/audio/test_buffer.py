"""The frame buffer passes on whole frames and keeps the rest."""

import pytest
import torch

from audiossm.audio import FrameBuffer
from audiossm.errors import ShapeError
from contract import assert_streaming_equals_offline


def count_up(batch: int, samples: int) -> torch.Tensor:
    return torch.arange(1.0, batch * samples + 1).view(batch, samples)


@pytest.mark.parametrize("frame_size", [1, 7, 320])
def test_any_chunking_gives_the_offline_result(frame_size):
    assert_streaming_equals_offline(FrameBuffer(frame_size), count_up(2, 1000))


def test_whole_frames_come_and_the_rest_waits():
    buffer = FrameBuffer(4)
    x = count_up(2, 10)
    y, state = buffer.step(x, buffer.init_state(2))
    assert torch.equal(y, x[:, :8])
    assert state.length.tolist() == [2, 2]
    padded = torch.tensor([[9.0, 10, 0, 0], [19, 20, 0, 0]])
    assert torch.equal(state.rest, padded)
    assert torch.equal(buffer.finish(state), padded)
    y, state = buffer.step(count_up(2, 3), state)
    assert torch.equal(y, torch.tensor([[9.0, 10, 1, 2], [19, 20, 4, 5]]))
    assert state.rest[:, 0].tolist() == [3, 6]


def test_nothing_waits_after_a_whole_frame():
    buffer = FrameBuffer(5)
    y, state = buffer.step(count_up(1, 10), buffer.init_state(1))
    assert y.shape == (1, 10)
    assert buffer.finish(state).shape == (1, 0)
    assert not state.rest.any()


def test_wrong_use_is_refused():
    with pytest.raises(ShapeError, match="frame_size is 0"):
        FrameBuffer(0)
    buffer = FrameBuffer(4)
    state = buffer.init_state(2)
    with pytest.raises(ShapeError, match=r"expected \(2, samples\)"):
        buffer.step(count_up(1, 3), state)
    uneven = state._replace(length=torch.tensor([0, 1]))
    with pytest.raises(ShapeError, match="0 to 1 samples"):
        buffer.step(count_up(2, 3), uneven)
