"""Which label follows which: the competitors that a transcript has to win against."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Grammar", "log_partition"]


@dataclass(frozen=True)
class Grammar:
    """Probabilities of labels after the one or two before them.

    ``table`` is (last, label) or (before, last, label), ``begin`` of what stands before a row:
    (last,) or (before, last); both with a place for the blank, 0, which has no probability.
    """

    table: Tensor
    begin: Tensor

    @staticmethod
    def count(
        rows: Sequence[Sequence[int]], joint: Sequence[int], symbols: int, order: int
    ) -> "Grammar":
        """Count the labels of utterances that follow one another with ``joint`` between.

        A context gets as much from the shorter one as if that had been seen five times.

        Args:
            rows: label ids from 1 of each utterance.
            joint: the ids between two of them.
            symbols: labels and the blank.
            order: 2 or 3 labels in a row.
        """
        tape = np.concatenate([[*joint, *row] for row in rows]).astype(np.int64)
        once = np.bincount(tape, minlength=symbols) + 1.0
        once[0] = 0.0
        table = once / once.sum()
        for length in range(2, order + 1):
            places = [tape[i : len(tape) - length + 1 + i] for i in range(length)]
            counts = np.zeros((symbols,) * length)
            np.add.at(counts, tuple(places), 1.0)
            spare = 5.0
            table = (counts + spare * table) / (counts.sum(-1, keepdims=True) + spare)
        begin = np.zeros((symbols,) * (order - 1))
        if joint:
            begin[(joint[-1],) * (order - 1)] = 1.0
        else:
            seen = counts.sum(-1)
            begin = seen / seen.sum()
        return Grammar(torch.from_numpy(table).float(), torch.from_numpy(begin).float())

    def to(self, device: torch.device) -> "Grammar":
        """Move the tables."""
        return Grammar(self.table.to(device), self.begin.to(device))


def log_partition(log_probs: Tensor, frames: Tensor, grammar: Grammar) -> Tensor:
    """Sum over all paths of CTC, each worth its probability times its labels' by the grammar.

    The denominator of CTC-CRF (arXiv:1904.08045 and, without CTC's blank, of lattice-free MMI).

    Args:
        log_probs: (rows, frames, symbols), the blank is 0.
        frames: (rows,) valid frames.
        grammar: on the same device.

    Returns:
        the logarithms (rows,).
    """
    if log_probs.device.type == "cuda":
        given = (log_probs, frames, grammar.table, grammar.begin)
        result: Tensor = _Partition.apply(*given)  # type: ignore[no-untyped-call]
        return result
    return sum_paths(log_probs, frames, grammar)


class _Partition(torch.autograd.Function):
    @staticmethod
    def forward(ctx, log_probs, frames, table, begin):  # type: ignore[no-untyped-def]
        from audiossm_kernels.triton_partition import partition

        logz, gamma = partition(log_probs, frames, table, begin)
        ctx.save_for_backward(gamma)
        return logz

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (gamma,) = ctx.saved_tensors
        return gamma * grad.view(-1, 1, 1), None, None, None


def sum_paths(log_probs: Tensor, frames: Tensor, grammar: Grammar) -> Tensor:
    """Do what ``log_partition`` does, frame by frame in torch, which knows the gradient."""
    table, begin = grammar.table, grammar.begin
    pairs = table.dim() == 2
    if pairs:  # whatever stands before the last label is one
        table, begin = table.unsqueeze(0), begin.unsqueeze(0)
    again = table.diagonal(dim1=1, dim2=2)  # (before, last): the same label once more
    rows, length, _ = log_probs.shape
    blank = begin.expand(rows, -1, -1)
    label = torch.zeros_like(blank)
    total = log_probs.new_zeros(rows)
    for t in range(length):
        now = log_probs[:, t].exp()
        either = blank + label
        new = torch.einsum("rbl,blq->rlq", either, table)
        new = new - torch.diag_embed((again * label).sum(1))
        if pairs:
            new = new.sum(1, keepdim=True)
        after = now[:, None, :] * (new + label)
        quiet = now[:, :1, None] * either
        scale = (after + quiet).sum((1, 2))
        valid = t < frames.to(scale.device)
        keep = valid.view(-1, 1, 1)
        label = torch.where(keep, after / scale.view(-1, 1, 1), label)
        blank = torch.where(keep, quiet / scale.view(-1, 1, 1), blank)
        total = total + torch.where(valid, scale.log(), 0.0)
    return total
