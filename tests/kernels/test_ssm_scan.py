"""The scan: its two forms agree, and a signal may be cut, packed and padded anywhere."""

import dataclasses

import pytest
import torch
from torch import Tensor

from audiossm_kernels import KernelError, SsmInputs, SsmParams, SsmState, ssm_scan
from audiossm_kernels.ssm_scan import chunked
from audiossm_kernels.ssm_scan.cases import ScanInputs, ScanShape, make_inputs

SHAPES = {
    "siso": ScanShape(frames=65),
    "siso, groups, full rotation, norm": ScanShape(
        frames=65, groups=2, rope_fraction=1.0, out_norm=True, angle_heads=4
    ),
    "mimo": ScanShape(frames=65, rank=4),
    "mimo, groups, full rotation, norm": ScanShape(
        frames=65, rank=3, groups=2, rope_fraction=1.0, out_norm=True, angle_heads=4
    ),
}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}

each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


def circle(angle: Tensor, expected: Tensor) -> Tensor:
    """Move ``angle`` by full turns to where it is next to ``expected``."""
    return angle - (angle - expected).div(2 * torch.pi).round() * 2 * torch.pi


def assert_same(
    got: tuple[Tensor, SsmState], expected: tuple[Tensor, SsmState], tolerance: float
) -> None:
    (y, state), (expected_y, expected_state) = got, expected
    state = state._replace(angle=circle(state.angle, expected_state.angle))
    pairs = [("y", y, expected_y)]
    pairs += [(name, getattr(state, name), getattr(expected_state, name)) for name in state._fields]
    for name, a, b in pairs:
        error = (a - b).abs().max() / b.abs().max()
        assert error <= tolerance, f"{name}: {error:.1e}"


def cut(inputs: ScanInputs, start: int, stop: int) -> SsmInputs:
    return SsmInputs(*(x[:, start:stop] for x in inputs[:8]))


def leaves(inputs: ScanInputs) -> list[Tensor]:
    """Every tensor of a case, made to collect gradients."""
    parts = [*inputs[:8], *inputs.params, *inputs.state]
    return [x.requires_grad_() for x in parts if x is not None]


def gradients(inputs: ScanInputs, impl: str, shape: ScanShape) -> list[Tensor]:
    tensors = leaves(inputs)
    y, state = ssm_scan(*inputs, pairing=shape.pairing, impl=impl)
    generator = torch.Generator().manual_seed(1)
    loss = sum(
        (x * torch.randn(x.shape, generator=generator, dtype=x.dtype)).sum() for x in (y, *state)
    )
    return list(torch.autograd.grad(loss, tensors))


@each_shape
@pytest.mark.parametrize("frames", [1, 5, 63, 64, 65, 150])
def test_chunked_equals_reference_in_float64(shape, frames):
    shape = dataclasses.replace(shape, frames=frames)
    inputs = make_inputs(shape, torch.float64)
    assert_same(
        ssm_scan(*inputs, pairing=shape.pairing, impl="chunked"),
        ssm_scan(*inputs, pairing=shape.pairing, impl="reference"),
        TOLERANCE[torch.float64],
    )


@each_shape
def test_chunked_equals_reference_in_float32(shape):
    inputs = make_inputs(shape)
    assert_same(
        ssm_scan(*inputs, pairing=shape.pairing, impl="chunked"),
        ssm_scan(*inputs, pairing=shape.pairing, impl="reference"),
        TOLERANCE[torch.float32],
    )


@each_shape
@pytest.mark.parametrize("chunk_size", [1, 3, 16, 1000])
def test_the_chunk_size_changes_nothing(shape, chunk_size):
    inputs = make_inputs(shape, torch.float64)
    assert_same(
        ssm_scan(*inputs, pairing=shape.pairing, chunk_size=chunk_size),
        ssm_scan(*inputs, pairing=shape.pairing, impl="reference"),
        TOLERANCE[torch.float64],
    )


@each_shape
def test_blocks_of_chunks_hand_the_state_on(shape, monkeypatch):
    monkeypatch.setattr(chunked, "MAX_CHUNKS", 3)
    inputs = make_inputs(shape, torch.float64)
    assert_same(
        ssm_scan(*inputs, pairing=shape.pairing, chunk_size=4),
        ssm_scan(*inputs, pairing=shape.pairing, impl="reference"),
        TOLERANCE[torch.float64],
    )


