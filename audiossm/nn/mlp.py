"""The gated feed-forward layer that follows a mixer."""

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SwiGLU"]


class SwiGLU(nn.Module):
    """``fc2(value * silu(gate))``, frame by frame; ``fc1`` gives the value, then the gate."""

    def __init__(self, d_model: int, d_intermediate: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(d_model, 2 * d_intermediate, bias=False)
        self.fc2 = nn.Linear(d_intermediate, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` (..., d_model) to the same shape."""
        value, gate = self.fc1(x).chunk(2, dim=-1)
        y: Tensor = self.fc2(value * F.silu(gate))
        return y
