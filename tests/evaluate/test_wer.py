"""Word errors are counted as the definition says, on plain words."""

import sys

import pytest

from audiossm.errors import DependencyError
from audiossm.evaluate.wer import WordErrors, count_word_errors, match_words


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("the cat sat", "the cat sat", WordErrors(0, 0, 0, 3)),
        ("the cat sat", "the dog sat", WordErrors(1, 0, 0, 3)),
        ("the cat sat", "the sat", WordErrors(0, 1, 0, 3)),
        ("the cat sat", "the cat it sat", WordErrors(0, 0, 1, 3)),
        ("the cat sat", "", WordErrors(0, 3, 0, 3)),
        ("", "the cat", WordErrors(0, 0, 2, 0)),
        ("", "", WordErrors(0, 0, 0, 0)),
        ("The CAT's well-read.", "the cat's well read", WordErrors(0, 0, 0, 4)),
    ],
)
def test_errors_are_counted_by_kind(reference, hypothesis, expected):
    assert count_word_errors(reference, hypothesis) == expected


def test_counts_add_up_and_the_rate_is_that_of_the_sum():
    total = WordErrors(1, 0, 0, 10) + WordErrors(0, 2, 1, 2)
    assert total == WordErrors(1, 2, 1, 12)
    assert total.rate == 4 / 12
    assert WordErrors(0, 0, 2, 0).rate == 2.0


@pytest.mark.parametrize(
    ("reference", "hypothesis", "said", "written"),
    [
        ("the cat sat", "The cat, sat.", {0, 1, 2}, {0, 1, 2}),
        ("the cat sat", "a the dog sat", {0, 2}, {1, 3}),
        ("the cat sat", "", set(), set()),
        ("", "the cat", set(), set()),
    ],
)
def test_words_are_matched_in_their_places(reference, hypothesis, said, written):
    assert match_words(reference, hypothesis) == (said, written)


def test_a_missing_jiwer_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(DependencyError, match=r"pip install 'audiossm\[eval\]'"):
        count_word_errors("a", "b")
