"""Errors of pronunciations, by hand."""

import pytest

from audiossm.evaluate.pronounce import count_edits, score_pronunciations


@pytest.mark.parametrize(
    ("ours", "true", "edits"),
    [("abc", "abc", 0), ("", "abc", 3), ("abc", "", 3), ("axc", "abc", 1), ("bcd", "abc", 2)],
)
def test_edits_are_counted(ours, true, edits):
    assert count_edits(ours, true) == count_edits(true, ours) == edits


def test_stress_counts_on_one_side_only():
    references = {"a": ["h", "ˈoʊ"], "b": ["t", "ˌa", "n"], "c": ["n"]}
    found = {"a": ["h", "oʊ"], "b": ["t", "ˈa"], "c": ["n"], "d": ["x"]}
    score = score_pronunciations(found, references)
    assert (score.stressed.errors, score.stressed.right) == (3, 1)
    assert (score.plain.errors, score.plain.right) == (1, 2)
    assert score.plain.rate == pytest.approx(1 / 6)
    assert score.to_json()["stressed"]["accuracy"] == pytest.approx(1 / 3)
