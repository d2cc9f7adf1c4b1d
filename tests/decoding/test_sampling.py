"""Drawing: a function of its numbers, in the right proportions."""

import numpy as np
import pytest

from audiossm.decoding.sampling import Sampling, choose_codes, draw, end_threshold, outlive
from audiossm.errors import ConfigError

RNG = np.random.default_rng(0)
EXPECTED = [0.3035680343067586, 0.8487087496857769]


def test_a_draw_depends_on_its_numbers_alone():
    whole = draw(7, 0, 123, 8)
    assert ((whole >= 0) & (whole < 1)).all() and len(set(whole.tolist())) == 8
    np.testing.assert_array_equal(draw(7, 0, 123, 3), whole[:3])
    for other in (draw(8, 0, 123, 8), draw(7, 1, 123, 8), draw(7, 0, 124, 8)):
        assert not np.isin(other, whole).any()
    # what it was when this was written: another one would change everybody's speech
    np.testing.assert_allclose(draw(1, 0, 0, 2), EXPECTED, rtol=0, atol=1e-15)


def test_draws_are_even():
    values = np.concatenate([draw(3, 0, step, 4) for step in range(5000)])
    counts = np.histogram(values, bins=10, range=(0, 1))[0]
    assert abs(counts - 2000).max() < 200  # 4.7 standard deviations
    rows = values.reshape(-1, 4)
    assert abs(np.corrcoef(rows.T) - np.eye(4)).max() < 0.06


def test_codes_come_as_often_as_their_probability_says():
    logits = RNG.normal(size=(2, 20)).astype(np.float32)
    temperatures = np.array([1.0, 0.5], np.float32)
    counts = np.zeros((2, 20))
    for step in range(20000):
        codes = choose_codes(logits, draw(0, 0, step, 2), temperatures, 5)
        counts[[0, 1], codes] += 1
    for row, temperature in enumerate(temperatures):
        expected = np.exp(logits[row] / temperature)
        expected[np.argsort(logits[row])[:-5]] = 0.0
        np.testing.assert_allclose(counts[row] / 20000, expected / expected.sum(), atol=0.015)


def test_cold_takes_the_likeliest_and_top_1_does_too():
    logits = RNG.normal(size=(4, 1000)).astype(np.float32)
    for step in range(20):
        uniforms = draw(0, 0, step, 4)
        cold = choose_codes(logits, uniforms, np.zeros(4, np.float32), 40)
        single = choose_codes(logits, uniforms, np.ones(4, np.float32), 1)
        np.testing.assert_array_equal(cold, logits.argmax(axis=1))
        np.testing.assert_array_equal(single, cold)


def test_the_extreme_draws_give_codes_that_there_are():
    logits = np.full((2, 3), -1e30, np.float32)
    logits[:, 1] = 80.0
    for uniform in (0.0, 1.0 - 2.0**-53):
        found = choose_codes(logits, np.full(2, uniform), np.full(2, 0.7, np.float32), 40)
        assert found.tolist() == [1, 1]


def test_later_groups_are_colder():
    np.testing.assert_allclose(Sampling().temperatures(3), [0.7, 0.5, 0.5], rtol=1e-6)
    own = Sampling(temperature=1.0, later_temperature=0.2)
    np.testing.assert_allclose(own.temperatures(2), [1.0, 0.2], rtol=1e-6)


def test_units_last_as_long_as_their_hazards_say():
    hazards = np.array([0.1, 0.3, 0.2, 0.6])
    survival, found = 1.0, []
    for hazard in hazards:
        survival = outlive(survival, np.log(hazard / (1 - hazard)))
        found.append(survival)
    np.testing.assert_allclose(found, np.cumprod(1 - hazards), rtol=1e-6)
    assert outlive(1.0, 1e4) == 0.0 and outlive(1.0, -1e4) == 1.0
    assert end_threshold(0.9, 0.0) == 0.5
    assert end_threshold(0.9, 1.0) == pytest.approx(0.9)
    assert end_threshold(0.0, 0.5) == 0.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"later_temperature": float("nan")}, "later_temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"spread": 1.5}, "spread is 1.5"),
    ],
)
def test_what_nobody_can_draw_with_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**options)
