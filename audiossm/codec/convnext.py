"""The codec's convolutional block, and running several of them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiossm.nn import CausalConv1d, ConvState, StreamingModule
from audiossm_kernels.operators import exporting

__all__ = ["ConvNeXtBlock", "list_blocks", "run_blocks"]


class ConvNeXtBlock(StreamingModule[ConvState]):
    """Depthwise causal convolution, norm, MLP, scaled residual; (batch, frames, channels).

    ConvNeXt (arXiv:2201.03545) in one dimension, as vocoders use it (arXiv:2306.00814).
    """

    def __init__(self, channels: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.conv = CausalConv1d(channels, channels, kernel, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, hidden)
        self.down = nn.Linear(hidden, channels)
        self.scale = nn.Parameter(torch.full((channels,), 0.1))

    def init_state(self, batch: int) -> ConvState:
        return self.conv.init_state(batch)

    def step(self, x: Tensor, state: ConvState) -> tuple[Tensor, ConvState]:
        y, state = self.conv.step(x.transpose(1, 2), state)
        y = F.gelu(self.up(self.norm(y.transpose(1, 2))))
        if exporting():  # what is a weight times a weight is done when a graph is loaded
            weight = self.down.weight * self.scale.unsqueeze(1)
            return x + F.linear(y, weight, self.down.bias * self.scale), state
        return x + self.scale * self.down(y), state


def list_blocks(modules: nn.ModuleList) -> list[ConvNeXtBlock]:
    """Return the blocks, in order."""
    return [block for block in modules if isinstance(block, ConvNeXtBlock)]


def run_blocks(
    modules: nn.ModuleList, x: Tensor, states: tuple[ConvState, ...]
) -> tuple[Tensor, tuple[ConvState, ...]]:
    """Step through blocks in order; ``x`` is (batch, frames, channels)."""
    new_states = []
    for block, state in zip(list_blocks(modules), states, strict=True):
        x, state = block.step(x, state)
        new_states.append(state)
    return x, tuple(new_states)
