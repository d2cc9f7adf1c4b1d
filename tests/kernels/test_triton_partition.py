"""The sum over all paths of CTC against a grammar: by hand, in torch, and in Triton."""

import itertools
import os

import pytest
import torch

from audiossm.train.grammar import Grammar, log_partition

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
ROWS = [[1, 2, 3, 1, 1], [2, 2, 3], [3, 1]]

with_triton = pytest.mark.skipif(
    not INTERPRETED and DEVICE == "cpu", reason="runs in the interpreter's process"
)
cases = pytest.mark.parametrize(
    ("order", "joint"), [(2, ()), (2, (1,)), (3, ()), (3, (1,))], ids=str
)


def sum_by_hand(log_probs: torch.Tensor, grammar: Grammar) -> float:
    """Go through all paths and all beginnings."""
    frames, symbols = log_probs.shape
    order, total = grammar.table.dim(), 0.0
    for path in itertools.product(range(symbols), repeat=frames):
        heard = sum(float(log_probs[t, symbol]) for t, symbol in enumerate(path))
        labels = [k for k, _ in itertools.groupby(path) if k]
        for before in itertools.product(range(symbols), repeat=order - 1):
            chance, context = float(grammar.begin[before]), before
            for label in labels:
                chance *= float(grammar.table[(*context, label)])
                context = (*context, label)[1:]
            total += chance * float(torch.tensor(heard).exp())
    return float(torch.tensor(total).log())


@cases
def test_all_paths_are_summed(order, joint):
    torch.manual_seed(order)
    grammar = Grammar.count(ROWS, joint, 4, order)
    log_probs = torch.randn(2, 5, 4).log_softmax(-1)
    found = log_partition(log_probs, torch.tensor([5, 3]), grammar)
    expected = [sum_by_hand(log_probs[0], grammar), sum_by_hand(log_probs[1, :3], grammar)]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-4)


@cases
def test_probabilities_of_a_grammar_sum_to_one(order, joint):
    grammar = Grammar.count(ROWS, joint, 4, order)
    assert float(grammar.begin.sum()) == pytest.approx(1.0)
    torch.testing.assert_close(grammar.table.sum(-1), torch.ones((4,) * (order - 1)))
    assert float(grammar.table[..., 0].abs().max()) == 0.0


@with_triton
def test_triton_has_room_for_a_hundred_phones_and_tells_of_more():
    from audiossm_kernels.errors import KernelError
    from audiossm_kernels.triton_partition import partition

    torch.manual_seed(0)
    grammar = Grammar.count([list(range(1, 100))], (), 100, 2)
    log_probs = torch.randn(1, 5, 100).log_softmax(-1).requires_grad_()
    frames = torch.tensor([5])
    expected = log_partition(log_probs, frames, grammar)
    expected.sum().backward()
    moved = [x.to(DEVICE) for x in (log_probs.detach(), frames, grammar.table, grammar.begin)]
    found, shares = partition(*moved)
    torch.testing.assert_close(found.cpu(), expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(shares.cpu(), log_probs.grad, rtol=1e-4, atol=1e-5)
    with pytest.raises(KernelError, match="129 symbols: a grammar of order 2 has room for 128"):
        partition(torch.zeros(1, 5, 129), frames, torch.zeros(129, 129), torch.zeros(129))


@with_triton
@cases
def test_triton_has_the_sums_and_gradients_of_torch(order, joint):
    from audiossm_kernels.triton_partition import partition

    torch.manual_seed(order)
    grammar = Grammar.count(ROWS, joint, 4, order)
    log_probs = torch.randn(3, 7, 4).log_softmax(-1).requires_grad_()
    frames = torch.tensor([7, 1, 4])
    expected = log_partition(log_probs, frames, grammar)
    expected.sum().backward()
    moved = [x.to(DEVICE) for x in (log_probs.detach(), frames, grammar.table, grammar.begin)]
    found, shares = partition(*moved)
    torch.testing.assert_close(found.cpu(), expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(shares.cpu(), log_probs.grad, rtol=1e-4, atol=1e-5)
    again = partition(*moved)
    assert torch.equal(again[0], found)
    assert torch.equal(again[1], shares)
