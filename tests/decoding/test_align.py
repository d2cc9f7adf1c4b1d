"""Forced alignment: the best path through the whole lattice, in flat memory."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.decoding import LabelSpans, align, align_labels
from audiossm.errors import AlignmentError, ShapeError


def make_log_probs(num_frames: int, num_symbols: int, seed: int, sharpness: float = 1.0):
    logits = np.random.default_rng(seed).normal(size=(num_frames, num_symbols)) * sharpness
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits.astype(np.float32)


def collapse(path: tuple[int, ...]) -> list[int]:
    return [symbol for symbol, _ in itertools.groupby(path) if symbol]


def find_best_path(log_probs: np.ndarray, ids: list[int]) -> tuple[float, tuple[int, ...]] | None:
    """Try every path there is."""
    frames, symbols = log_probs.shape
    scored = [
        (sum(float(log_probs[t, s]) for t, s in enumerate(path)), path)
        for path in itertools.product(range(symbols), repeat=frames)
        if collapse(path) == ids
    ]
    return max(scored, default=None)


def to_path(spans: LabelSpans, ids: list[int], num_frames: int) -> tuple[int, ...]:
    path = [0] * num_frames
    for first, last, label in zip(spans.first, spans.last, ids, strict=True):
        path[first : last + 1] = [label] * (last - first + 1)
    return tuple(path)


@settings(max_examples=200, deadline=None)
@given(
    num_frames=st.integers(1, 7),
    ids=st.lists(st.integers(1, 2), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
    block=st.integers(1, 8),
)
def test_the_path_is_the_best_of_all(num_frames, ids, seed, block):
    log_probs = make_log_probs(num_frames, 3, seed, sharpness=2.0)
    expected = find_best_path(log_probs, ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(align, "BLOCK_FRAMES", block)
        if expected is None:
            with pytest.raises(AlignmentError, match="too short"):
                align_labels(log_probs, np.array(ids))
            return
        spans = align_labels(log_probs, np.array(ids))
    total, path = expected
    assert to_path(spans, ids, num_frames) == path
    assert spans.total == pytest.approx(total, abs=1e-5)
    for first, last, label, score in zip(spans.first, spans.last, ids, spans.scores, strict=True):
        assert score == pytest.approx(log_probs[first : last + 1, label].mean(), abs=1e-6)


@pytest.mark.parametrize("block", [1, 7, 64, 4096])
def test_a_long_path_does_not_depend_on_the_blocks(block, monkeypatch):
    ids = np.random.default_rng(1).integers(1, 5, 60)
    log_probs = make_log_probs(400, 5, 2)
    expected = align_labels(log_probs, ids)
    monkeypatch.setattr(align, "BLOCK_FRAMES", block)
    found = align_labels(log_probs, ids)
    assert found.total == pytest.approx(expected.total, abs=1e-3)
    assert np.array_equal(found.first, expected.first)
    assert np.array_equal(found.last, expected.last)


def test_spikes_are_found_where_they_are():
    log_probs = np.full((12, 3), -9.0, np.float32)
    log_probs[:, 0] = -0.1
    for frame, label in ((3, 1), (5, 1), (6, 2), (7, 2)):
        log_probs[frame] = -9.0
        log_probs[frame, label] = -0.2
    spans = align_labels(log_probs, np.array([1, 1, 2]))
    assert spans.first.tolist() == [3, 5, 6]
    assert spans.last.tolist() == [3, 5, 7]
    assert spans.scores == pytest.approx([-0.2, -0.2, -0.2])
    assert spans.total == pytest.approx(8 * -0.1 + 4 * -0.2, abs=1e-5)


@pytest.mark.parametrize(
    ("num_frames", "ids", "needed"), [(2, [1, 2, 1], 3), (2, [1, 1], 3), (0, [1], 1)]
)
def test_more_labels_than_frames_are_refused(num_frames, ids, needed):
    with pytest.raises(AlignmentError, match=rf"{num_frames} frames, .* need {needed}"):
        align_labels(make_log_probs(num_frames, 3, 0), np.array(ids))


def test_a_text_of_probability_zero_is_refused():
    log_probs = make_log_probs(9, 3, 0)
    log_probs[:, 2] = -np.inf
    with pytest.raises(AlignmentError, match="probability 0"):
        align_labels(log_probs, np.array([1, 2]))
    assert len(align_labels(log_probs, np.array([1])).first) == 1
    log_probs[4] = -np.inf
    with pytest.raises(AlignmentError, match="probability 0"):
        align_labels(log_probs, np.array([1]))


@pytest.mark.parametrize("ids", [[], [0], [1, 3], [-1]])
def test_ids_that_are_no_labels_are_refused(ids):
    with pytest.raises(ShapeError):
        align_labels(make_log_probs(5, 3, 0), np.array(ids, np.int64))


def test_what_memory_is_not_granted_for_is_refused(monkeypatch):
    monkeypatch.setattr(align, "MAX_BYTES", 1000)
    with pytest.raises(AlignmentError, match="cut the recording and its text at a pause"):
        align_labels(make_log_probs(500, 3, 0), np.ones(200, np.int64))


def test_memory_is_a_fraction_of_the_lattice():
    num_frames, ids = 20000, np.random.default_rng(0).integers(1, 29, 3000)
    log_probs = make_log_probs(num_frames, 29, 0)
    tracemalloc.start()
    align_labels(log_probs, ids)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    lattice = 2 * num_frames * len(ids)  # one byte for each state and frame
    assert peak < lattice / 6, f"{peak / 1e6:.0f} MB of {lattice / 1e6:.0f}"