@each_shape
def test_gradients_of_chunked_equal_those_of_reference(shape):
    shape = dataclasses.replace(shape, frames=37)
    inputs = make_inputs(shape, torch.float64)
    pairs = zip(
        gradients(inputs, "chunked", shape), gradients(inputs, "reference", shape), strict=True
    )
    for index, (a, b) in enumerate(pairs):
        error = (a - b).abs().max() / b.abs().max()
        assert error <= TOLERANCE[torch.float64], f"tensor {index}: {error:.1e}"


@pytest.mark.parametrize("rank", [1, 2])
def test_gradients_equal_finite_differences(rank):
    shape = ScanShape(frames=5, batch=1, heads=2, head_dim=2, d_state=4, rank=rank, out_norm=True)
    inputs = make_inputs(shape, torch.float64)
    present = [part is not None for part in inputs.params]

    def scan(*parts: Tensor) -> tuple[Tensor, ...]:
        rest = iter(parts[8:])
        params = SsmParams(*(next(rest) if there else None for there in present))
        y, state = ssm_scan(
            *parts[:8], params, SsmState(*rest), pairing=shape.pairing, chunk_size=2
        )
        return y, state.ssm, state.k, state.v, state.angle.sin()

    assert torch.autograd.gradcheck(scan, leaves(inputs), fast_mode=True)


@pytest.mark.parametrize("rank", [1, 4])
def test_gradients_stay_finite_when_the_decay_is_brutal(rank):
    shape = ScanShape(frames=70, rank=rank)
    inputs = make_inputs(shape)
    inputs = inputs._replace(adt=inputs.adt * 1e4)
    for gradient in gradients(inputs, "chunked", shape):
        assert gradient.isfinite().all()


def test_strong_decays_do_not_blur_the_weak_ones_after_them():
    inputs = make_inputs(ScanShape(frames=64))
    adt = inputs.adt.clone()
    adt[:, 20:30] = -3000.0
    adt[:, 30:] *= 0.01
    inputs = inputs._replace(adt=adt)
    assert_same(
        ssm_scan(*inputs, pairing="adjacent", impl="chunked"),
        ssm_scan(*inputs, pairing="adjacent", impl="reference"),
        TOLERANCE[torch.float32],
    )


@each_shape
@pytest.mark.parametrize("impl", ["chunked", "reference"])
def test_two_calls_equal_one_wherever_the_cut_is(shape, impl):
    shape = dataclasses.replace(shape, frames=21)
    inputs = make_inputs(shape, torch.float64)
    whole = ssm_scan(*inputs, pairing=shape.pairing, chunk_size=8, impl=impl)
    for at in range(1, 21):
        first, state = ssm_scan(
            *cut(inputs, 0, at), *inputs[8:], pairing=shape.pairing, chunk_size=8, impl=impl
        )
        second, state = ssm_scan(
            *cut(inputs, at, 21),
            inputs.params,
            state,
            pairing=shape.pairing,
            chunk_size=8,
            impl=impl,
        )
        assert_same((torch.cat([first, second], dim=1), state), whole, TOLERANCE[torch.float64])


@each_shape
@pytest.mark.parametrize("impl", ["chunked", "reference"])
def test_packed_sequences_equal_separate_ones(shape, impl):
    lengths = [7, 1, 0, 17, 8, 0]
    shape = dataclasses.replace(
        shape, frames=sum(lengths), batch=1, state_batch=len(lengths), angle_heads=1
    )
    inputs = make_inputs(shape, torch.float64)
    borders = torch.tensor([0, *lengths]).cumsum(0)
    y, state = ssm_scan(*inputs, pairing=shape.pairing, cu_seqlens=borders, chunk_size=8, impl=impl)
    for row, (start, stop) in enumerate(zip(borders, borders[1:], strict=False)):
        before = SsmState(*(part[row : row + 1] for part in inputs.state))
        after = SsmState(*(part[row : row + 1] for part in state))
        if start == stop:
            for a, b in zip(after, before, strict=True):
                assert torch.equal(a, b)
            continue
        expected = ssm_scan(
            *cut(inputs, start, stop), inputs.params, before, pairing=shape.pairing, impl=impl
        )
        assert_same((y[:, start:stop], after), expected, TOLERANCE[torch.float64])


