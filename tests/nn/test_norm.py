"""RMSNorm and SwiGLU against their formulas."""

import torch
from torch.nn import functional as F

from audiossm.nn import RMSNorm, SwiGLU


def test_rms_norm_is_its_formula():
    norm = RMSNorm(6)
    torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1))
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), expected)


def test_rms_norm_of_half_precision_is_the_rounded_float32_one():
    norm = RMSNorm(64)
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert torch.equal(norm(x), norm(x.float()).bfloat16())
    assert norm(x.double()).dtype == torch.float64


def test_swiglu_gates_the_first_half_by_the_second():
    torch.manual_seed(0)
    mlp = SwiGLU(4, 6)
    x = torch.randn(2, 3, 4)
    value, gate = x @ mlp.fc1.weight[:6].T, x @ mlp.fc1.weight[6:].T
    torch.testing.assert_close(mlp(x), (value * F.silu(gate)) @ mlp.fc2.weight.T)
