"""Streams in one batch get what they would get alone, each at its own pace."""

import pytest
import torch
from torch.testing import assert_close

from audiossm.errors import ShapeError
from audiossm.nn import named_tensors
from audiossm.streaming import step_rows
from tiny_model import make_transcriber

NETWORK = make_transcriber().network
FRAME = NETWORK.config.frame_size


def test_rows_of_different_length_equal_streams_alone():
    rows = [0.1 * torch.randn(frames * FRAME) for frames in (3, 0, 7, 1, 7)]
    # no two rows are at the same place of their streams, or look as far ahead
    states = [NETWORK.init_state(1, right) for right in (0, 4, 8, 4, 0)]
    with torch.inference_mode():
        for index in range(1, 5):
            _, states[index] = NETWORK.step(0.1 * torch.randn(1, index * FRAME), states[index])
        outputs, new_states = step_rows(NETWORK, rows, states)
        for row, state, y, new_state in zip(rows, states, outputs, new_states, strict=True):
            expected, expected_state = torch.zeros(1, 0, y.shape[1]), state
            if len(row):
                letters, phones, expected_state = NETWORK.hear(row.unsqueeze(0), state)
                expected = torch.cat([letters, phones], dim=-1)
            assert_close(y, expected[0], rtol=1e-4, atol=1e-5)
            for (name, a), (_, b) in zip(
                named_tensors(new_state), named_tensors(expected_state), strict=True
            ):
                assert_close(a, b, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: name + text)


def test_a_step_leaves_the_states_as_they_were():
    states = [NETWORK.init_state(1), NETWORK.init_state(1)]
    before = [[tensor.clone() for _, tensor in named_tensors(state)] for state in states]
    _, new_states = step_rows(NETWORK, [torch.randn(FRAME), torch.randn(2 * FRAME)], states)
    for kept, state in zip(before, states, strict=True):
        for a, (_, b) in zip(kept, named_tensors(state), strict=True):
            assert torch.equal(a, b)
    # nor does one row's new state keep the memory of the others
    for _, tensor in named_tensors(new_states[0]):
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match="1 rows and 0 states"):
        step_rows(NETWORK, [torch.zeros(FRAME)], [])
    with pytest.raises(ShapeError, match=f"a multiple of {FRAME}"):
        step_rows(NETWORK, [torch.zeros(FRAME + 1)], [NETWORK.init_state(1)])
