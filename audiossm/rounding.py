"""Weights as rows of whole numbers: a byte or six bits for each, and for each row a scale."""

import torch
from torch import Tensor

__all__ = ["FOUR", "MOST", "SCALES", "pack_rows", "restore_rows", "round_rows", "unpack_rows"]

# Scales of 4 significant bits, by their codes. A whole number has 7 more, float16 has 11 of them:
# so every rounded weight is a float16, and what float16 weights are hashed by stays exact.
SCALES = torch.tensor([(8 + code % 8) * 2.0 ** (code // 8 - 24) for code in range(256)])
MOST = {8: 127, 6: 31}  # the largest whole number, by bits
FOUR = 4  # numbers of six bits go into three bytes


def round_rows(weight: Tensor, step: float | None = None, bits: int = 8) -> tuple[Tensor, Tensor]:
    """Round a weight to whole numbers; rounding what was rounded changes nothing.

    The scale is the smallest that needs no clipping: clipping a few large weights, tried on the
    matrices of a codec, is no nearer by 0.01 dB.

    Args:
        weight: (rows, ...), floating point.
        step: one of ``SCALES``, if the weight is used in multiples of it; larger ones are clipped.
        bits: 8, or 6; what was rounded to 6 is exact in 8, too.

    Returns:
        whole numbers (rows, ...) int8 from -127 to 127, or from -31 to 31, and codes (rows,) uint8:
        a row is about its whole numbers times ``SCALES[code]``.
    """
    most = MOST[bits]
    rows = weight.detach().to("cpu", torch.float32).flatten(1)
    if step is not None:
        codes = torch.searchsorted(SCALES, torch.full((len(rows),), step))
    else:
        first = torch.searchsorted(SCALES, rows.abs().amax(1) / most).clamp(max=254)
        # the largest of a row may have been rounded down to where a smaller scale is enough
        codes = first + are_exact(rows, first + 1)
        # and a row of six bits, which eight hold exactly, to where scales are that are larger yet
        left = (~are_exact(rows, codes)).nonzero()[:, 0]
        for more in (4, 3, 2):
            tried = (first[left] + more).clamp(max=255)
            codes[left] = torch.where(are_exact(rows[left], tried), tried, codes[left])
    numbers = (rows / SCALES[codes].unsqueeze(1)).round().clamp(-most, most)
    return numbers.to(torch.int8).view(weight.shape), codes.to(torch.uint8)


def are_exact(rows: Tensor, codes: Tensor) -> Tensor:
    """Tell which rows (rows, values) are whole numbers times the scales of these codes (rows,)."""
    scales = SCALES[codes].unsqueeze(1)
    return (scales * (rows / scales).round() == rows).all(1)


def restore_rows(numbers: Tensor, codes: Tensor) -> Tensor:
    """Return the weight (rows, ...) float32 that ``round_rows`` gave in parts."""
    scales = SCALES[codes.long()]
    return numbers.float() * scales.view(-1, *(1 for _ in numbers.shape[1:]))


def pack_rows(numbers: Tensor) -> Tensor:
    """Pack whole numbers (..., 4 n) int8 from -32 to 31 into bytes (..., 3 n) uint8.

    Four numbers, plus 32, are the digits of a number of 24 bits, the first one the lowest, which
    stands in three bytes, the lowest first.
    """
    digits = (numbers.to(torch.int32) + 32).view(*numbers.shape[:-1], -1, FOUR)
    places = 64 ** torch.arange(FOUR, dtype=torch.int32)
    joined = (digits * places).sum(-1, keepdim=True)
    parts = joined >> torch.tensor([0, 8, 16]) & 255
    return parts.flatten(-2).to(torch.uint8)


def unpack_rows(packed: Tensor) -> Tensor:
    """Return the whole numbers (..., 4 n) int8 of ``pack_rows``' bytes (..., 3 n)."""
    parts = packed.to(torch.int32).view(*packed.shape[:-1], -1, FOUR - 1)
    joined = (parts << torch.tensor([0, 8, 16])).sum(-1, keepdim=True)
    digits = joined >> torch.tensor([0, 6, 12, 18]) & 63
    return (digits - 32).flatten(-2).to(torch.int8)
