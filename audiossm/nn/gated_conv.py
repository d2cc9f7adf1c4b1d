"""A layer that sees a few frames around in any shape, where a recurrence can only fade them out."""

from torch import Tensor, nn
from torch.nn import functional as F

from audiossm.nn.conv import CausalConv1d, ConvState
from audiossm.nn.norm import RMSNorm
from audiossm.nn.streaming import StreamingModule

__all__ = ["GatedConv"]


class GatedConv(StreamingModule[ConvState]):
    """``x + out(silu(norm(conv(value * sigmoid(gate)))))``; the residual keeps the dtype of ``x``.

    The Conformer's convolution module (arXiv:2005.08100, section 2.2), causal, with an RMS norm
    of each frame in place of the batch norm.

    Args:
        d_model: channels.
        kernel: frames that one output sees, the newest included.
        dropout: of what is added to the residual.
    """

    def __init__(self, d_model: int, kernel: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = RMSNorm(d_model)
        self.gated = nn.Linear(d_model, 2 * d_model)
        self.conv = CausalConv1d(d_model, d_model, kernel, groups=d_model)
        self.conv_norm = RMSNorm(d_model)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.dropout = nn.Dropout(dropout)

    def init_state(self, batch: int) -> ConvState:
        return self.conv.init_state(batch)

    def step(self, x: Tensor, state: ConvState) -> tuple[Tensor, ConvState]:
        """Advance (batch, frames, d_model) by any number of frames >= 1."""
        y = F.glu(self.gated(self.norm(x).to(self.norm.weight.dtype)))
        y, state = self.conv.step(y.transpose(1, 2), state)
        y = self.out(F.silu(self.conv_norm(y.transpose(1, 2))))
        return x + self.dropout(y), state
