"""A graph as a pure function of a state that is a value, for states that are small."""

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from audiossm.graphs.session import GraphFolder
from audiossm.nn import map_state, named_tensors, turn_tails

__all__ = ["run_once"]

S = TypeVar("S")


def run_once(graphs: GraphFolder[S], x: Tensor, state: S) -> tuple[tuple[Tensor, ...], S]:
    """Advance one stream by one frame ``x``, and leave ``state`` as it was.

    ``BoundState`` copies no state, but has to be bound first.

    Raises:
        ModelError: there is no graph of one frame, or it is another network's.
    """
    step, state = graphs.step, turn_tails(state)
    names = [name for name, _ in named_tensors(state)]
    feeds = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in named_tensors(state)}
    outputs = [name for name, _ in step.outputs] + [f"new.{name}" for name in names]
    found = graphs.load(1).run(outputs, feeds | {"x": x.numpy()})
    arrays = iter(found[len(step.outputs) :])
    state = turn_tails(map_state(lambda _: torch.from_numpy(next(arrays)), state))
    return tuple(torch.from_numpy(array) for array in found[: len(step.outputs)]), state
