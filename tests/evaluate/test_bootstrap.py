"""Intervals cover the rates of other draws, people are drawn as wholes, changes in pairs."""

import numpy as np
import pytest

from audiossm.evaluate.bootstrap import change_interval, rate_interval
from audiossm.evaluate.wer import WordErrors


def errors(wrong, words=10):
    return [WordErrors(substitutions=int(n), words=words) for n in wrong]


def test_utterances_alike_leave_no_room_for_chance():
    assert rate_interval(["", "", ""], errors([2, 2, 2])) == (0.2, 0.2, 3, "utterances")
    found = change_interval(["", "", ""], errors([4, 4, 4]), errors([3, 3, 3]))
    assert found == (0.25, 0.25, 3, "utterances")


def test_an_interval_is_as_wide_as_binomial_counts_say():
    wrong = np.random.default_rng(1).binomial(10, 0.3, size=400)
    low, high, size, unit = rate_interval([""] * 400, errors(wrong))
    spread = np.sqrt(0.3 * 0.7 / 4000)
    assert (size, unit) == (400, "utterances")
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.15)
    assert low < wrong.mean() / 10 < high


def test_people_are_drawn_with_all_that_they_say():
    speakers = [f"s{i % 12}" for i in range(240)]
    wrong = [0 if i % 12 < 6 else 6 for i in range(240)]  # half of them aren't understood
    people = rate_interval(speakers, errors(wrong))
    alone = rate_interval([""] * 240, errors(wrong))
    assert (people.size, people.unit) == (12, "speakers")
    assert people.high - people.low > 3 * (alone.high - alone.low)


def test_whoever_is_not_named_is_one_by_himself_beside_ten_who_are():
    speakers = [f"s{i}" for i in range(10) for _ in range(2)] + ["", ""]
    assert rate_interval(speakers, errors([1] * 22)).size == 12
    assert rate_interval(speakers[2:], errors([1] * 20)).unit == "utterances"  # nine are too few


def test_a_change_is_surer_than_two_rates():
    rng = np.random.default_rng(2)
    before = rng.integers(0, 10, size=50)
    now = np.maximum(before - 1, 0)
    rates = [rate_interval([""] * 50, errors(each)) for each in (before, now)]
    change = change_interval([""] * 50, errors(before), errors(now))
    assert rates[0].low < rates[1].high  # they look alike
    assert 0 < change.low < 1 - now.sum() / before.sum() < change.high


def test_nothing_wrong_and_nothing_to_draw():
    assert rate_interval([""], errors([1])) is None and rate_interval([], []) is None
    assert change_interval(["", ""], errors([0, 0]), errors([0, 0]))[:2] == (0.0, 0.0)
