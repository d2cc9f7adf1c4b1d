"""Random numbers of many streams at once: those that one stream draws."""

import numpy as np
import torch

from audiossm.decoding.philox import draw_rows
from audiossm.decoding.sampling import draw


def test_rows_draw_what_each_stream_draws_alone():
    cases = [(0, 0), (1, 2), (2**63 - 1, 10**12), (7, 2**40 + 3), (123456789012345678, 5)]
    seeds, steps = (torch.tensor(column) for column in zip(*cases, strict=True))
    for kind, count in ((0, 4), (1, 1), (0, 8), (1, 6)):
        found = draw_rows(seeds, kind, steps, count).numpy()
        expected = np.stack([draw(seed, kind, step, count) for seed, step in cases])
        np.testing.assert_array_equal(found, expected)
