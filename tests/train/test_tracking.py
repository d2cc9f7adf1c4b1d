"""Labels of the state-tracking tasks against Python's own arithmetic."""

import numpy as np
import pytest

from audiossm.train.tracking import PAD, draw_brackets, draw_parity, draw_sums

SIGNS = "01234+-*"
BRACKETS = "01234+-()"


def test_parity_counts_ones():
    bits, labels = draw_parity(np.random.default_rng(0), 5, 20)
    for row, told in zip(bits, labels, strict=True):
        assert [sum(row[: i + 1]) % 2 for i in range(20)] == told.tolist()
    assert 0 < labels.mean() < 1


def test_sums_know_that_products_come_first():
    symbols, labels = draw_sums(np.random.default_rng(0), 20, 11)
    for row, told in zip(symbols, labels, strict=True):
        text = "".join(SIGNS[symbol] for symbol in row)
        for i in range(0, 11, 2):
            assert eval(text[: i + 1]) % 5 == told[i], text
        assert told[1::2].tolist() == told[:-1:2].tolist()
    assert len(set(symbols.flatten())) == 8


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 9, 40])
def test_expressions_in_brackets_have_their_length_and_value(length):
    symbols, labels = draw_brackets(np.random.default_rng(0), 30, length)
    for row, told in zip(symbols, labels, strict=True):
        text = "".join(BRACKETS[symbol] for symbol in row)
        assert eval(text) % 5 == told[-1], text


def test_shorter_expressions_come_first_and_ask_for_nothing_beyond_their_end():
    symbols, labels = draw_brackets(np.random.default_rng(0), 40, 20, shortest=3, again=2)
    sizes = (labels != PAD).sum(1)
    assert (sizes[0], sizes[-1]) == (3, 20)
    assert (np.diff(sizes) >= 0).all()
    for row, told, size in zip(symbols, labels, sizes, strict=True):
        text = "".join(BRACKETS[symbol] for symbol in row[:size])
        assert eval(text) % 5 == told[size - 1], text
    forms = np.where(symbols < 5, 0, symbols)
    assert (forms[::2] == forms[1::2]).all()
    assert (symbols[::2] != symbols[1::2]).any()
