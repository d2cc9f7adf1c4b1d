"""Sequences whose labels need a state that is kept exactly: parity and arithmetic modulo 5.

As in Deletang et al. (arXiv:2207.02098), whose tasks the Mamba-3 paper takes over. Every symbol has
a label: the value of what has been read so far, open brackets closed; the last one is the answer.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["MODULUS", "draw_brackets", "draw_parity", "draw_sums", "give_digits", "nest"]

MODULUS = 5
PLUS, MINUS, TIMES = MODULUS, MODULUS + 1, MODULUS + 2
OPEN, CLOSE = MODULUS + 2, MODULUS + 3  # there is no TIMES beside brackets
PAD = -1  # of labels: none is asked for

Sequences = tuple[NDArray[np.int64], NDArray[np.int64]]


def draw_parity(rng: np.random.Generator, rows: int, length: int) -> Sequences:
    """Draw bits (rows, length) and, as labels, whether there was an odd number of ones so far."""
    bits = rng.integers(0, 2, (rows, length))
    return bits, bits.cumsum(1) % 2


def draw_sums(rng: np.random.Generator, rows: int, length: int) -> Sequences:
    """Draw sums of products, 3 - 2 * 4 + 1 ..., and their values modulo 5: (rows, length) each.

    Digits stand at even places; an even ``length`` ends with an operator, which changes no value.
    """
    symbols = np.empty((rows, length), np.int64)
    symbols[:, ::2] = rng.integers(0, MODULUS, symbols[:, ::2].shape)
    symbols[:, 1::2] = rng.integers(PLUS, TIMES + 1, symbols[:, 1::2].shape)
    labels = np.empty_like(symbols)
    before, product = np.zeros(rows, np.int64), symbols[:, 0].copy()
    labels[:, 0] = product
    for i in range(1, length):
        if i % 2 == 0:
            sign, digit = symbols[:, i - 1], symbols[:, i]
            times = sign == TIMES
            before = np.where(times, before, before + product) % MODULUS
            product = np.where(times, product, np.where(sign == MINUS, -1, 1)) * digit % MODULUS
        labels[:, i] = (before + product) % MODULUS
    return symbols, labels


def nest(rng: np.random.Generator, length: int) -> tuple[list[int], list[int]]:
    """Draw the form of an expression of so many symbols: (((1)-(-2))+3) and the like.

    Returns:
        symbols, with 0 for every digit; and the sign of the digit at each place, 0 where none is.
    """
    symbols, signs = [], []
    todo: list[tuple[int, int] | int] = [(length, 1)]
    while todo:
        part = todo.pop()
        if isinstance(part, int):
            symbols.append(part)
            signs.append(0)
            continue
        size, sign = part
        if size == 1:
            symbols.append(0)
            signs.append(sign)
        elif size == 2:
            todo += [(1, -sign), MINUS]
        elif size == 3:
            todo += [CLOSE, (1, sign), OPEN]
        elif size == 4:
            todo += [CLOSE, (2, sign), OPEN]
        else:
            left = int(rng.integers(1, size - 3))
            operator = int(rng.integers(PLUS, MINUS + 1))
            right = sign if operator == PLUS else -sign
            todo += [CLOSE, (size - 3 - left, right), operator, (left, sign), OPEN]
    return symbols, signs


def give_digits(
    rng: np.random.Generator, symbols: NDArray[np.int64], signs: NDArray[np.int64]
) -> Sequences:
    """Draw the digits of forms (rows, length); labels are the sum so far modulo 5."""
    digits = rng.integers(0, MODULUS, symbols.shape)
    filled = np.where(signs != 0, digits, symbols)
    return filled, (digits * signs).cumsum(1) % MODULUS


def draw_brackets(
    rng: np.random.Generator, rows: int, length: int, shortest: int | None = None, again: int = 1
) -> Sequences:
    """Draw expressions in brackets with values modulo 5, shorter ones first: (rows, length) each.

    Args:
        rng: draws.
        rows: expressions, a multiple of ``again``.
        length: of the longest, to which others are filled up with opening brackets unasked for.
        shortest: symbols of the shortest; all have ``length`` by default.
        again: expressions of each form, with other digits.
    """
    count = rows // again
    sizes = np.linspace(shortest or length, length + 1, count, endpoint=False).astype(int)
    symbols = np.full((count, length), OPEN)
    signs = np.zeros((count, length), np.int64)
    for i, size in enumerate(sizes):
        symbols[i, :size], signs[i, :size] = nest(rng, int(size))
    filled, labels = give_digits(rng, symbols.repeat(again, 0), signs.repeat(again, 0))
    asked = np.arange(length) < sizes.repeat(again)[:, None]
    return filled, np.where(asked, labels, PAD)
