"""The step: one frame of the scan, and of the paper's equations."""

import cmath
import math

import pytest
import torch

from audiossm_kernels import KernelError, SsmInputs, SsmState, ssm_scan, ssm_step, ssm_step_
from audiossm_kernels.ssm_scan.cases import ScanShape, make_inputs

SHAPES = [
    ScanShape(frames=40),
    ScanShape(frames=40, groups=2, rope_fraction=1.0, out_norm=True, angle_heads=4),
    ScanShape(frames=40, rank=4, groups=2, out_norm=True),
]


@pytest.mark.parametrize("impl", ["compact", "reference"])
@pytest.mark.parametrize("shape", SHAPES)
def test_stepping_equals_the_scan(shape, impl):
    inputs = make_inputs(shape, torch.float64)
    expected_y, expected = ssm_scan(*inputs, pairing=shape.pairing, impl="chunked")
    state = inputs.state
    for frame in range(shape.frames):
        parts = SsmInputs(*(x[:, frame] for x in inputs[:8]))
        y, state = ssm_step(*parts, inputs.params, state, pairing=shape.pairing, impl=impl)
        torch.testing.assert_close(y, expected_y[:, frame], rtol=1e-10, atol=1e-10)
    for a, b in zip(state, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_a_step_is_the_three_term_recurrence_with_a_complex_state():
    """One head, one channel, one pair: the state is a complex number that turns and decays."""
    shape = ScanShape(frames=8, batch=1, heads=1, head_dim=1, d_state=2, rope_fraction=1.0)
    inputs = make_inputs(shape, torch.float64)
    params = inputs.params._replace(d_skip=torch.zeros(1, dtype=torch.float64))
    state = type(inputs.state)(*(torch.zeros_like(part) for part in inputs.state))
    h = previous = 0j
    for frame in range(8):
        x = SsmInputs(*(part[:, frame] for part in inputs[:8]))
        y, state = ssm_step(*x, params, state, pairing="adjacent")
        dt, lam = x.dt.item(), 1 / (1 + math.exp(-x.trap.item()))
        alpha = math.exp(x.adt.item())
        turn = cmath.exp(1j * math.pi * math.tanh(x.angles.item()) * dt)
        key = complex(*(x.k + params.k_bias).flatten().tolist())
        query = complex(*(x.q + params.q_bias).flatten().tolist())
        # in the frame that turns with the state, the past turns back instead
        now = key * x.v.item()
        h = alpha * h * turn.conjugate() + lam * dt * now
        h += (1 - lam) * dt * alpha * previous * turn.conjugate()
        previous = now
        gate = torch.nn.functional.silu(x.z).item()
        assert y.item() == pytest.approx((query.conjugate() * h).real * gate, rel=1e-9)


def test_the_state_given_is_left_alone():
    shape = ScanShape(frames=1, rank=2)
    inputs = make_inputs(shape)
    before = [part.clone() for part in inputs.state]
    parts = SsmInputs(*(x[:, 0] for x in inputs[:8]))
    _, state = ssm_step(*parts, inputs.params, inputs.state, pairing="halved")
    kept = [part.clone() for part in state]
    for x in inputs[:8]:
        x.zero_()
    for a, b in zip([*before, *kept], [*inputs.state, *state], strict=True):
        assert torch.equal(a, b)


def test_rows_find_their_slots_by_number():
    shape = ScanShape(frames=1, batch=3, rank=2)
    inputs = make_inputs(shape, torch.float64)
    x, params = SsmInputs(*(part[:, 0] for part in inputs[:8])), inputs.params
    expected_y, expected = ssm_step(*x, params, inputs.state, pairing="halved")
    many = SsmState(*(part.new_full((6, *part.shape[1:]), 0.5) for part in inputs.state))
    for part, old in zip(many, inputs.state, strict=True):
        part[[3, 0, 4]] = old
    before = [part.clone() for part in many]
    slots, live = torch.tensor([3, -1, 4]), torch.tensor([True, True, False])
    y = ssm_step_(*x, params, many, pairing="halved", slots=slots, live=live)
    torch.testing.assert_close(y[0], expected_y[0])
    assert not y[1:].any()
    for part, old, new in zip(many, before, expected, strict=True):
        torch.testing.assert_close(part[3], new[0])
        assert torch.equal(part[[0, 1, 2, 4, 5]], old[[0, 1, 2, 4, 5]])
    with pytest.raises(KernelError, match=r"slots must be \(3,\) of torch.int64, not \(2,\)"):
        ssm_step_(*x, params, many, pairing="halved", slots=slots[:2])


def test_wrong_inputs_are_refused_with_the_numbers():
    inputs = make_inputs(ScanShape(frames=1))
    parts = SsmInputs(*(x[:, 0] for x in inputs[:8]))
    with pytest.raises(KernelError, match=r"z has shape \(2, 4, 7\), not \(2, 4, 8\)"):
        wrong = parts._replace(z=parts.z[..., :7])
        ssm_step(*wrong, inputs.params, inputs.state, pairing="adjacent")
    with pytest.raises(KernelError, match="'triton', 'compact' or 'reference', not 'cuda'"):
        ssm_step(*parts, inputs.params, inputs.state, pairing="adjacent", impl="cuda")
    with pytest.raises(KernelError, match="q must have 4 dimensions and v 3, not 5 and 4"):
        ssm_step(*inputs, pairing="adjacent")
