"""A random sounder, small enough for tests, whose phones change with the letters."""

from functools import cache

import torch

from audiossm.models import LoadedSounder, Sounder, SounderConfig


@cache
def make_sounder(seed: int = 1) -> LoadedSounder:
    """A sounder with the weights of ``seed``; what it says is nonsense, but varied."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Sounder(SounderConfig.tiny())
    with torch.no_grad():
        network.head.weight.mul_(10.0)
    return LoadedSounder(network, name="tiny-sounder", model_hash=f"{seed:032x}")
