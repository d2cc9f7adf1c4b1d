"""What stands between a layer's products: plain torch, and Triton on a card or interpreted."""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from audiossm_kernels import KernelError
from audiossm_kernels.fused import add_norm_, gate_values

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"

with_triton = pytest.mark.skipif(
    not INTERPRETED and DEVICE == "cpu", reason="runs in the interpreter's process"
)


@pytest.mark.skipif(INTERPRETED or DEVICE == "cuda", reason="Triton runs here anyway")
def test_this_file_in_the_interpreter():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


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
