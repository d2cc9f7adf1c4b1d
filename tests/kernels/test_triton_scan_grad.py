"""The gradients of the scan's Triton kernels: on a card, else in Triton's interpreter.

Without a card test_interpreter.py runs the whole file again.
"""

import dataclasses
import os

import pytest
import torch
from torch import Tensor

from audiossm_kernels import SsmInputs, SsmParams, SsmState, ssm_scan
from audiossm_kernels.ssm_scan.cases import ScanInputs, ScanShape, make_inputs

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"

with_triton = pytest.mark.skipif(
    not INTERPRETED and DEVICE == "cpu", reason="runs in the interpreter's process"
)

SISO = ScanShape(frames=37, batch=1, heads=2, head_dim=16, d_state=16)
MIMO = dataclasses.replace(SISO, frames=19, rank=2)
SHAPES = {
    "siso, two rows": dataclasses.replace(SISO, batch=2),
    "siso, groups, all turn, norm, odd head": dataclasses.replace(
        SISO, groups=2, rope_fraction=1.0, out_norm=True, angle_heads=2, head_dim=20, d_state=24
    ),
    "siso, odd state": dataclasses.replace(SISO, d_state=23),
    "siso, one frame": dataclasses.replace(SISO, frames=1),
    "rank 2, groups": dataclasses.replace(MIMO, groups=2, d_state=32),
    "rank 4, norm": dataclasses.replace(MIMO, rank=4, out_norm=True),
    "rank 8, all turn, angles of heads": dataclasses.replace(
        MIMO, frames=9, rank=8, rope_fraction=1.0, angle_heads=2
    ),
}
# relative L2 error: of most gradients; of dt, adt, trap and angles
TOLERANCE = {
    torch.float32: (1e-4, 1e-4),
    torch.bfloat16: (2e-2, 5e-2),
    torch.float16: (2e-2, 5e-2),
}
SENSITIVE = {"dt", "adt", "trap", "angles"}


def leaves(inputs: ScanInputs, dtype: torch.dtype | None = None) -> ScanInputs:
    """Return copies that take gradients, in their dtype or another one."""

    def leaf(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.detach().to(dtype or x.dtype).clone().requires_grad_()

    return ScanInputs(
        *(leaf(x) for x in inputs[:8]),
        SsmParams._make(leaf(x) for x in inputs.params),
        SsmState._make(leaf(x) for x in inputs.state),
    )


def name_all(inputs: ScanInputs) -> dict[str, Tensor]:
    params = {n: x for n, x in inputs.params._asdict().items() if x is not None}
    state = {f"state.{n}": x for n, x in inputs.state._asdict().items()}
    return dict(zip(SsmInputs._fields, inputs[:8], strict=True)) | params | state


def gradients(
    inputs: ScanInputs,
    shape: ScanShape,
    impl: str,
    *,
    borders: list[int] | None = None,
    states: bool = True,
) -> dict[str, Tensor]:
    """Return all gradients of random weights of the output and, with ``states``, of the state."""
    cu_seqlens = None if borders is None else torch.tensor(borders, device=DEVICE)
    y, state = ssm_scan(*inputs, pairing=shape.pairing, impl=impl, cu_seqlens=cu_seqlens)
    generator = torch.Generator().manual_seed(1)
    outputs = [y, *state] if states else [y]
    weights = [torch.randn(x.shape, generator=generator).to(x.device, x.dtype) for x in outputs]
    named = name_all(inputs)
    found = torch.autograd.grad(outputs, list(named.values()), weights)
    return dict(zip(named, found, strict=True))


def assert_right(
    shape: ScanShape,
    dtype: torch.dtype,
    *,
    borders: list[int] | None = None,
    states: bool = True,
    seed: int = 0,
) -> None:
    inputs = make_inputs(shape, dtype, DEVICE, seed=seed)
    exact = leaves(inputs, torch.float64)
    expected = gradients(exact, shape, "reference", borders=borders, states=states)
    own = leaves(inputs)
    for name, got in gradients(own, shape, "triton", borders=borders, states=states).items():
        assert got.dtype == name_all(own)[name].dtype
        scale = expected[name].norm()
        limit = TOLERANCE[dtype][name in SENSITIVE]
        assert (got.double() - expected[name]).norm() <= limit * scale, name


@with_triton
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_gradients_are_those_of_the_reference(shape):
    assert_right(shape, torch.float32)


@with_triton
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "shape", [dataclasses.replace(SISO, frames=70), MIMO], ids=["siso", "mimo"]
)
def test_half_precision_gradients_are_close(shape, dtype):
    assert_right(shape, dtype)


@with_triton
def test_a_norm_magnifies_no_more_rounding_than_it_must():
    # one frame's small answers give most of its gradient: turned in bfloat16, q was off by 3.6e-2
    shape = dataclasses.replace(SISO, frames=64, head_dim=32, out_norm=True)
    assert_right(shape, torch.bfloat16, seed=8)


@with_triton
@pytest.mark.parametrize("shape", [SISO, MIMO], ids=["siso", "mimo"])
def test_packed_sequences_have_their_own_gradients(shape):
    borders = [0, 9, 9, shape.frames, shape.frames]
    assert_right(dataclasses.replace(shape, state_batch=4), torch.float32, borders=borders)


@with_triton
def test_final_states_may_go_unused():
    assert_right(MIMO, torch.float32, states=False)


@with_triton
def test_two_runs_have_equal_bits():
    inputs = leaves(make_inputs(MIMO, torch.bfloat16, DEVICE))
    first, second = (gradients(inputs, MIMO, "triton") for _ in range(2))
    for name, got in first.items():
        assert torch.equal(got, second[name]), name


@with_triton
def test_inputs_may_be_slices():
    inputs = make_inputs(SISO, torch.float32, DEVICE)
    expected = gradients(leaves(inputs), SISO, "triton")
    wide = leaves(inputs._replace(v=torch.cat([inputs.v, inputs.z], dim=-2)))
    own = wide._replace(v=wide.v[:, :, : SISO.heads], z=wide.v[:, :, SISO.heads :])
    got = gradients(own, SISO, "triton")
    for name in expected:
        assert torch.equal(got[name], expected[name]), name


@with_triton
def test_a_frame_that_would_grow_has_no_gradient_of_its_decay():
    inputs = make_inputs(SISO, torch.float32, DEVICE)
    adt = inputs.adt.clone()
    adt[:, 3] = 0.5
    got = gradients(leaves(inputs._replace(adt=adt)), SISO, "triton")["adt"]
    assert not got[:, 3].any() and got[:, 4].all()
