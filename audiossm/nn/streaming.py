"""The streaming contract: a layer is a pure step over a state that is a value."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn

__all__ = [
    "StreamingModule",
    "map_state",
    "named_tensors",
    "stack_states",
    "unstack_states",
    "where_state",
]

# A state is a NamedTuple whose fields are tensors (dim 0 is the batch) or states.
S = TypeVar("S")


class StreamingModule(nn.Module, Generic[S]):
    """A layer that gives the same result whole or in pieces.

    A subclass writes ``init_state`` and ``step``; ``forward`` is one ``step`` from the initial
    state, so offline and streaming can't drift apart.
    """

    def init_state(self, batch: int) -> S:
        """Return the state before the first frame of ``batch`` streams."""
        raise NotImplementedError

    def step(self, x: Tensor, state: S) -> tuple[Tensor, S]:
        """Advance by any number of frames >= 1; ``state`` is left as it was."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Run a whole signal: ``step`` from the initial state."""
        return self.step(x, self.init_state(x.shape[0]))[0]


def map_state(function: Callable[..., Tensor], state: S, *others: S) -> S:
    """Apply ``function`` to each tensor of ``state`` (and the same tensor of ``others``)."""
    if isinstance(state, Tensor):
        return cast(S, function(state, *others))
    if isinstance(state, tuple):
        parts = [
            map_state(function, part, *(cast(tuple[S, ...], other)[i] for other in others))
            for i, part in enumerate(state)
        ]
        make = getattr(type(state), "_make", tuple)  # a NamedTuple, or a plain tuple of states
        return cast(S, make(parts))
    raise TypeError(f"a state holds tensors and tuples, not {type(state).__name__}")


def where_state(mask: Tensor, new: S, old: S) -> S:
    """Take ``new`` in the rows where ``mask`` (batch,) is true and ``old`` elsewhere.

    Pause, reset and reuse of a slot in a batch are all this one operation.
    """

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(mask.view(-1, *[1] * (a.dim() - 1)), a, b)

    return map_state(choose, new, old)


def stack_states(states: list[S]) -> S:
    """Join the states of several streams along the batch."""

    def join(*rows: Tensor) -> Tensor:
        return torch.cat(rows)

    return map_state(join, *states)


def unstack_states(state: S, batch: int) -> list[S]:
    """Part a state of ``batch`` streams into states of one, each with memory of its own."""

    def take(index: int) -> S:
        return map_state(lambda tensor: tensor[index : index + 1].clone(), state)

    return [take(index) for index in range(batch)]


def named_tensors(state: object, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Walk a state: ``("blocks.0.ssm", tensor)``, in a fixed order."""
    if isinstance(state, Tensor):
        yield prefix, state
    elif isinstance(state, tuple):
        names = getattr(state, "_fields", range(len(state)))
        for name, part in zip(names, state, strict=True):
            yield from named_tensors(part, f"{prefix}.{name}" if prefix else str(name))
    else:
        raise TypeError(f"a state holds tensors and tuples, not {type(state).__name__}")
