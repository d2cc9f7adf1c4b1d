"""What holds for every test: fixed seeds, one thread, and uninitialised memory that shows."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed() -> Iterator[None]:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield


@pytest.fixture(autouse=True)
def empty_memory_is_nan() -> Iterator[None]:
    """Let ``torch.empty`` return NaN, so that reading what nobody wrote can't go unseen."""
    if torch.cuda.is_available():  # some CUDA operations have no deterministic form
        yield
        return
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
