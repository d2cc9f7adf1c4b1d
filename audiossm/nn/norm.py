"""Root-mean-square norm, computed in float32 whatever comes in."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["RMSNorm"]


class RMSNorm(nn.Module):
    """Scale the last axis to a root mean square of one, then by a weight per channel."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Norm ``x`` (..., dim) over its last axis; the result has the dtype of ``x``."""
        if x.dtype == self.weight.dtype == torch.float32:  # one frame feels what casts cost
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        dtype = torch.promote_types(x.dtype, torch.float32)
        weight = self.weight.to(dtype)
        return F.rms_norm(x.to(dtype), weight.shape, weight, self.eps).to(x.dtype)
