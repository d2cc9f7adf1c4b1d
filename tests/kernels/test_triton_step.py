"""The step's Triton kernel against float64: on a card, else in Triton's interpreter.

Without a card test_interpreter.py runs the whole file again.
"""

import dataclasses
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from audiossm_kernels import KernelError, RawParams, SsmState, ssm_step, ssm_step_
from audiossm_kernels.ssm_scan.cases import ScanInputs, ScanShape
from audiossm_kernels.ssm_step.cases import make_inputs

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"

with_triton = pytest.mark.skipif(
    not INTERPRETED and DEVICE == "cpu", reason="runs in the interpreter's process"
)

SHAPES = {
    "siso": ScanShape(frames=1, head_dim=16),
    "siso, groups, all turn, norm, odd head": ScanShape(
        frames=1, head_dim=20, groups=2, rope_fraction=1.0, out_norm=True, angle_heads=4
    ),
    "siso, large": ScanShape(frames=1, batch=1, heads=2, head_dim=64, d_state=128),
    "siso, two tiles": ScanShape(frames=1, batch=1, heads=2, head_dim=80, d_state=64),
    "siso, largest state": ScanShape(frames=1, batch=1, heads=1, head_dim=16, d_state=256),
    "siso, odd state": ScanShape(frames=1, batch=1, head_dim=16, d_state=23),
    "rank 2, groups": ScanShape(frames=1, rank=2, groups=2, head_dim=48, d_state=64),
    "rank 3": ScanShape(frames=1, batch=1, rank=3, head_dim=16, d_state=24),
    "rank 4": ScanShape(frames=1, batch=1, heads=2, rank=4, head_dim=64, d_state=128),
    "rank 4, groups, all turn, norm": ScanShape(
        frames=1, rank=4, groups=2, head_dim=48, rope_fraction=1.0, out_norm=True
    ),
    "rank 8": ScanShape(frames=1, batch=1, heads=2, rank=8, head_dim=32, d_state=32),
}
# relative L2 error: of the output, of the state
TOLERANCE = {torch.float32: (1e-4, 1e-4), torch.bfloat16: (1e-2, 5e-3)}

each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def in_float64(inputs: ScanInputs) -> ScanInputs:
    def wide(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.double()

    tensors = (wide(x) for x in inputs[:8])
    params = inputs.params._make(wide(x) for x in inputs.params)
    return ScanInputs(*tensors, params, SsmState._make(wide(x) for x in inputs.state))


def error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected).norm() / expected.norm())


def assert_close(y: Tensor, state: SsmState, expected_y: Tensor, expected: SsmState) -> None:
    turns = (state.angle.double() - expected.angle) / (2 * torch.pi)
    assert (turns - turns.round()).abs().max() <= 2e-6
    assert (state.angle >= 0).all() and (state.angle < 2 * torch.pi).all()
    assert error(y, expected_y) <= TOLERANCE[y.dtype][0]
    for name in ("ssm", "k", "v"):
        part = getattr(state, name)
        assert error(part, getattr(expected, name)) <= TOLERANCE[part.dtype][1], name


def copy(state: SsmState) -> SsmState:
    return SsmState._make(part.clone() for part in state)


@with_triton
@each_dtype
@each_shape
def test_a_step_is_that_of_the_reference(shape, dtype):
    inputs = make_inputs(shape, dtype, DEVICE, state_dtype=dtype)
    y, state = ssm_step(*inputs, pairing=shape.pairing, impl="triton")
    assert y.dtype == dtype and [part.dtype for part in state] == [torch.float32] + [dtype] * 3
    expected = ssm_step(*in_float64(inputs), pairing=shape.pairing, impl="reference")
    assert_close(y, state, *expected)


@with_triton
@each_dtype
def test_a_float32_state_may_stand_beside_bfloat16_inputs(dtype):
    shape = SHAPES["rank 2, groups"]
    inputs = make_inputs(shape, torch.bfloat16, DEVICE, state_dtype=torch.float32)
    inputs = inputs._replace(dt=inputs.dt.to(dtype), trap=inputs.trap.to(dtype))
    y, state = ssm_step(*inputs, pairing=shape.pairing, impl="triton")
    assert_close(y, state, *ssm_step(*in_float64(inputs), pairing="halved", impl="reference"))


