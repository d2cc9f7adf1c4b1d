"""Triton: the sum over all CTC paths of a row, weighted by a grammar of labels, and its gradient.

A row is a program: it walks over the frames with all states in registers. A state is the last
label (of a grammar of order 2) or the last two (of order 3), and whether a blank came after them.
Probabilities are scaled to a sum of one at each frame.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from audiossm_kernels.errors import KernelError
from audiossm_kernels.triton_math import bound

__all__ = ["partition"]

# symbols, the blank among them, that the states of an order have room for
BLOCKS = {2: (64, 128), 3: (32,)}


@triton.jit
def pairs_kernel(e, p, repeat, begin, alpha, logz, frames, length, n: tl.constexpr):
    """Sum forward; order 2: p (label, last), alpha (rows, length, 2, n)."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, n)
    table = tl.load(p + i[:, None] * n + i[None, :])
    again = tl.load(repeat + i)
    blank = tl.load(begin + i)
    label = tl.zeros([n], tl.float32)
    total = 0.0
    for t in range(bound(tl.load(frames + row))):
        at = row * length + t
        now = tl.load(e + at * n + i)
        either = blank + label
        new = tl.sum(table * either[None, :], axis=1)
        label = now * (new + label - again * label)
        blank = tl.load(e + at * n) * either
        scale = tl.sum(label + blank)
        label = label / scale
        blank = blank / scale
        total += tl.log(scale)
        tl.store(alpha + at * 2 * n + i, blank)
        tl.store(alpha + (at * 2 + 1) * n + i, label)
    tl.store(logz + row, total)


@triton.jit
def pairs_back_kernel(e, p, repeat, alpha, gamma, frames, length, n: tl.constexpr):
    """Share each frame out among its symbols: gamma (rows, length, n); order 2."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, n)
    table = tl.load(p + i[:, None] * n + i[None, :])  # (label, last)
    again = tl.load(repeat + i)
    blank = tl.full([n], 1.0, tl.float32)
    label = tl.full([n], 1.0, tl.float32)
    last = tl.load(frames + row) - 1
    for back in range(bound(last + 1)):
        at = row * length + last - back
        shares = tl.load(alpha + (at * 2 + 1) * n + i) * label
        quiet = tl.sum(tl.load(alpha + at * 2 * n + i) * blank)
        whole = tl.sum(shares) + quiet
        tl.store(gamma + at * n + i, tl.where(i == 0, quiet, shares) / whole)
        new = tl.load(e + at * n + i) * label
        blank = tl.load(e + at * n) * blank + tl.sum(table * new[:, None], axis=0)
        label = blank + new - again * new
        scale = tl.max(blank)
        blank = blank / scale
        label = label / scale


@triton.jit
def triples_kernel(e, p, repeat, begin, alpha, logz, frames, length, n: tl.constexpr):
    """Sum forward; order 3: p (last, label, before), alpha (rows, length, 2, last, before)."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, n)
    square = i[:, None] * n + i[None, :]
    table = tl.load(p + i[:, None, None] * n * n + i[None, :, None] * n + i[None, None, :])
    again = tl.load(repeat + square)  # (last, before): the same label once more
    blank = tl.load(begin + square)
    label = tl.zeros([n, n], tl.float32)
    same = i[:, None] == i[None, :]
    total = 0.0
    for t in range(bound(tl.load(frames + row))):
        at = row * length + t
        now = tl.load(e + at * n + i)
        either = blank + label
        new = tl.sum(table * either[:, None, :], axis=2)  # (last, label)
        new = new - tl.where(same, tl.sum(again * label, axis=1)[:, None], 0.0)
        label = now[:, None] * (tl.trans(new) + label)
        blank = tl.load(e + at * n) * either
        scale = tl.sum(tl.sum(label + blank, axis=1), axis=0)
        label = label / scale
        blank = blank / scale
        total += tl.log(scale)
        tl.store(alpha + at * 2 * n * n + square, blank)
        tl.store(alpha + (at * 2 + 1) * n * n + square, label)
    tl.store(logz + row, total)


@triton.jit
def triples_back_kernel(e, p, repeat, alpha, gamma, frames, length, n: tl.constexpr):
    """Share each frame out among its symbols: gamma (rows, length, n); order 3."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, n)
    square = i[:, None] * n + i[None, :]
    # (last, before, label)
    table = tl.load(p + i[:, None, None] * n * n + i[None, :, None] + i[None, None, :] * n)
    again = tl.load(repeat + square)
    same = i[:, None] == i[None, :]
    blank = tl.full([n, n], 1.0, tl.float32)
    label = tl.full([n, n], 1.0, tl.float32)
    last = tl.load(frames + row) - 1
    for back in range(bound(last + 1)):
        at = row * length + last - back
        shares = tl.sum(tl.load(alpha + (at * 2 + 1) * n * n + square) * label, axis=1)
        quiet = tl.sum(tl.sum(tl.load(alpha + at * 2 * n * n + square) * blank, axis=1), axis=0)
        whole = tl.sum(shares, axis=0) + quiet
        tl.store(gamma + at * n + i, tl.where(i == 0, quiet, shares) / whole)
        new = tl.load(e + at * n + i)[:, None] * label  # (label, last)
        diagonal = tl.sum(tl.where(same, new, 0.0), axis=1)
        found = tl.sum(table * tl.trans(new)[:, None, :], axis=2)  # (last, before)
        blank = tl.load(e + at * n) * blank + found
        label = blank + new - again * diagonal[:, None]
        scale = tl.max(tl.max(blank, axis=1), axis=0)
        blank = blank / scale
        label = label / scale


def partition(
    log_probs: Tensor, frames: Tensor, table: Tensor, begin: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the logarithm of each row's sum (rows,), and its gradient, as ``log_probs``.

    Args:
        log_probs: (rows, frames, symbols) float32 on a CUDA device; symbol 0 is the blank.
        frames: (rows,) valid frames, on the device.
        table: probabilities of the next label: (last, label), or (before, last, label).
        begin: probabilities of the state before the first frame: (last,) or (before, last).

    Raises:
        KernelError: more symbols than 128, or 32 where the table is of three labels in a row.
    """
    order = table.dim()
    rows, length, symbols = log_probs.shape
    room = [n for n in BLOCKS[order] if n >= symbols]
    if not room:
        most = BLOCKS[order][-1]
        raise KernelError(f"{symbols} symbols: a grammar of order {order} has room for {most}")
    n = room[0]
    spare = n - symbols
    e = torch.nn.functional.pad(log_probs.detach().float().exp(), (0, spare))
    table = torch.nn.functional.pad(table.float(), (0, spare) * order)
    begin = torch.nn.functional.pad(begin.float(), (0, spare) * (order - 1))
    if order == 2:
        forward, back, warps, width = pairs_kernel, pairs_back_kernel, n // 16, n
        repeat = table.diagonal().contiguous()
        table = table.t().contiguous()
    else:
        forward, back, warps, width = triples_kernel, triples_back_kernel, 16, n * n
        repeat = table.diagonal(dim1=1, dim2=2).t().contiguous()  # (last, before)
        table, begin = table.permute(1, 2, 0).contiguous(), begin.t().contiguous()
    alpha = e.new_empty(rows, length, 2, width)
    gamma, logz = torch.zeros_like(e), e.new_zeros(rows)
    frames = frames.to(device=e.device, dtype=torch.int32)
    forward[(rows,)](e, table, repeat, begin, alpha, logz, frames, length, n, num_warps=warps)
    back[(rows,)](e, table, repeat, alpha, gamma, frames, length, n, num_warps=warps)
    return logz, gamma[:, :, :symbols]
