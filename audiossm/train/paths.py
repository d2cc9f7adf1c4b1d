"""The likeliest ways through chains of states, many chains at once, on any device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiossm.errors import ShapeError

__all__ = ["Chain", "find_paths", "spell_ctc"]

NEVER = -1e30


@dataclass(frozen=True)
class Chain:
    """States that a way goes through in order, each for a frame or more.

    Attributes:
        symbols: of each state, columns of the log-probabilities.
        loops: whether a state may last for more than a frame.
        optional: whether a state may be left out; two neighbours never are.
    """

    symbols: Sequence[int]
    loops: Sequence[bool]
    optional: Sequence[bool]

    @property
    def least_frames(self) -> int:
        """Frames without which there is no way."""
        return len(self.symbols) - sum(self.optional)


def spell_ctc(labels: Sequence[int]) -> Chain:
    """Return the chain of labels, from 1, with CTC's blanks, 0, around them."""
    symbols, optional = [0], [True]
    for label, following in zip(labels, [*labels[1:], 0], strict=True):
        symbols += [label, 0]
        optional += [False, label != following]
    return Chain(symbols, [True] * len(symbols), optional)


@torch.no_grad()
def find_paths(
    log_probs: Tensor, lengths: Sequence[int], chains: Sequence[Chain]
) -> tuple[list[NDArray[np.int64]], list[float]]:
    """Find each row's likeliest way (Viterbi).

    Args:
        log_probs: (rows, frames, symbols); any numbers that are to be added up.
        lengths: frames of each row that count.
        chains: one for each row.

    Returns:
        the state in each frame, (lengths[row],) int64, for each row; and the sums.

    Raises:
        ShapeError: a row is shorter than its chain.
    """
    for length, chain in zip(lengths, chains, strict=True):
        if length < chain.least_frames:
            raise ShapeError(
                f"a chain that takes {chain.least_frames} frames doesn't fit into {length}"
            )
    rows, frames, _ = log_probs.shape
    states = max(len(chain.symbols) for chain in chains)
    symbols = np.zeros((rows, states), np.int64)
    costs = np.full((3, rows, states), NEVER, np.float32)  # of going 0, 1 and 2 states ahead
    ends = np.full((rows, states), NEVER, np.float32)
    starts = np.full((rows, states), NEVER, np.float32)
    for row, chain in enumerate(chains):
        size = len(chain.symbols)
        optional = np.array(chain.optional)
        symbols[row, :size] = chain.symbols
        costs[0, row, :size][np.array(chain.loops)] = 0
        costs[1, row, 1:size] = 0
        costs[2, row, 2:size][optional[1:-1]] = 0
        starts[row, : 1 + optional[0]] = 0
        ends[row, size - 1 - optional[-1] : size] = 0
    device = log_probs.device
    stay, step, jump = torch.from_numpy(costs).to(device)
    columns = torch.from_numpy(symbols).to(device)
    counts = torch.tensor(lengths, device=device).unsqueeze(1)
    moves = torch.zeros(frames, rows, states, dtype=torch.uint8, device=device)
    score = torch.from_numpy(starts).to(device) + log_probs[:, 0].gather(1, columns)
    padded = score.new_full((rows, states + 2), NEVER)
    for frame in range(1, frames):
        padded[:, 2:] = score
        ways = (score + stay, padded[:, 1:-1] + step, padded[:, :-2] + jump)
        best, move = torch.stack(ways).max(0)
        goes_on = frame < counts
        score = torch.where(goes_on, best + log_probs[:, frame].gather(1, columns), score)
        moves[frame] = move * goes_on
    total, state = (score + torch.from_numpy(ends).to(device)).max(1)
    path = torch.zeros(frames, rows, dtype=torch.int64, device=device)
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state = state - moves[frame].gather(1, state.unsqueeze(1)).squeeze(1)
    found = path.t().cpu().numpy()
    return [found[row, :length] for row, length in enumerate(lengths)], total.tolist()
