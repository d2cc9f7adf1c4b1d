"""Philox's random numbers for many streams at once, on any device: those of ``draw``.

Glossary: c0 to c3 are a counter's words and k0, k1 a key's, each of 64 bits, in int64.
"""

import torch
from torch import Tensor

__all__ = ["draw_rows"]

ROUNDS = 10
LOW = 2**32 - 1
# of Philox4x64 (Salmon et al., 2011): what words are multiplied with, and what keys grow by
MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
WEYL = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B


def draw_rows(seed: Tensor, kind: int, step: Tensor, count: int) -> Tensor:
    """Return numbers in [0, 1): those of ``draw(seed, kind, step, count)`` for each row.

    Args:
        seed: (rows,) int64.
        kind: what they are for.
        step: (rows,) int64.
        count: numbers for each row.

    Returns:
        (rows, count) float64.
    """
    words = []
    for block in range(1, -(-count // 4) + 1):  # the counter is raised before it is used
        words += _mix(torch.full_like(step, block), step, kind, seed)
    whole = torch.stack(words[:count], dim=-1)
    return ((whole >> 11) & (2**53 - 1)).double() * 2.0**-53


def _mix(block: Tensor, step: Tensor, kind: int, seed: Tensor) -> list[Tensor]:
    c0, c1, c2, c3 = block, torch.zeros_like(step), step, torch.full_like(step, kind)
    k0, k1 = seed, 0
    for turn in range(ROUNDS):
        if turn:
            k0, k1 = k0 + _sign(WEYL[0]), _sign(k1 + WEYL[1])
        (high0, low0), (high1, low1) = (
            _multiply(word, factor) for word, factor in zip((c0, c2), MULTIPLIERS, strict=True)
        )
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
    return [c0, c1, c2, c3]


def _multiply(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Return the high and the low half of a product of numbers without a sign."""
    w0, w1, f0, f1 = word & LOW, (word >> 32) & LOW, factor & LOW, factor >> 32
    inner = w1 * f0 + (((w0 * f0) >> 32) & LOW)
    outer = w0 * f1 + (inner & LOW)
    high = w1 * f1 + ((inner >> 32) & LOW) + ((outer >> 32) & LOW)
    return high, word * _sign(factor)


def _sign(number: int) -> int:
    """Return the int64 that has a number's low 64 bits."""
    return (number + 2**63) % 2**64 - 2**63
