"""A random writer, small enough for tests, whose choices change with the words."""

from functools import cache

import torch

from audiossm.models import LoadedWriter, Writer, WriterConfig


@cache
def make_writer(seed: int = 1) -> LoadedWriter:
    """A writer with the weights of ``seed``; what it writes is nonsense, but varied."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Writer(WriterConfig.tiny())
    with torch.no_grad():
        network.head.weight.mul_(10.0)
    return LoadedWriter(network, name="tiny-writer", model_hash=f"{seed:032x}")
