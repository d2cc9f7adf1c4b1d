"""AUDIOSSM_KERNELS says which form "auto" stands for; nothing is launched inside transforms."""

import pytest
import torch

from audiossm_kernels.choice import VARIABLE, exact_too, transformed, triton_wanted
from audiossm_kernels.errors import KernelError


@pytest.mark.parametrize(
    ("value", "wanted", "exact"),
    [(None, True, False), ("auto", True, False), ("torch", False, False), ("triton", True, True)],
)
def test_the_variable_chooses(monkeypatch, value, wanted, exact):
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    assert (triton_wanted(), exact_too()) == (wanted, exact)


def test_another_value_is_refused_with_those_there_are(monkeypatch):
    monkeypatch.setenv(VARIABLE, "cuda")
    with pytest.raises(KernelError, match="is 'cuda', must be 'auto', 'torch' or 'triton'"):
        triton_wanted()


def test_transforms_are_noticed():
    seen = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(transformed())
        return x

    torch.vmap(look)(torch.zeros(2))
    assert seen == [True]
    assert not transformed()
