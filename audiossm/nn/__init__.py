"""Layers: the streaming contract, causal convolutions, and the Mamba-3 backbone's parts."""

from audiossm.nn.attention import AttentionConfig, AttentionState, WindowAttention
from audiossm.nn.block import AnyLayer, AttentionBlock, Block, BlockState, Layer, mamba_blocks
from audiossm.nn.conv import (
    CausalConv1d,
    ConvState,
    LookAheadConv,
    LookAheadState,
    turn_tails,
)
from audiossm.nn.gated_conv import GatedConv
from audiossm.nn.mamba3 import Mamba3, Mamba3Config
from audiossm.nn.mlp import SwiGLU
from audiossm.nn.norm import RMSNorm
from audiossm.nn.slots import BlockSlots
from audiossm.nn.streaming import (
    StreamingModule,
    map_state,
    named_tensors,
    stack_states,
    unstack_states,
    where_state,
)

__all__ = [
    "AnyLayer",
    "AttentionBlock",
    "AttentionConfig",
    "AttentionState",
    "Block",
    "BlockSlots",
    "BlockState",
    "CausalConv1d",
    "ConvState",
    "GatedConv",
    "Layer",
    "LookAheadConv",
    "LookAheadState",
    "Mamba3",
    "Mamba3Config",
    "RMSNorm",
    "StreamingModule",
    "SwiGLU",
    "WindowAttention",
    "mamba_blocks",
    "map_state",
    "named_tensors",
    "stack_states",
    "turn_tails",
    "unstack_states",
    "where_state",
]
