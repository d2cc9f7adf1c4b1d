"""Attention over a bounded past: its keys and values are a state like any other."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiossm.errors import ConfigError, ShapeError
from audiossm.nn.norm import RMSNorm
from audiossm.nn.streaming import StreamingModule

__all__ = ["AttentionConfig", "AttentionState", "WindowAttention"]

ROPE_BASE = 10000.0


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Sizes of one layer of attention.

    Attributes:
        d_model: channels in and out.
        window: frames that one output sees, the newest included.
        num_heads: of queries.
        num_kv_heads: of keys and values; each serves as many heads of queries (arXiv:2305.13245).
        head_dim: channels of a head.
    """

    d_model: int
    window: int = 128
    num_heads: int = 8
    num_kv_heads: int = 4
    head_dim: int = 64

    def __post_init__(self) -> None:
        """Refuse sizes that don't fit together, with the value and the limit."""
        for name in ("d_model", "window", "num_heads", "num_kv_heads"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"AttentionConfig: {name} must be 1 or more, not {getattr(self, name)}"
                )
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"AttentionConfig: {self.num_heads} heads can't share {self.num_kv_heads} of keys "
                "and values evenly"
            )
        if self.head_dim < 2 or self.head_dim % 2:
            raise ConfigError(
                f"AttentionConfig: head_dim must be even to rotate, 2 or more, not {self.head_dim}"
            )

    @property
    def split_sizes(self) -> list[int]:
        """Rows of ``in_proj``: queries, keys, values."""
        width = self.num_kv_heads * self.head_dim
        return [self.num_heads * self.head_dim, width, width]


class AttentionState(NamedTuple):
    """The newest keys and values, unrotated: zeros before the first frame, as in a convolution."""

    keys: Tensor  # (batch, num_kv_heads, window - 1, head_dim)
    values: Tensor  # (batch, num_kv_heads, window - 1, head_dim)


class WindowAttention(StreamingModule[AttentionState]):
    """Attend to the newest ``window`` frames of (batch, frames, d_model), in constant memory.

    Positions are rotary (arXiv:2104.09864) and count within the window alone: a key turns when it
    is read, so nothing depends on how long a stream has run. Before its first frame there are keys
    of zeros, which are seen like others. Queries and keys are normed. A long input goes in blocks
    of a window each, so its memory grows with its length and not with the square of it.
    """

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.in_proj = nn.Linear(config.d_model, sum(config.split_sizes), bias=False)
        self.q_norm = RMSNorm(config.head_dim)
        self.k_norm = RMSNorm(config.head_dim)
        self.out_proj = nn.Linear(config.split_sizes[0], config.d_model, bias=False)

    def init_state(self, batch: int) -> AttentionState:
        """Return the state of ``batch`` streams that have heard nothing."""
        config, weight = self.config, self.in_proj.weight
        shape = (batch, config.num_kv_heads, config.window - 1, config.head_dim)
        dtype = torch.promote_types(weight.dtype, torch.float32)
        keys, values = (torch.zeros(shape, dtype=dtype, device=weight.device) for _ in range(2))
        return AttentionState(keys, values)

    def step(self, x: Tensor, state: AttentionState) -> tuple[Tensor, AttentionState]:
        """Advance by any number of frames.

        Args:
            x: (batch, frames, d_model), float32 or bfloat16, frames >= 1.
            state: what the previous call returned, or ``init_state(batch)``.
        Returns:
            (batch, frames, d_model), dtype of the projections; and the state, float32.
        Raises:
            ShapeError: no frames, another ``d_model``, or another batch than the state's.
        """
        config = self.config
        if x.dim() != 3 or x.shape[1] < 1 or x.shape[2] != config.d_model:
            raise ShapeError(
                f"WindowAttention: input must be (batch, frames >= 1, {config.d_model}), "
                f"not {tuple(x.shape)}"
            )
        if x.shape[0] != state.keys.shape[0]:
            raise ShapeError(
                f"WindowAttention: the input has batch {x.shape[0]}, but the state "
                f"{state.keys.shape[0]}: make one with init_state(batch)"
            )
        frames, past = x.shape[1], config.window - 1
        q, k, v = (
            part.view(*x.shape[:2], -1, config.head_dim).transpose(1, 2)
            for part in self.in_proj(x).split(config.split_sizes, dim=-1)
        )
        q, k = self.q_norm(q), self.k_norm(k)
        keys = torch.cat([state.keys.to(k.dtype), k], dim=2)
        values = torch.cat([state.values.to(v.dtype), v], dim=2)
        tails = (part.narrow(2, frames, past) for part in (keys, values))
        after = AttentionState(*(tail.to(state.keys.dtype, copy=True) for tail in tails))
        size = min(frames, config.window)
        if size < frames:  # whole blocks; what is added lies in everybody's future
            spare = -frames % size
            q, keys, values = (F.pad(part, (0, 0, 0, spare)) for part in (q, keys, values))
            # (batch, blocks, heads, frames, head_dim)
            q = q.view(*q.shape[:2], -1, size, config.head_dim).transpose(1, 2)
            keys, values = (
                part.unfold(2, size + past, size).permute(0, 2, 1, 4, 3) for part in (keys, values)
            )
        places = torch.arange(size + past, device=x.device)
        q, keys = rotate(q, places[past:]), rotate(keys, places)
        shared = config.num_heads // config.num_kv_heads
        if shared > 1:
            keys, values = (part.repeat_interleave(shared, dim=-3) for part in (keys, values))
        mask = None
        if size > 1:
            distance = places[past:].unsqueeze(1) - places
            mask = (distance >= 0) & (distance <= past)
        y = F.scaled_dot_product_attention(q, keys, values.to(q.dtype), attn_mask=mask)
        if size < frames:
            y = y.transpose(1, 2).flatten(2, 3).narrow(2, 0, frames)
        return self.out_proj(y.transpose(1, 2).flatten(2)), after


def rotate(x: Tensor, places: Tensor) -> Tensor:
    """Turn pairs of (..., frames, head_dim), its halves' channels, by place times their speed."""
    half = x.shape[-1] // 2
    speeds = ROPE_BASE ** (-torch.arange(half, device=x.device) / half)
    angles = places.unsqueeze(1) * speeds
    cos, sin = angles.cos(), angles.sin()
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.to(x.dtype)
