"""One layer of a backbone: a mixer and a feed-forward layer around a residual stream."""

from collections.abc import Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from torch import Tensor, nn

from audiossm.errors import ModelError
from audiossm.nn.attention import AttentionConfig, AttentionState, WindowAttention
from audiossm.nn.mamba3 import Mamba3, Mamba3Config
from audiossm.nn.mlp import SwiGLU
from audiossm.nn.norm import RMSNorm
from audiossm.nn.streaming import StreamingModule
from audiossm_kernels import SsmState

__all__ = ["AnyLayer", "AttentionBlock", "Block", "BlockState", "Layer", "mamba_blocks"]

# A block remembers what its mixer does.
BlockState = SsmState
S = TypeVar("S")
Mixer = TypeVar("Mixer", Mamba3, WindowAttention)


class Layer(StreamingModule[S], Generic[S, Mixer]):
    """``x + mixer(norm(x))``, then ``x + mlp(norm2(x))``; the residual keeps the dtype of ``x``.

    A float32 residual around bfloat16 layers is a float32 ``x``: the norms hand their result over
    in the dtype of their weights.
    """

    mixer: Mixer

    def __init__(self, mixer: Mixer, d_intermediate: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        d_model = mixer.config.d_model
        self.norm = RMSNorm(d_model)
        self.mixer = mixer
        self.norm2 = RMSNorm(d_model)
        self.mlp = SwiGLU(d_model, d_intermediate)
        self.dropout = nn.Dropout(dropout)

    def init_state(self, batch: int) -> S:
        """Return the mixer's zero state of ``batch`` streams."""
        mixer: Any = self.mixer
        state: S = mixer.init_state(batch)
        return state

    def step(self, x: Tensor, state: S) -> tuple[Tensor, S]:
        """Advance (batch, frames, d_model) by any number of frames >= 1."""
        mixer: Any = self.mixer
        mixed, state = mixer.step(self.norm(x).to(self.norm.weight.dtype), state)
        x = x + self.dropout(mixed)
        x = x + self.dropout(self.mlp(self.norm2(x).to(self.norm2.weight.dtype)))
        return x, state


class Block(Layer[SsmState, Mamba3]):
    """A layer around a Mamba-3 mixer."""

    def __init__(self, config: Mamba3Config, d_intermediate: int, *, dropout: float = 0.0) -> None:
        super().__init__(Mamba3(config), d_intermediate, dropout=dropout)


class AttentionBlock(Layer[AttentionState, WindowAttention]):
    """A layer around attention over a window, as hybrids have some (arXiv:2402.19427)."""

    def __init__(
        self, config: AttentionConfig, d_intermediate: int, *, dropout: float = 0.0
    ) -> None:
        super().__init__(WindowAttention(config), d_intermediate, dropout=dropout)


# Of a backbone whose layers may differ.
AnyLayer: TypeAlias = Layer[Any, Any]


def mamba_blocks(blocks: Sequence[AnyLayer], what: str) -> list[Block]:
    """Return blocks for ``what``, which knows those of Mamba-3 only.

    Raises:
        ModelError: there are others.
    """
    known = [block for block in blocks if isinstance(block, Block)]
    if len(known) < len(blocks):
        others = [i for i, block in enumerate(blocks) if not isinstance(block, Block)]
        raise ModelError(f"{what} take no attention, but layers {others} of this backbone are that")
    return known
