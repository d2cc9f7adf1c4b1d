"""Weights as rows of whole numbers: a byte for each, and for each row a scale."""

import torch
from torch import Tensor

__all__ = ["SCALES", "restore_rows", "round_rows"]

# Scales of 4 significant bits, by their codes. A whole number has 7 more, float16 has 11 of them:
# so every rounded weight is a float16, and what float16 weights are hashed by stays exact.
SCALES = torch.tensor([(8 + code % 8) * 2.0 ** (code // 8 - 24) for code in range(256)])
MOST = 127


def round_rows(weight: Tensor, step: float | None = None) -> tuple[Tensor, Tensor]:
    """Round a weight to whole numbers; rounding what was rounded changes nothing.

    The scale is the smallest that needs no clipping: clipping a few large weights, tried on the
    matrices of a codec, is no nearer by 0.01 dB.

    Args:
        weight: (rows, ...), floating point.
        step: one of ``SCALES``, if the weight is used in multiples of it; larger ones are clipped.

    Returns:
        whole numbers (rows, ...) int8 from -127 to 127, and codes (rows,) uint8: a row is about
        its whole numbers times ``SCALES[code]``.
    """
    rows = weight.detach().to("cpu", torch.float32).flatten(1)
    if step is not None:
        codes = torch.searchsorted(SCALES, torch.full((len(rows),), step))
    else:
        codes = torch.searchsorted(SCALES, rows.abs().amax(1) / MOST).clamp(max=254)
        # the largest of a row may have been rounded down to where a smaller scale is enough
        larger = SCALES[codes + 1].unsqueeze(1)
        codes += (larger * (rows / larger).round() == rows).all(1)
    numbers = (rows / SCALES[codes].unsqueeze(1)).round().clamp(-MOST, MOST)
    return numbers.to(torch.int8).view(weight.shape), codes.to(torch.uint8)


def restore_rows(numbers: Tensor, codes: Tensor) -> Tensor:
    """Return the weight (rows, ...) float32 that ``round_rows`` gave in parts."""
    scales = SCALES[codes.long()]
    return numbers.float() * scales.view(-1, *(1 for _ in numbers.shape[1:]))