@with_triton
@pytest.mark.parametrize("name", ["siso", "rank 2, groups"])
def test_an_angle_may_turn_many_times(name):
    shape = SHAPES[name]
    inputs = make_inputs(shape, device=DEVICE)
    angles = torch.linspace(-40, 40, inputs.state.angle.numel(), device=DEVICE)
    state = inputs.state._replace(angle=angles.view_as(inputs.state.angle))
    inputs = inputs._replace(dt=inputs.dt + 9, state=state)
    y, state = ssm_step(*inputs, pairing=shape.pairing, impl="triton")
    expected = ssm_step(*in_float64(inputs), pairing=shape.pairing, impl="reference")
    assert_close(y, state, *expected)


@with_triton
@pytest.mark.parametrize("name", ["siso", "siso, two tiles", "rank 4, groups, all turn, norm"])
def test_in_place_writes_the_same_bits_and_leaves_dead_slots_alone(name):
    shape = SHAPES[name]
    inputs = make_inputs(shape, torch.bfloat16, DEVICE, state_dtype=torch.bfloat16)
    expected_y, expected = ssm_step(*inputs, pairing=shape.pairing, impl="triton")
    live = torch.tensor([True, False][: shape.batch], device=DEVICE)
    state = copy(inputs.state)
    y = ssm_step_(*inputs[:9], state, pairing=shape.pairing, live=live, impl="triton")
    assert torch.equal(y[:1], expected_y[:1]) and not y[1:].any()
    for part, old, new in zip(state, inputs.state, expected, strict=True):
        assert torch.equal(part[:1], new[:1])
        assert torch.equal(part[1:], old[1:])


@with_triton
def test_rows_may_lie_apart_and_do_not_see_each_other():
    shape = SHAPES["rank 2, groups"]
    inputs = make_inputs(shape, device=DEVICE)
    expected_y, expected = ssm_step(*inputs, pairing="halved", impl="triton")
    # every input a slice of one projection, every state a slot between others
    flat = torch.cat([x.flatten(1) for x in inputs[:8]], dim=1)
    slices = flat.split([x[0].numel() for x in inputs[:8]], dim=1)
    parts = [x.view(like.shape) for x, like in zip(slices, inputs[:8], strict=True)]
    slots = [x.new_full((5, *x.shape[1:]), 7.0) for x in inputs.state]
    state = SsmState._make(x[1:5:2] for x in slots)
    for part, old in zip(state, inputs.state, strict=True):
        part.copy_(old)
    y = ssm_step_(*parts, inputs.params, state, pairing="halved", impl="triton")
    assert torch.equal(y, expected_y)
    for slot, part, new in zip(slots, state, expected, strict=True):
        assert torch.equal(part, new)
        assert (slot[::2] == 7).all()
    alone = [x[1:] for x in inputs[:8]]
    only = SsmState._make(x[1:] for x in inputs.state)
    y, _ = ssm_step(*alone, inputs.params, only, pairing="halved", impl="triton")
    assert torch.equal(y, expected_y[1:])


