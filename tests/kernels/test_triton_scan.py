"""The scan's Triton kernels against float64: on a card, else in Triton's interpreter.

Without a card test_interpreter.py runs the whole file again.
"""

import dataclasses
import importlib
import os

import pytest
import torch
from torch import Tensor

from audiossm_kernels import KernelError, SsmInputs, SsmState, ssm_scan
from audiossm_kernels.readout import project_ranks
from audiossm_kernels.ssm_scan.cases import ScanInputs, ScanShape, make_inputs
from audiossm_kernels.ssm_scan.layout import ScanLayout, chunk_frames
from audiossm_kernels.ssm_step import ssm_step

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"

with_triton = pytest.mark.skipif(
    not INTERPRETED and DEVICE == "cpu", reason="runs in the interpreter's process"
)

SISO = ScanShape(frames=37, batch=1, heads=2, head_dim=16, d_state=32)
MIMO = ScanShape(frames=19, batch=1, heads=2, head_dim=16, d_state=16, rank=2)
SHAPES = {
    "siso": dataclasses.replace(SISO, frames=70),
    "siso, groups, all turn, norm, odd head": ScanShape(
        frames=21,
        head_dim=20,
        d_state=24,
        groups=2,
        rope_fraction=1.0,
        out_norm=True,
        angle_heads=4,
    ),
    "siso, odd state": dataclasses.replace(SISO, frames=33, d_state=23),
    "siso, several segments and tiles": ScanShape(
        frames=70, batch=1, heads=1, head_dim=80, d_state=128
    ),
    "siso, largest state": ScanShape(frames=5, batch=1, heads=1, head_dim=32, d_state=256),
    "siso, one frame": dataclasses.replace(SISO, frames=1),
    "rank 2, groups": dataclasses.replace(MIMO, batch=1, groups=2, head_dim=48, d_state=64),
    "rank 4, groups, all turn, norm": dataclasses.replace(
        MIMO, rank=4, groups=2, rope_fraction=1.0, out_norm=True, angle_heads=2
    ),
    "rank 8": dataclasses.replace(MIMO, rank=8, head_dim=32, d_state=24),
}
# relative L2 error: of the output, of the state
TOLERANCE = {
    torch.float32: (1e-4, 1e-4),
    torch.bfloat16: (1e-2, 5e-3),
    torch.float16: (1e-2, 5e-3),
}

each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
each_variant = pytest.mark.parametrize("shape", [SISO, MIMO], ids=["siso", "mimo"])


def in_float64(inputs: ScanInputs) -> ScanInputs:
    def wide(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.double()

    tensors = (wide(x) for x in inputs[:8])
    params = inputs.params._make(wide(x) for x in inputs.params)
    return ScanInputs(*tensors, params, SsmState._make(wide(x) for x in inputs.state))


def reference(inputs: ScanInputs, shape: ScanShape) -> tuple[Tensor, SsmState]:
    return ssm_scan(*in_float64(inputs), pairing=shape.pairing, impl="reference")


def cut(inputs: ScanInputs, start: int, stop: int) -> list[Tensor]:
    return [x[:, start:stop] for x in inputs[:8]]


def error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected).norm() / expected.norm())


def assert_close(y: Tensor, state: SsmState, expected_y: Tensor, expected: SsmState) -> None:
    turns = (state.angle.double() - expected.angle) / (2 * torch.pi)
    assert (turns - turns.round()).abs().max() <= 1e-5
    assert (state.angle >= 0).all() and (state.angle < 2 * torch.pi).all()
    tolerance, state_tolerance = TOLERANCE[y.dtype]
    assert error(y, expected_y) <= tolerance
    for name in ("ssm", "k", "v"):
        part = getattr(state, name)
        assert part.dtype == torch.float32
        assert error(part, getattr(expected, name)) <= state_tolerance, name


@with_triton
@each_shape
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_scan_is_that_of_the_reference(shape, dtype):
    inputs = make_inputs(shape, dtype, DEVICE)
    y, state = ssm_scan(*inputs, pairing=shape.pairing, impl="triton")
    assert y.dtype == dtype
    assert_close(y, state, *reference(inputs, shape))


@with_triton
def test_float16_inputs_and_bfloat16_scalars():
    inputs = make_inputs(SISO, torch.float16, DEVICE)
    inputs = inputs._replace(dt=inputs.dt.bfloat16(), trap=inputs.trap.bfloat16())
    y, state = ssm_scan(*inputs, pairing="adjacent", impl="triton")
    assert_close(y, state, *reference(inputs, SISO))


