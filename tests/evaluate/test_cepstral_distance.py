"""Mel-cepstral distance: envelopes count; loudness, length and pauses don't."""

import numpy as np
import pytest
import torch

from audiossm.errors import ShapeError
from audiossm.evaluate.cepstral_distance import cepstral_distance, warp
from tiny_model import read_speech


@pytest.fixture(scope="module")
def river():
    return torch.from_numpy(read_speech("river").copy())


def test_a_recording_is_no_distance_from_itself(river):
    assert cepstral_distance(river, river, 16000) == pytest.approx(0.0, abs=1e-4)


def test_loudness_and_pauses_do_not_count(river):
    later = torch.cat([torch.zeros(8000), 0.5 * river])
    assert cepstral_distance(river, later, 16000) < 0.5


def test_another_sentence_is_further_than_the_same_one_at_another_speed(river):
    faster = torch.nn.functional.interpolate(river.view(1, 1, -1), scale_factor=0.97)[0, 0]
    other = torch.from_numpy(read_speech("bread").copy())
    assert cepstral_distance(river, faster, 16000) < 0.7 * cepstral_distance(river, other, 16000)


def test_the_cheapest_path_is_found():
    """Beside all paths there are."""
    distances = np.random.default_rng(2).random((4, 3))

    def walk(i, j):
        if (i, j) == (0, 0):
            yield [(0, 0)]
        for step in ((1, 0), (0, 1), (1, 1)):
            a, b = i - step[0], j - step[1]
            if a >= 0 and b >= 0:
                yield from ([*path, (i, j)] for path in walk(a, b))

    paths = [[distances[cell] for cell in path] for path in walk(3, 2)]
    assert warp(distances) == pytest.approx(np.mean(min(paths, key=sum)))
    ones = np.ones((5, 7))
    assert warp(ones) == warp(ones.T) == 1


def test_silence_is_refused(river):
    for signal in (torch.zeros(16000), torch.zeros(0), river.unsqueeze(0)):
        with pytest.raises(ShapeError):
            cepstral_distance(signal, river, 16000)