@pytest.mark.parametrize("impl", [pytest.param("triton", marks=with_triton), "reference"])
@pytest.mark.parametrize("activation", ["heavy_tail", "softplus"])
def test_a_raw_projection_is_normed_and_activated(activation, impl):
    shape = SHAPES["rank 2, groups"]
    device = DEVICE if impl == "triton" else "cpu"
    inputs = make_inputs(shape, torch.float32, device)
    inputs = inputs._replace(dt=inputs.trap - 4, adt=inputs.trap.flip(0), q=3 * inputs.q)
    weight = torch.linspace(0.5, 2, shape.d_state, device=device)
    raw = RawParams(
        dt_bias=torch.linspace(-3, 3, shape.heads, device=device),
        q_norm=weight,
        k_norm=weight.flip(0),
        a_activation=activation,
        a_floor=0.1,
        max_memory=50.0,
    )
    state = copy(inputs.state)
    y = ssm_step_(*inputs[:9], state, pairing="halved", raw=raw, impl=impl)

    x = in_float64(inputs)
    dt = torch.log1p(torch.exp(x.dt + raw.dt_bias.double()))
    rate = torch.log1p(torch.exp(x.adt))
    if activation == "heavy_tail":
        rate = torch.where(x.adt > 0, 1 + x.adt, 1 / (1 + x.adt.abs()))
    adt = (-rate.clamp(min=0.1) * dt).clamp(max=-1 / 50)

    def norm(v: Tensor, weight: Tensor) -> Tensor:
        return v / (v.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()

    x = x._replace(q=norm(x.q, raw.q_norm), k=norm(x.k, raw.k_norm), dt=dt, adt=adt)
    assert_close(y, state, *ssm_step(*x, pairing="halved", impl="reference"))


def test_in_place_in_torch_leaves_dead_slots_alone():
    shape = SHAPES["rank 2, groups"]
    inputs = make_inputs(shape, state_dtype=torch.bfloat16)
    expected_y, expected = ssm_step(*inputs, pairing="halved", impl="reference")
    assert expected.ssm.dtype == torch.bfloat16
    state = copy(inputs.state)
    live = torch.tensor([False, True])
    y = ssm_step_(*inputs[:9], state, pairing="halved", live=live, impl="reference")
    assert torch.equal(y[1], expected_y[1]) and not y[0].any()
    for part, old, new in zip(state, inputs.state, expected, strict=True):
        assert torch.equal(part[0], old[0]) and torch.equal(part[1], new[1])


@with_triton
def test_what_the_kernel_does_not_take_is_refused_with_the_value():
    inputs = make_inputs(ScanShape(frames=1, head_dim=16), device=DEVICE)

    def step(inputs: ScanInputs) -> None:
        ssm_step(*inputs, pairing="adjacent", impl="triton")

    with pytest.raises(KernelError, match=r"impl='triton'\): q is torch.float64, not float32"):
        step(in_float64(inputs))
    with pytest.raises(KernelError, match="state.ssm is torch.float16, not float32 or bfloat16"):
        step(inputs._replace(state=inputs.state._replace(ssm=inputs.state.ssm.half())))
    with pytest.raises(KernelError, match="it has no gradient"):
        step(inputs._replace(v=inputs.v.clone().requires_grad_()))
    with pytest.raises(KernelError, match="d_state=512 is more than 256"):
        step(make_inputs(ScanShape(frames=1, d_state=512), device=DEVICE))
    with pytest.raises(KernelError, match="head_dim=300 and d_state=128 make a tile of 65536 elem"):
        step(
            make_inputs(
                ScanShape(frames=1, head_dim=300, d_state=128, out_norm=True), device=DEVICE
            )
        )


def test_a_state_that_cannot_be_written_in_place_is_refused():
    inputs = make_inputs(ScanShape(frames=1))
    state = inputs.state._replace(ssm=inputs.state.ssm[:1].expand(2, -1, -1, -1))
    with pytest.raises(KernelError, match="rows of state.ssm must be contiguous and apart"):
        ssm_step_(*inputs[:9], state, pairing="adjacent")
    with pytest.raises(KernelError, match=r"live must be \(2,\) of torch.bool, not \(3,\)"):
        ssm_step_(*inputs, pairing="adjacent", live=torch.ones(3))


def test_a_cpu_needs_no_triton():
    code = (
        "import sys\n"
        "sys.modules['triton'] = None\n"
        "from audiossm_kernels import ssm_step\n"
        "from audiossm_kernels.ssm_step.cases import make_inputs\n"
        "from audiossm_kernels.ssm_scan.cases import ScanShape\n"
        "ssm_step(*make_inputs(ScanShape(frames=1)), pairing='adjacent')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(INTERPRETED or DEVICE == "cuda", reason="there the kernel runs")
def test_the_kernel_refuses_a_cpu():
    pytest.importorskip("triton")
    inputs = make_inputs(ScanShape(frames=1))
    with pytest.raises(KernelError, match="tensors are on cpu, not on a CUDA device"):
        ssm_step(*inputs, pairing="adjacent", impl="triton")


@with_triton
@pytest.mark.parametrize("name", ["siso, two tiles", "rank 4, groups, all turn, norm"])
@each_dtype
def test_rows_find_their_slots_by_number(name, dtype):
    shape = dataclasses.replace(SHAPES[name], batch=3)
    inputs = make_inputs(shape, dtype, DEVICE, state_dtype=dtype)
    expected_y, expected = ssm_step(*inputs, pairing=shape.pairing, impl="triton")
    places = [3, 0, 4]
    many = SsmState._make(part.new_full((6, *part.shape[1:]), 0.5) for part in inputs.state)
    for part, old in zip(many, inputs.state, strict=True):
        part[places] = old
    before = copy(many)
    slots = torch.tensor([3, -1, 4], device=DEVICE)
    y = ssm_step_(*inputs[:9], many, pairing=shape.pairing, slots=slots, impl="triton")
    assert torch.equal(y[[0, 2]], expected_y[[0, 2]]) and not y[1].any()
    for part, old, new in zip(many, before, expected, strict=True):
        assert torch.equal(part[[3, 4]], new[[0, 2]])
        assert torch.equal(part[[0, 1, 2, 5]], old[[0, 1, 2, 5]])
