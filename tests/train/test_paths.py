"""The likeliest ways through chains: against trying all of them."""

from itertools import product

import numpy as np
import pytest
import torch

from audiossm.errors import ShapeError
from audiossm.train.paths import Chain, find_paths, spell_ctc

CHAINS = (
    Chain((0, 1, 2, 0, 2, 0), (True,) * 6, (True, False, False, True, False, True)),
    Chain((1, 1, 2, 2), (False, True, False, True), (False,) * 4),
    spell_ctc([2, 2, 1]),
    Chain((2,), (True,), (False,)),
)


def try_all(scores: np.ndarray, chain: Chain) -> tuple[float, tuple[int, ...]]:
    """Return the best sum over every allowed way through (frames, symbols)."""
    last = len(chain.symbols) - 1

    def allows(here: int, there: int) -> bool:
        if here == there:
            return here < 0 or chain.loops[here]
        return there == here + 1 or (there == here + 2 and chain.optional[here + 1])

    ways = (
        way
        for way in product(range(last + 1), repeat=len(scores))
        # from before the first to behind the last
        if all(map(allows, (-1, *way), (*way, last + 1))) and way[0] >= 0
    )
    return max((sum(scores[t, chain.symbols[s]] for t, s in enumerate(way)), way) for way in ways)


def test_a_way_is_the_best_of_all_ways_whatever_else_is_in_the_batch():
    lengths = [7, 6, 5, 4]
    scores = torch.randn(4, 8, 3)
    paths, totals = find_paths(scores, lengths, CHAINS)
    for row, (length, chain) in enumerate(zip(lengths, CHAINS, strict=True)):
        best, way = try_all(scores[row, :length].numpy(), chain)
        assert totals[row] == pytest.approx(best, abs=1e-5)
        assert paths[row].tolist() == list(way)


def test_a_row_that_is_shorter_than_its_chain_is_refused():
    with pytest.raises(ShapeError, match="takes 4 frames doesn't fit into 3"):
        find_paths(torch.randn(1, 3, 3), [3], [CHAINS[1]])
    assert len(find_paths(torch.randn(1, 4, 3), [4], [CHAINS[1]])[0][0]) == 4
