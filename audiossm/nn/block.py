"""One layer of a backbone: a mixer and a feed-forward layer around a residual stream."""

from torch import Tensor, nn

from audiossm.nn.mamba3 import Mamba3, Mamba3Config
from audiossm.nn.mlp import SwiGLU
from audiossm.nn.norm import RMSNorm
from audiossm.nn.streaming import StreamingModule
from audiossm_kernels import SsmState

__all__ = ["Block", "BlockState"]

# A block remembers what its mixer does.
BlockState = SsmState


class Block(StreamingModule[BlockState]):
    """``x + mixer(norm(x))``, then ``x + mlp(norm2(x))``; the residual keeps the dtype of ``x``.

    A float32 residual around bfloat16 layers is a float32 ``x``: the norms hand their result over
    in the dtype of their weights.
    """

    def __init__(self, config: Mamba3Config, d_intermediate: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.mixer = Mamba3(config)
        self.norm2 = RMSNorm(config.d_model)
        self.mlp = SwiGLU(config.d_model, d_intermediate)
        self.dropout = nn.Dropout(dropout)

    def init_state(self, batch: int) -> BlockState:
        """Return the mixer's zero state of ``batch`` streams."""
        return self.mixer.init_state(batch)

    def step(self, x: Tensor, state: BlockState) -> tuple[Tensor, BlockState]:
        """Advance (batch, frames, d_model) by any number of frames >= 1."""
        mixed, state = self.mixer.step(self.norm(x).to(self.norm.weight.dtype), state)
        x = x + self.dropout(mixed)
        x = x + self.dropout(self.mlp(self.norm2(x).to(self.norm2.weight.dtype)))
        return x, state
