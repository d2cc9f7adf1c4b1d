"""The one helper that holds every streaming thing to its contract."""

import random
from typing import Any

import torch
from torch import Tensor


def random_split(length: int, rng: random.Random, multiple: int = 1) -> list[int]:
    """Split ``length`` into random pieces, each a multiple of ``multiple``: 7 -> [3, 1, 1, 2]."""
    assert length % multiple == 0
    sizes, left = [], length // multiple
    while left:
        size = rng.randint(1, rng.choice([1, 2, left]) if left > 1 else 1)
        size = min(size, left)
        sizes.append(size * multiple)
        left -= size
    return sizes


def flat_tensors(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    return [tensor for part in state for tensor in flat_tensors(part)]


def assert_streaming_equals_offline(
    layer: Any,
    x: Tensor,
    *,
    time: int = -1,
    out_time: int | None = None,
    multiple: int = 1,
    trials: int = 20,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> None:
    """Any split of ``x`` along ``time`` gives what ``layer(x)`` gives; states are left alone.

    ``layer`` has ``init_state(batch)``, ``step(x, state) -> (y, state)`` and is callable; ``y`` may
    be empty along ``out_time`` for a short piece (a resampler, a frame buffer).
    """
    out_time = time if out_time is None else out_time
    whole = layer(x)
    for trial in range(trials):
        sizes = random_split(x.shape[time], random.Random(trial), multiple)
        if trial == 0:
            sizes = [multiple] * (x.shape[time] // multiple)
        state, pieces = layer.init_state(x.shape[0]), []
        for chunk in x.split(sizes, dim=time):
            before = [tensor.clone() for tensor in flat_tensors(state)]
            y, new_state = layer.step(chunk, state)
            for kept, tensor in zip(before, flat_tensors(state), strict=True):
                assert torch.equal(kept, tensor), f"step changed its input state ({sizes})"
            state = new_state
            pieces.append(y)
        torch.testing.assert_close(
            torch.cat(pieces, dim=out_time),
            whole,
            rtol=rtol,
            atol=atol,
            msg=lambda text, sizes=sizes: f"differs for chunks {sizes}: {text}",
        )
