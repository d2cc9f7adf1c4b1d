"""A frame buffer: cuts a stream of samples into whole frames."""

from typing import NamedTuple

import torch
from torch import Tensor

from audiossm.errors import ShapeError

__all__ = ["FrameBuffer", "FrameBufferState"]


class FrameBufferState(NamedTuple):
    """The samples that don't fill a frame yet."""

    rest: Tensor  # (batch, frame_size) float32: the waiting samples first, then zeros
    length: Tensor  # (batch,) int64: how many wait, the same in every row


class FrameBuffer:
    """Pass samples on in whole frames; the remainder waits in the state.

    Args:
        frame_size: samples in a frame, >= 1.
    """

    def __init__(self, frame_size: int) -> None:
        if frame_size < 1:
            raise ShapeError(f"frame_size is {frame_size}, but a frame has at least one sample")
        self.frame_size = frame_size

    def init_state(self, batch: int) -> FrameBufferState:
        """Return the state of ``batch`` empty buffers."""
        return FrameBufferState(
            rest=torch.zeros(batch, self.frame_size), length=torch.zeros(batch, dtype=torch.int64)
        )

    def step(self, x: Tensor, state: FrameBufferState) -> tuple[Tensor, FrameBufferState]:
        """Take new samples and give the frames that are whole now.

        Args:
            x: (batch, samples) float32, any number of samples, none included.
            state: what the previous call returned, or ``init_state(batch)``.

        Returns:
            (batch, m * frame_size) float32, m >= 0; and the state after ``x``.

        Raises:
            ShapeError: ``x`` has another shape than (batch, samples), or the rows wait for
                different numbers of samples.
        """
        length = self._read_length(state)
        if x.dim() != 2 or x.shape[0] != state.rest.shape[0]:
            raise ShapeError(
                f"x has shape {tuple(x.shape)}, but expected ({state.rest.shape[0]}, samples)"
            )
        if length == 0 and x.shape[1] % self.frame_size == 0:
            return x.clone(), state  # nothing waits, before or after
        joined = torch.cat([state.rest[:, :length], x], dim=1)
        ready = joined.shape[1] // self.frame_size * self.frame_size
        left = joined.shape[1] - ready
        rest = torch.zeros_like(state.rest)
        rest[:, :left] = joined[:, ready:]
        return joined[:, :ready], FrameBufferState(rest, torch.full_like(state.length, left))

    def finish(self, state: FrameBufferState) -> Tensor:
        """Give the rest of the stream, filled up with zeros to a frame.

        Returns:
            (batch, frame_size) float32, or (batch, 0) when nothing waits.
        """
        return state.rest.clone() if self._read_length(state) else state.rest[:, :0]

    def __call__(self, x: Tensor) -> Tensor:
        """Give the whole frames of ``x`` (batch, samples): one ``step`` from the start."""
        return self.step(x, self.init_state(x.shape[0]))[0]

    def _read_length(self, state: FrameBufferState) -> int:
        lengths: list[int] = state.length.tolist()
        if lengths and min(lengths) != max(lengths):
            raise ShapeError(
                f"the rows of a frame buffer wait with {min(lengths)} to {max(lengths)} samples, "
                "but one call needs them equal: step such streams one by one"
            )
        return lengths[0] if lengths else 0