def test_packed_sequences_may_all_be_empty():
    shape = ScanShape(frames=0, batch=1, state_batch=2)
    inputs = make_inputs(shape)
    y, state = ssm_scan(*inputs, pairing="adjacent", cu_seqlens=torch.zeros(3, dtype=torch.int32))
    assert y.shape == (1, 0, 4, 8)
    for a, b in zip(state, inputs.state, strict=True):
        assert torch.equal(a, b)


@each_shape
def test_gradients_of_packed_sequences_equal_those_of_separate_ones(shape):
    shape = dataclasses.replace(shape, frames=12, batch=1, state_batch=2, angle_heads=1)
    inputs = make_inputs(shape, torch.float64)
    leaves(inputs)
    y, state = ssm_scan(*inputs, pairing=shape.pairing, cu_seqlens=torch.tensor([0, 5, 12]))
    packed = torch.autograd.grad(y.square().sum() + state.ssm.sum(), inputs[:8])
    loss = torch.zeros((), dtype=torch.float64)
    for row, (start, stop) in enumerate([(0, 5), (5, 12)]):
        before = SsmState(*(part[row : row + 1] for part in inputs.state))
        y, state = ssm_scan(*cut(inputs, start, stop), inputs.params, before, pairing=shape.pairing)
        loss = loss + y.square().sum() + state.ssm.sum()
    for a, b in zip(packed, torch.autograd.grad(loss, inputs[:8]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@each_shape
def test_frames_without_dt_after_a_rows_end_change_nothing(shape):
    inputs = make_inputs(shape, torch.float64)
    dt, adt = inputs.dt.clone(), inputs.adt.clone()
    dt[0, 40:], adt[0, 40:] = 0.0, 0.0
    y, state = ssm_scan(*inputs._replace(dt=dt, adt=adt), pairing=shape.pairing)
    expected_y, expected = ssm_scan(*cut(inputs, 0, 40), *inputs[8:], pairing=shape.pairing)
    torch.testing.assert_close(y[0, :40], expected_y[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state.ssm[0], expected.ssm[0], rtol=1e-10, atol=1e-10)
    angle = circle(state.angle[0], expected.angle[0])
    torch.testing.assert_close(angle, expected.angle[0], rtol=0, atol=1e-10)
    assert torch.equal(state.v[0], inputs.v[0, -1])  # of the last frame, padded or not


@each_shape
@pytest.mark.parametrize("impl", ["chunked", "reference"])
def test_the_future_does_not_change_the_past(shape, impl):
    inputs = make_inputs(shape, torch.float64)
    other = make_inputs(shape, torch.float64, seed=9)
    changed = SsmInputs(
        *(torch.cat([a[:, :30], b[:, 30:]], 1) for a, b in zip(inputs[:8], other[:8], strict=True))
    )
    y, _ = ssm_scan(*inputs, pairing=shape.pairing, impl=impl)
    y_changed, _ = ssm_scan(*changed, *inputs[8:], pairing=shape.pairing, impl=impl)
    torch.testing.assert_close(y[:, :30], y_changed[:, :30], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(y[:, 30:], y_changed[:, 30:])


@each_shape
def test_rows_of_a_batch_are_independent(shape):
    inputs = make_inputs(shape, torch.float64)
    y, state = ssm_scan(*inputs, pairing=shape.pairing)
    for row in range(2):
        frames = (x[row : row + 1] for x in inputs[:8])
        before = SsmState(*(part[row : row + 1] for part in inputs.state))
        alone = ssm_scan(*frames, inputs.params, before, pairing=shape.pairing)
        after = SsmState(*(part[row : row + 1] for part in state))
        assert_same((y[row : row + 1], after), alone, 1e-12)


@each_shape
@pytest.mark.parametrize("impl", ["chunked", "reference"])
def test_the_state_given_is_left_alone_and_the_one_returned_owns_its_memory(shape, impl):
    inputs = make_inputs(shape)
    before = [part.clone() for part in inputs.state]
    _, state = ssm_scan(*inputs, pairing=shape.pairing, impl=impl)
    kept = [part.clone() for part in state]
    for x in inputs[:8]:
        x.zero_()
    for a, b in zip([*before, *kept], [*inputs.state, *state], strict=True):
        assert torch.equal(a, b)
    for part in state:
        assert part.is_contiguous()
        assert part.untyped_storage().nbytes() == part.numel() * part.element_size()


@each_shape
def test_half_precision_inputs_are_summed_in_float32(shape):
    inputs = make_inputs(shape, torch.bfloat16)
    wide = ScanInputs(*(x.float() for x in inputs[:8]), *inputs[8:])
    y, state = ssm_scan(*inputs, pairing=shape.pairing)
    with torch.autocast("cpu", torch.bfloat16):
        expected_y, expected = ssm_scan(*wide, pairing=shape.pairing)
    assert y.dtype == torch.bfloat16
    assert expected_y.dtype == torch.float32
    assert torch.equal(y, expected_y.bfloat16())
    for a, b in zip(state, expected, strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)


def test_angles_stay_exact_over_a_long_signal():
    shape = ScanShape(frames=20000, batch=1, heads=1, head_dim=2, d_state=4)
    inputs = make_inputs(shape)
    inputs = inputs._replace(angles=inputs.angles.abs())  # thousands of turns one way
    wide = ScanInputs(
        *(x.double() for x in inputs[:8]),
        SsmParams(*(x if x is None else x.double() for x in inputs.params)),
        SsmState(*(x.double() for x in inputs.state)),
    )
    _, state = ssm_scan(*inputs, pairing="adjacent")
    _, expected = ssm_scan(*wide, pairing="adjacent")
    assert 0 <= state.angle.min() and state.angle.max() < 2 * torch.pi
    angle = circle(state.angle.double(), expected.angle)
    torch.testing.assert_close(angle, expected.angle, rtol=0, atol=1e-5)


def test_wrong_inputs_are_refused_with_the_numbers():
    inputs = make_inputs(ScanShape(frames=6))
    packed = make_inputs(ScanShape(frames=6, batch=1))
    with pytest.raises(KernelError, match=r"dt has shape \(2, 5, 4\), not \(2, 6, 4\)"):
        ssm_scan(*inputs._replace(dt=inputs.dt[:, :5]), pairing="adjacent")
    with pytest.raises(KernelError, match=r"state.v has shape \(1, 4, 8\), not \(2, 4, 8\)"):
        state = inputs.state._replace(v=inputs.state.v[:1])
        ssm_scan(*inputs._replace(state=state), pairing="adjacent")
    with pytest.raises(KernelError, match="1 frame or more"):
        ssm_scan(*cut(inputs, 0, 0), *inputs[8:], pairing="adjacent")
    with pytest.raises(KernelError, match="'auto', 'triton', 'chunked' or 'reference', not 'cuda'"):
        ssm_scan(*inputs, pairing="adjacent", impl="cuda")
    with pytest.raises(KernelError, match="chunk_size must be 1 or more, not 0"):
        ssm_scan(*inputs, pairing="adjacent", chunk_size=0)
    with pytest.raises(KernelError, match="'adjacent' or 'halved', not 'both'"):
        ssm_scan(*inputs, pairing="both")
    with pytest.raises(KernelError, match="the batch is 2"):
        ssm_scan(*inputs, pairing="adjacent", cu_seqlens=torch.tensor([0, 6]))
    with pytest.raises(KernelError, match=r"from 0 to 6 frames, not 0\.\.5"):
        ssm_scan(*packed, pairing="adjacent", cu_seqlens=torch.tensor([0, 5]))
    with pytest.raises(KernelError, match="smallest length of -1"):
        ssm_scan(*packed, pairing="adjacent", cu_seqlens=torch.tensor([0, 4, 3, 6]))
    with pytest.raises(KernelError, match="mimo_x, mimo_z and mimo_o together"):
        mimo = make_inputs(ScanShape(frames=6, rank=2))
        params = mimo.params._replace(mimo_z=None)
        ssm_scan(*mimo._replace(params=params), pairing="halved")
    with pytest.raises(KernelError, match="3 angles can't rotate adjacent pairs of 5 dimensions"):
        odd = inputs._replace(q=inputs.q[..., :5], angles=inputs.angles[..., :3])
        ssm_scan(*odd, pairing="adjacent")
