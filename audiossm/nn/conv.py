"""Convolutions over time whose past is a value."""

import math
from typing import NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiossm.errors import ShapeError
from audiossm.nn.streaming import StreamingModule
from audiossm_kernels import operators

__all__ = ["CausalConv1d", "ConvState", "LookAheadConv", "LookAheadState", "turn_tails"]


S = TypeVar("S")

# up to which a depthwise convolution is a plain sum
FEW_FRAMES = 4


class ConvState(NamedTuple):
    """What a causal convolution remembers."""

    tail: Tensor  # (batch, in_channels, kernel - 1): the newest inputs


def turn_tails(state: S) -> S:
    """Swap channels and frames of all that causal convolutions in a state remember."""
    if isinstance(state, ConvState):
        return cast(S, ConvState(state.tail.transpose(1, 2).contiguous()))
    if isinstance(state, tuple):
        make = getattr(type(state), "_make", tuple)
        return cast(S, make([turn_tails(part) for part in state]))
    return state


def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: ConvState, groups: int
) -> tuple[Tensor, ConvState]:
    """Convolve ``x`` (batch, channels, frames) with the past in front and no future."""
    depthwise = groups == len(weight) == x.shape[1]
    if operators.exporting() and depthwise and bias is not None:
        y, tail = operators.causal_conv(x.transpose(1, 2), weight, bias, state.tail.transpose(1, 2))
        return y.transpose(1, 2), ConvState(tail.transpose(1, 2))
    x = torch.cat([state.tail.to(x.dtype), x], dim=-1)
    keep = state.tail.shape[-1]
    # narrow(), not x[..., -keep:]: with kernel 1 that slice would keep everything
    tail = x.narrow(-1, x.shape[-1] - keep, keep).to(state.tail.dtype, copy=True)
    if depthwise and x.shape[-1] - keep <= FEW_FRAMES:
        y = convolve_few(x, weight.squeeze(1))
        return (y if bias is None else y + bias.unsqueeze(-1)), ConvState(tail)
    return F.conv1d(x, weight, bias, groups=groups), ConvState(tail)


def convolve_few(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve (batch, channels, kernel - 1 + frames) with (channels, kernel), channel by channel.

    What takes a convolution's time at a few frames isn't the sums.
    """
    kernel = weight.shape[-1]
    if x.shape[-1] == kernel:
        return (x * weight).sum(-1, keepdim=True)
    return (x.unfold(-1, kernel, 1) * weight.unsqueeze(-2)).sum(-1)


def check_batch(x: Tensor, tail: Tensor) -> None:
    """Refuse an input that has another number of rows than the state."""
    if x.shape[0] != tail.shape[0]:
        raise ShapeError(f"x is a batch of {x.shape[0]}, but the state has {tail.shape[0]} rows")


class CausalConv1d(StreamingModule[ConvState]):
    """A convolution over (batch, channels, frames) that sees only the past.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: frames that one output sees, the newest included.
        groups: as in ``torch.nn.Conv1d``.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, groups: int = 1) -> None:
        super().__init__()
        self.in_channels, self.kernel, self.groups = in_channels, kernel, groups
        bound = 1 / math.sqrt(in_channels // groups * kernel)
        shape = (out_channels, in_channels // groups, kernel)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def init_state(self, batch: int) -> ConvState:
        return ConvState(self.weight.new_zeros(batch, self.in_channels, self.kernel - 1))

    def step(self, x: Tensor, state: ConvState) -> tuple[Tensor, ConvState]:
        if x.dim() != 3 or x.shape[1] != self.in_channels or x.shape[2] < 1:
            raise ShapeError(
                f"CausalConv1d takes (batch, {self.in_channels}, frames >= 1), got {(*x.shape,)}"
            )
        check_batch(x, state.tail)
        return causal_conv1d(x, self.weight, self.bias, state, self.groups)


class LookAheadState(NamedTuple):
    """What the look-ahead convolution remembers, and how far each row looks ahead."""

    tail: Tensor  # (batch, d_model, left + right): the newest inputs
    option: Tensor  # (batch,) int64: index into ``right_frames``


class LookAheadConv(StreamingModule[LookAheadState]):
    """A residual depthwise convolution that waits for a bounded piece of future.

    One module serves several look-aheads: each has a kernel of its own, and each row of a batch
    picks one through its state. A row that looks ``right`` frames ahead comes out ``right`` frames
    late: its first ``right`` outputs belong to no input and are to be dropped.

    Args:
        d_model: channels.
        left: past frames that one output sees at the widest look-ahead.
        right_frames: the choices of look-ahead, in frames.
    """

    def __init__(self, d_model: int, left: int, right_frames: tuple[int, ...]) -> None:
        super().__init__()
        self.d_model, self.right_frames = d_model, right_frames
        self.taps = left + max(right_frames) + 1
        bound = 1 / math.sqrt(self.taps)
        shape = (len(right_frames), d_model, self.taps)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        delay = torch.zeros(len(right_frames), 1, self.taps)
        for option, right in enumerate(right_frames):
            delay[option, 0, self.taps - 1 - right] = 1.0
        self.register_buffer("delay", delay, persistent=False)
        self.delay: Tensor

    def init_state(self, batch: int, right: int | None = None) -> LookAheadState:
        """Return the state of ``batch`` rows that look ``right`` frames ahead (default: most)."""
        right = max(self.right_frames) if right is None else right
        if right not in self.right_frames:
            raise ShapeError(f"look-ahead of {right} frames, but there are {self.right_frames}")
        option = torch.full((batch,), self.right_frames.index(right), device=self.weight.device)
        tail = self.weight.new_zeros(batch, self.d_model, self.taps - 1)
        return LookAheadState(tail, option)

    def step(self, x: Tensor, state: LookAheadState) -> tuple[Tensor, LookAheadState]:
        """Advance; ``x`` and the (late) result are (batch, frames, d_model).

        Raises:
            ShapeError: no frames, another width, or another batch size than ``state``.
        """
        if x.dim() != 3 or x.shape[1] < 1 or x.shape[2] != self.d_model:
            raise ShapeError(
                f"LookAheadConv takes (batch, frames >= 1, {self.d_model}), got {(*x.shape,)}"
            )
        check_batch(x, state.tail)
        batch, frames, width = x.shape
        rows = torch.cat([state.tail.to(x.dtype), x.transpose(1, 2)], dim=-1)
        tail = rows.narrow(-1, frames, self.taps - 1).to(state.tail.dtype, copy=True)
        # every row has its own kernel: fold the batch into the channels of a depthwise convolution
        kernel = (self.weight + self.delay).to(x.dtype)[state.option]
        if frames == 1:
            y = (rows * kernel).sum(-1)
            return y.unsqueeze(1), LookAheadState(tail, state.option)
        kernel = kernel.reshape(-1, 1, self.taps)
        y = F.conv1d(rows.reshape(1, batch * width, -1), kernel, groups=batch * width)
        return y.view(batch, width, frames).transpose(1, 2), LookAheadState(tail, state.option)