@with_triton
@pytest.mark.parametrize("long", [False, True], ids=["short", "long"])
@each_variant
def test_segments_change_no_more_than_the_rounding(shape, long, monkeypatch):
    from audiossm_kernels.ssm_scan.triton_forward import LONG, ScanConfig, launch_forward

    shape = dataclasses.replace(shape, batch=2)
    if long:  # its segments are summed in parts, a chunk is left over, and heads share loads
        frames = LONG * (16 // shape.rank) + 3
        shape = dataclasses.replace(shape, batch=1, frames=frames)
        marks = importlib.import_module("audiossm_kernels.ssm_scan.triton_marks")
        monkeypatch.setattr(marks, "FEW", 0)
    inputs = make_inputs(shape, device=DEVICE)
    y, state, kept = launch_forward(
        SsmInputs(*inputs[:8]),
        inputs.params,
        inputs.state,
        shape.pairing,
        config=ScanConfig(16, 4, segment=1),
    )
    assert kept is None
    assert_close(y, state, *reference(inputs, shape))


@with_triton
@each_variant
def test_an_angle_may_turn_many_times_and_a_decay_may_forget_all(shape):
    inputs = make_inputs(shape, device=DEVICE)
    adt = inputs.adt.clone()
    adt[:, 8:12] = -3000.0
    adt[:, 12:] *= 0.01
    angle = torch.linspace(-40, 40, inputs.state.angle.numel(), device=DEVICE)
    state = inputs.state._replace(angle=angle.view_as(inputs.state.angle))
    inputs = inputs._replace(dt=inputs.dt + 9, adt=adt, state=state)
    y, state = ssm_scan(*inputs, pairing=shape.pairing, impl="triton")
    assert_close(y, state, *reference(inputs, shape))


@with_triton
@each_variant
def test_two_calls_equal_one(shape):
    inputs = make_inputs(shape, device=DEVICE)
    first, middle = ssm_scan(*cut(inputs, 0, 13), *inputs[8:], pairing=shape.pairing, impl="triton")
    second, state = ssm_scan(
        *cut(inputs, 13, shape.frames), inputs.params, middle, pairing=shape.pairing, impl="triton"
    )
    assert_close(torch.cat([first, second], dim=1), state, *reference(inputs, shape))


@with_triton
@each_variant
def test_a_scan_goes_on_as_steps(shape):
    inputs = make_inputs(shape, device=DEVICE)
    pieces, state = ssm_scan(*cut(inputs, 0, 16), *inputs[8:], pairing=shape.pairing, impl="triton")
    pieces = [pieces]
    for t in range(16, shape.frames):
        frame = [x[:, t] for x in inputs[:8]]
        y, state = ssm_step(*frame, inputs.params, state, pairing=shape.pairing, impl="reference")
        pieces.append(y.unsqueeze(1))
    assert_close(torch.cat(pieces, dim=1), state, *reference(inputs, shape))


@with_triton
@pytest.mark.parametrize("segment", [1, 32])
@each_variant
def test_packed_sequences_equal_separate_ones(shape, segment):
    from audiossm_kernels.ssm_scan.triton_forward import ScanConfig, launch_forward

    lengths = [7, 0, 17, 1, 0]
    shape = dataclasses.replace(shape, frames=sum(lengths), batch=1, state_batch=len(lengths))
    inputs = make_inputs(shape, device=DEVICE)
    borders = torch.tensor([0, *lengths], device=DEVICE).cumsum(0)
    y, state, _ = launch_forward(
        SsmInputs(*inputs[:8]),
        inputs.params,
        inputs.state,
        shape.pairing,
        borders=borders,
        config=ScanConfig(16, 4, segment=segment),
    )
    expected = ssm_scan(
        *in_float64(inputs), pairing=shape.pairing, cu_seqlens=borders, impl="reference"
    )
    empty = [row for row, length in enumerate(lengths) if length == 0]
    for part, old in zip(state, inputs.state, strict=True):
        assert torch.equal(part[empty], old[empty])
    assert_close(y, state, *expected)


@with_triton
@each_variant
def test_packed_sequences_of_no_frame_keep_their_states(shape):
    shape = dataclasses.replace(shape, frames=0, batch=1, state_batch=2)
    inputs = make_inputs(shape, device=DEVICE)
    borders = torch.zeros(3, dtype=torch.int64, device=DEVICE)
    y, state = ssm_scan(*inputs, pairing=shape.pairing, cu_seqlens=borders, impl="triton")
    assert y.shape == inputs.v.shape
    for part, old in zip(state, inputs.state, strict=True):
        assert torch.equal(part, old)


@with_triton
@each_variant
def test_rows_runs_and_the_future_change_no_bit(shape):
    inputs = make_inputs(dataclasses.replace(shape, batch=2), torch.bfloat16, DEVICE)
    y, state = ssm_scan(*inputs, pairing=shape.pairing, impl="triton")
    again, state_again = ssm_scan(*inputs, pairing=shape.pairing, impl="triton")
    for part, other in zip((y, *state), (again, *state_again), strict=True):
        assert torch.equal(part, other)
    alone = SsmState._make(x[1:] for x in inputs.state)
    row, _ = ssm_scan(
        *(x[1:] for x in inputs[:8]), inputs.params, alone, pairing=shape.pairing, impl="triton"
    )
    assert torch.equal(row, y[1:])
    for x in inputs[:8]:
        x[:, 17:] *= 2
    other, _ = ssm_scan(*inputs, pairing=shape.pairing, impl="triton")
    assert torch.equal(other[:, :17], y[:, :17]) and not torch.equal(other[:, 17:], y[:, 17:])


@with_triton
def test_frames_may_lie_apart():
    inputs = make_inputs(MIMO, device=DEVICE)
    expected, _ = ssm_scan(*inputs, pairing="halved", impl="triton")
    flat = torch.cat([x.flatten(2) for x in inputs[:8]], dim=2)
    slices = flat.split([x[0, 0].numel() for x in inputs[:8]], dim=2)
    parts = [x.view(like.shape) for x, like in zip(slices, inputs[:8], strict=True)]
    y, _ = ssm_scan(*parts, *inputs[8:], pairing="halved", impl="triton")
    assert torch.equal(y, expected)


@with_triton
@each_variant
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_is_kept_is_the_state_before_every_chunk(shape, dtype):
    from audiossm_kernels.ssm_scan.triton_forward import ScanConfig, launch_forward

    lengths = [33, 0, 5]
    rows = len(lengths)
    shape = dataclasses.replace(shape, frames=sum(lengths), batch=1, state_batch=rows)
    inputs = make_inputs(shape, dtype, DEVICE)
    borders = torch.tensor([0, *lengths], device=DEVICE).cumsum(0)
    _, _, kept = launch_forward(
        SsmInputs(*inputs[:8]),
        inputs.params,
        inputs.state,
        shape.pairing,
        borders=borders,
        keep=True,
        config=ScanConfig(16, 4, segment=1),
    )
    itemsize = inputs.v.element_size()
    layout = ScanLayout(rows, shape.frames, chunk_frames(shape.rank, itemsize), packed=True)
    assert kept is not None and kept.ssm.dtype == dtype and len(kept.ssm) == layout.slots
    exact = in_float64(inputs)
    for row, (start, stop) in enumerate(zip(borders.tolist(), borders[1:].tolist(), strict=False)):
        state = SsmState._make(x[row : row + 1] for x in exact.state)
        for index, begin in enumerate(range(start, stop, layout.chunk)):
            slot = layout.first_slot(row, start) + index
            share = torch.sigmoid(-exact.trap[0, begin]) * exact.dt[0, begin]
            value = project_ranks(state.v[0], exact.params.mimo_x) * share[:, None, None]
            expected = state.ssm[0] + value.transpose(1, 2) @ state.k[0].transpose(0, 1)
            assert error(kept.ssm[slot], expected) <= TOLERANCE[dtype][1]
            turns = kept.angle[slot].double() - state.angle[0] / (2 * torch.pi)
            assert (turns - turns.round()).abs().max() <= 1e-5
            chunk = cut(exact, begin, min(begin + layout.chunk, stop))
            _, state = ssm_scan(
                *chunk, exact.params, state, pairing=shape.pairing, impl="reference"
            )


@with_triton
def test_what_the_kernels_do_not_take_is_refused_with_the_value():
    inputs = make_inputs(SISO, device=DEVICE)

    def scan(inputs: ScanInputs, pairing: str = "adjacent", **options: int) -> None:
        ssm_scan(*inputs, pairing=pairing, impl="triton", **options)

    with pytest.raises(KernelError, match=r"impl='triton'\): q is torch.float64, not float32"):
        scan(in_float64(inputs))
    large = make_inputs(dataclasses.replace(SISO, head_dim=300), device=DEVICE)
    with pytest.raises(KernelError, match="with a gradient, head_dim=300 is more than 128"):
        scan(large._replace(v=large.v.requires_grad_()))
    with pytest.raises(KernelError, match="chunk_size is of the chunked form"):
        scan(inputs, chunk_size=16)
    with pytest.raises(KernelError, match="d_state=512 is more than 256"):
        scan(make_inputs(dataclasses.replace(SISO, d_state=512), device=DEVICE))
    with pytest.raises(KernelError, match="rank 3 is none of 1, 2, 4, 8"):
        scan(make_inputs(dataclasses.replace(MIMO, rank=3), device=DEVICE), "halved")
    with pytest.raises(KernelError, match="head_dim=300 is more than 128"):
        scan(make_inputs(dataclasses.replace(SISO, head_dim=300, out_norm=True), device=DEVICE))


def test_slots_do_not_overlap():
    packed = ScanLayout(rows=3, frames=40, chunk=16, packed=True)
    assert [packed.first_slot(row, start) for row, start in enumerate([0, 17, 17])] == [0, 2, 3]
    assert packed.slots == 5
    plain = ScanLayout(rows=3, frames=40, chunk=16, packed=False)
    assert plain.first_slot(2, 0) == 6 and plain.slots == 9


@pytest.mark.skipif(INTERPRETED or DEVICE == "cuda", reason="there the kernels run")
def test_the_kernels_refuse_a_cpu():
    pytest.importorskip("triton")
    with pytest.raises(KernelError, match="tensors are on cpu, not on a CUDA device"):
        ssm_scan(*make_inputs(SISO), pairing="adjacent", impl="triton")
