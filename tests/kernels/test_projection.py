"""Which form makes a projection's steps, and that forms agree."""

import pytest
import torch

from audiossm_kernels.projection import make_steps


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_steps_of_several_networks_at_once():
    torch.manual_seed(0)
    raw_dt, raw_a, bias = torch.randn(3, 5, 4), torch.randn(3, 5, 4), torch.randn(3, 4)

    def steps(dt: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return make_steps(dt, a, b, "softplus", 1e-4, None)

    expected = torch.vmap(steps)(raw_dt, raw_a, bias)
    found = torch.vmap(steps)(raw_dt.cuda(), raw_a.cuda(), bias.cuda())
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs)
