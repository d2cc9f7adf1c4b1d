"""A stream's step by a program, and its state in one array that the program overwrites."""

from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiossm.loops.program import Program, Slot, run
from audiossm.loops.tables import lay_out
from audiossm.nn import map_state, named_tensors, turn_tails

__all__ = ["Loop", "LoopState", "Output", "name_parts"]

S = TypeVar("S")


class Output(NamedTuple):
    """What a program leaves in its memory after a frame."""

    slot: Slot
    shape: tuple[int, ...]  # of a frame
    axis: int  # of frames, behind that of the batch
    dtype: type


class Loop(Generic[S]):
    """A network's step, one frame at a time. Threads may share it.

    Args:
        program: of the step.
        x: where a frame goes in.
        outputs: what comes out.
    """

    def __init__(self, program: Program, x: Slot, *outputs: Output) -> None:
        self.tables = program.writer.finish()
        self.lines = np.array(program.lines, np.int64)
        self.size, self.x, self.outputs = program.size, x, outputs
        # compiled, or read from the disk, now: a stream's first frame wouldn't wait so long
        nothing = np.zeros(0, np.float32)
        run(*self.tables, self.lines[:0], nothing, np.zeros(1, np.int64), nothing)


class LoopState(Generic[S]):
    """The state of one stream, or of several side by side: their rows can't touch each other.

    Args:
        loop: of the network.
        state: where the stream stands; it is left as it is.
    """

    def __init__(self, loop: Loop[S], state: S) -> None:
        state = turn_tails(state)
        self.loop, self.like = loop, state
        parts = [tensor.float().numpy() for _, tensor in named_tensors(state)]
        self.batch = len(parts[0])
        rows = [array.reshape(self.batch, -1) for array in parts]
        self.places = np.cumsum([0, *(part.shape[1] for part in rows)], dtype=np.int64)
        self.states = list(np.concatenate(rows, axis=1))
        self.memory = lay_out([np.zeros(loop.size, np.float32)], np.float32)
        self.x = self.memory[loop.x.at : loop.x.end]
        self.outputs = [self.memory[slot.at : slot.end] for slot, _, _, _ in loop.outputs]
        self.fixed = (*loop.tables, loop.lines)

    def read(self) -> S:
        """Return the state as a value of its own: who goes on from it has the same bits."""
        parts = iter(np.split(np.stack(self.states), self.places[1:-1], axis=1))
        state = map_state(
            lambda like: torch.from_numpy(next(parts).copy()).view(like.shape).to(like.dtype),
            self.like,
        )
        return turn_tails(state)

    def step(self, x: Tensor) -> tuple[Tensor, ...]:
        """Advance by ``x`` (batch, frames * unit, ...), frame by frame."""
        frames = x.numpy().reshape(self.batch, -1, len(self.x))
        if self.batch == frames.shape[1] == 1:  # a live stream's usual step
            arrays = self._run(self.states[0], frames[0, 0])
            return tuple(torch.from_numpy(array[np.newaxis]) for array in arrays)
        pieces: list[list[NDArray[Any]]] = []
        for f in range(frames.shape[1]):
            rows = [self._run(state, frames[b, f]) for b, state in enumerate(self.states)]
            pieces.append([np.stack(parts) for parts in zip(*rows, strict=True)])
        if len(pieces) == 1:
            return tuple(torch.from_numpy(array) for array in pieces[0])
        return tuple(
            torch.from_numpy(np.concatenate(parts, axis=output.axis + 1))
            for parts, output in zip(zip(*pieces, strict=True), self.loop.outputs, strict=True)
        )

    def _run(self, state: NDArray[np.float32], frame: NDArray[np.float32]) -> list[NDArray[Any]]:
        self.x[:] = frame
        run(*self.fixed, state, self.places, self.memory)
        return [
            memory.astype(output.dtype).reshape(output.shape)
            for memory, output in zip(self.outputs, self.loop.outputs, strict=True)
        ]


def name_parts(state: object) -> list[str]:
    """Return the names of a state's parts, in the order in which a loop has them."""
    return [name for name, _ in named_tensors(state)]
