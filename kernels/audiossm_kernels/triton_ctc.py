"""Triton: CTC's loss of rows of labels, and what each frame's symbols have a share in it.

Connectionist temporal classification (Graves et al., 2006). A row has two programs, which walk
over its frames with all states in registers, one forward and one backward: read backward, the
labels too, it is the same sum. A state is a place in the row's labels: at its label, or at the
blank before it. Logarithms are kept below a maximum of zero at each frame, and all sums have one
order: two equal calls are alike to the last bit, and nothing waits for the device.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from audiossm_kernels.errors import KernelError
from audiossm_kernels.triton_math import bound

__all__ = ["MOST_LABELS", "ctc"]

MOST_LABELS = 2047  # of a row
NEVER = tl.constexpr(-1e30)  # the logarithm of no probability; an infinite one would break sums
SYMBOLS = 32  # that a program shares a frame out among at a time


@triton.jit
def add_logs(a, b):
    """Return the logarithm of the sum of two numbers that are given by theirs."""
    high = tl.maximum(a, b)
    return high + tl.log(1 + tl.exp(tl.minimum(a, b) - high))


# "most" changes from batch to batch: each that 16 divides would be compiled for by itself
@triton.jit(do_not_specialize=["most"])
def walk_kernel(e, labels, counts, frames, states, cost, length, symbols, most, n: tl.constexpr):
    """Walk over a row: states (2, rows, length, 2, n) of each frame, it included; cost (rows,)."""
    row, back = tl.program_id(0).to(tl.int64), tl.program_id(1)
    rows = tl.num_programs(0)
    j = tl.arange(0, n)
    count = tl.load(counts + row)
    here = j < count
    place = tl.where(back == 1, count - 1 - j, j)
    label = tl.load(labels + row * most + place, here, 0)
    before = tl.where(back == 1, place + 1, place - 1)
    before = tl.load(labels + row * most + before, here & (j > 0), 0)
    skips = here & (j > 0) & (label != before)  # the same label once more needs a blank between
    left = tl.maximum(j - 1, 0)
    last = tl.load(frames + row) - 1
    at_label = tl.full([n], NEVER, tl.float32)
    at_blank = tl.where(j == 0, 0.0, NEVER)
    total = 0.0
    first = row * length + tl.where(back == 1, last, 0)
    now = tl.load(e + first * symbols + label, here & (last >= 0), NEVER)
    quiet = tl.load(e + first * symbols, last >= 0, 0.0)
    for t in range(bound(last + 1)):
        at = row * length + tl.where(back == 1, last - t, t)
        # what the next frame needs is fetched while this one's is added
        later = tl.where(t == last, at, tl.where(back == 1, at - 1, at + 1))
        next_now = tl.load(e + later * symbols + label, here, NEVER)
        next_quiet = tl.load(e + later * symbols)
        come = tl.where(j > 0, tl.gather(at_label, left, 0), NEVER)
        new = add_logs(add_logs(at_label, at_blank), tl.where(skips, come, NEVER))
        at_blank = tl.maximum(quiet + add_logs(at_blank, come), NEVER)
        at_label = tl.maximum(now + new, NEVER)
        high = tl.max(tl.maximum(at_label, at_blank))
        high = tl.where(high > NEVER, high, 0.0)
        at_label = tl.where(at_label > NEVER, at_label - high, NEVER)
        at_blank = tl.where(at_blank > NEVER, at_blank - high, NEVER)
        total += high
        kept = states + (tl.where(back == 1, rows * length, 0) + at) * 2 * n + j
        tl.store(kept, at_blank)
        tl.store(kept + n, at_label)
        now = next_now
        quiet = next_quiet
    ended = tl.max(tl.where(j == count, at_blank, NEVER))
    ended = add_logs(ended, tl.max(tl.where(j == count - 1, at_label, NEVER)))
    if back == 0:
        tl.store(cost + row, tl.where(ended > 0.5 * NEVER, -(total + ended), float("inf")))


@triton.jit(do_not_specialize=["most"])
def share_kernel(
    e, labels, counts, frames, states, cost, gamma, length, symbols, most,
    n: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Share a frame out among its symbols: gamma (rows, length, symbols), zeros after a row."""
    row, t = tl.program_id(0).to(tl.int64), tl.program_id(1)
    rows = tl.num_programs(0)
    j, k = tl.arange(0, n), tl.arange(0, block)
    count = tl.load(counts + row)
    at = row * length + t
    possible = (t < tl.load(frames + row)) & (tl.load(cost + row) < float("inf"))
    here, quiet = possible & (j < count), possible & (j <= count)
    label = tl.load(labels + row * most + j, here, 0)
    kept = states + at * 2 * n
    kept_back = states + (rows * length + at) * 2 * n
    # backward, place j is the one that has as many behind it
    shares = tl.load(kept + n + j, here, NEVER)
    shares += tl.load(kept_back + n + count - 1 - j, here, NEVER)
    shares = tl.where(here, shares - tl.load(e + at * symbols + label, here, 0.0), NEVER)
    blanks = tl.load(kept + j, quiet, NEVER) + tl.load(kept_back + count - j, quiet, NEVER)
    blanks = tl.where(quiet, blanks - tl.load(e + at * symbols), NEVER)
    high = tl.max(tl.maximum(shares, blanks))
    shares = tl.where(here, tl.exp(shares - high), 0.0)
    blank = tl.sum(tl.where(quiet, tl.exp(blanks - high), 0.0))
    whole = tl.where(possible, blank + tl.sum(shares), 1.0)
    for start in range(0, bound(symbols), block):
        symbol = start + k
        same = label[None, :] == symbol[:, None]
        found = tl.sum(tl.where(same, shares[None, :], 0.0), axis=1)
        found = tl.where(symbol == 0, blank, found) / whole
        tl.store(gamma + at * symbols + symbol, found, symbol < symbols)


def ctc(log_probs: Tensor, frames: Tensor, labels: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's loss (rows,), and what each symbol has of each frame, as ``log_probs``.

    The gradient of a row's loss with respect to its logarithms is minus the second. Where no path
    has any probability the loss is infinite, and the second is zero, as after a row's last frame.

    Args:
        log_probs: (rows, frames, symbols) float32 on a CUDA device; symbol 0 is the blank.
        frames: (rows,) valid frames, int32 on the device.
        labels: (rows, most) int32 on the device, none of which is the blank where it counts.
        counts: (rows,) labels of each row, int32 on the device.

    Raises:
        KernelError: rows may have more labels than ``MOST_LABELS``.
    """
    (rows, length, symbols), most = log_probs.shape, labels.shape[1]
    if most > MOST_LABELS:
        raise KernelError(f"{most} labels: a row has room for {MOST_LABELS}")
    n = max(triton.next_power_of_2(most + 1), 128)
    e = log_probs.detach().contiguous()
    states = e.new_empty(2, rows, length, 2, n)
    gamma, cost = torch.empty_like(e), e.new_empty(rows)
    given = (e, labels.contiguous(), counts, frames, states, cost)
    sizes = (length, symbols, most, n)
    walk_kernel[(rows, 2)](*given, *sizes, num_warps=n // 128 if n <= 1024 else 8)
    share_kernel[(rows, length)](*given, gamma, *sizes, SYMBOLS, num_warps=4)
    return cost, gamma
