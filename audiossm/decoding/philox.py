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
    # (c0, c2) are multiplied in every round, (c1, c3) are mixed into the products
    taken = torch.stack([block, step])
    mixed = torch.stack([torch.zeros_like(step), torch.full_like(step, kind)])
    key = torch.stack([seed, torch.zeros_like(seed)])
    shape = (2,) + (1,) * step.dim()
    factors, growth = (
        torch.tensor([_sign(number) for number in pair], device=step.device).view(shape)
        for pair in (MULTIPLIERS, WEYL)
    )
    for turn in range(ROUNDS):
        if turn:
            key = key + growth
        high, low = _multiply(taken, factors)
        taken, mixed = high.flip(0) ^ mixed ^ key, low.flip(0)
    return [taken[0], mixed[0], taken[1], mixed[1]]


def _multiply(word: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Return the high and the low half of a product of numbers without a sign."""
    w0, w1, f0, f1 = word & LOW, (word >> 32) & LOW, factor & LOW, (factor >> 32) & LOW
    inner = w1 * f0 + (((w0 * f0) >> 32) & LOW)
    outer = w0 * f1 + (inner & LOW)
    high = w1 * f1 + ((inner >> 32) & LOW) + ((outer >> 32) & LOW)
    return high, word * factor


def _sign(number: int) -> int:
    """Return the int64 that has a number's low 64 bits."""
    return (number + 2**63) % 2**64 - 2**63
