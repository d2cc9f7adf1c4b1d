"""What stands between a layer's products: plain torch, and Triton on a card or interpreted."""

import os

import pytest
import torch
from torch.nn import functional as F

from audiossm_kernels import KernelError, make_steps, norm_vectors
from audiossm_kernels.fused import add_norm_, gate_values

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"

with_triton = pytest.mark.skipif(
    not INTERPRETED and DEVICE == "cpu", reason="runs in the interpreter's process"
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("adds", [False, True])
def test_the_norm_of_a_sum(dtype, adds):
    residual, weight = torch.randn(3, 40), torch.randn(40).to(dtype)
    added = torch.randn(3, 40).to(dtype) if adds else None
    total = residual if added is None else residual + added
    expected = F.rms_norm(total, (40,), weight.float(), 1e-5).to(dtype)
    y = add_norm_(residual, added, weight)
    assert y.dtype == dtype and torch.equal(residual, total)
    torch.testing.assert_close(y, expected)


@with_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("adds", [False, True])
def test_the_norm_of_a_sum_in_one_launch(dtype, adds):
    from audiossm_kernels.triton_fused import launch_add_norm

    residual = torch.randn(3, 40, device=DEVICE)
    weight = torch.randn(40, device=DEVICE).to(dtype)
    added = torch.randn(3, 40, device=DEVICE).to(dtype) if adds else None
    total = residual.clone() if added is None else residual + added
    y = launch_add_norm(residual, added, weight, 1e-5)
    assert y.dtype == dtype and torch.equal(residual, total)
    expected = F.rms_norm(total, (40,), weight.float(), 1e-5).to(dtype)
    torch.testing.assert_close(y, expected)


@with_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gated_values_in_one_launch(dtype):
    from audiossm_kernels.triton_fused import launch_gate

    x = torch.randn(2, 2 * 1030, device=DEVICE).to(dtype)
    value, gate = x.float().chunk(2, dim=1)
    torch.testing.assert_close(launch_gate(x), (value * F.silu(gate)).to(dtype))


def test_gated_values():
    x = torch.randn(2, 10)
    torch.testing.assert_close(gate_values(x), x[:, :5] * F.silu(x[:, 5:]))


def test_what_does_not_fit_is_refused():
    residual, weight = torch.zeros(2, 4), torch.ones(4)
    with pytest.raises(KernelError, match=r"must be contiguous \(B, D\) float32"):
        add_norm_(residual.bfloat16(), None, weight)
    with pytest.raises(KernelError, match=r"takes a weight \(4,\) and as much to add, not \(3,\)"):
        add_norm_(residual, None, torch.ones(3))
    with pytest.raises(KernelError, match=r"not \(4,\) and \(2, 3\)"):
        add_norm_(residual, torch.zeros(2, 3), weight)
    with pytest.raises(KernelError, match=r"x must be contiguous \(B, 2 F\), not \(2, 5\)"):
        gate_values(torch.zeros(2, 5))


def gradients(outputs, inputs):
    """Return the gradients of random weights of the outputs."""
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(y.shape, generator=generator).to(y) for y in outputs]
    return torch.autograd.grad(outputs, inputs, weights)


@with_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 19, 2, 3, 24), (5, 4, 1, 16), (70, 16)])
def test_norms_of_vectors_and_their_gradients(dtype, shape):
    from audiossm_kernels.triton_prepare import Norm

    lead, inner = (
        shape[:2] if len(shape) > 4 else shape[:1],
        shape[2:] if len(shape) > 4 else shape[1:],
    )
    width = torch.Size(inner).numel()
    whole = torch.randn(*lead, width + 10, device=DEVICE).to(dtype).requires_grad_()
    weight = torch.randn(shape[-1], device=DEVICE).requires_grad_()
    x = whole[..., 3 : 3 + width].unflatten(-1, inner)  # a slice of a projection
    y = Norm.apply(x, weight, 1e-5)
    wide = x.double()
    expected = F.rms_norm(wide, weight.shape, weight.double(), 1e-5)
    assert y.dtype == dtype and y.shape == x.shape
    loose = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(y.double(), expected, **loose)
    found, wanted = (
        gradients([y], [whole, weight]),
        gradients([expected.to(dtype)], [whole, weight]),
    )
    for got, right in zip(found, wanted, strict=True):
        off = (got.double() - right.double()).norm() / right.double().norm()
        assert off < (1e-5 if dtype == torch.float32 else 1e-2)


@with_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ["heavy_tail", "softplus"])
@pytest.mark.parametrize("max_memory", [None, 30.0])
def test_steps_and_their_gradients(dtype, activation, max_memory):
    from audiossm_kernels.triton_prepare import Steps

    whole = (2 * torch.randn(2, 700, 17, device=DEVICE)).to(dtype).requires_grad_()
    bias = torch.randn(5, device=DEVICE).requires_grad_()
    raw_dt, raw_a = whole[..., 1:6], whole[..., 9:14]
    floor = 0.4  # which many are under
    slowest = 0.0 if max_memory is None else -1 / max_memory
    found = Steps.apply(raw_dt, raw_a, bias, activation == "heavy_tail", floor, slowest)
    wanted = make_steps(
        raw_dt.double(), raw_a.double(), bias.double(), activation, floor, max_memory
    )
    for got, right in zip(found, wanted, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), right, rtol=1e-5, atol=1e-6)
    pairs = zip(gradients(found, [whole, bias]), gradients(wanted, [whole, bias]), strict=True)
    for got, right in pairs:
        off = (got.double() - right.double()).norm() / right.double().norm()
        assert off < (1e-5 if dtype == torch.float32 else 1e-2)


def test_norm_vectors_on_a_cpu():
    x, weight = torch.randn(3, 2, 8).bfloat16(), torch.randn(8)
    expected = F.rms_norm(x.float(), (8,), weight, 1e-5).bfloat16()
    assert torch.equal(norm_vectors(x, weight), expected)
