"""The delay of a decoded signal: found by cross-correlation, and taken away."""

import torch
import torch.nn.functional as F
from torch import Tensor

from audiossm.errors import ShapeError

__all__ = ["find_delay", "remove_delay"]


def find_delay(original: Tensor, late: Tensor, max_delay: int) -> int:
    """Return by how many samples, 0 to ``max_delay``, ``late`` resembles ``original`` most.

    Args:
        original: (samples,).
        late: (samples,), of any length.
        max_delay: samples.

    Raises:
        ShapeError: a signal is empty or not one-dimensional.
    """
    if original.dim() != 1 or late.dim() != 1 or not len(original) or not len(late):
        raise ShapeError(
            f"find_delay takes two signals (samples,), got {(*original.shape,)}, {(*late.shape,)}"
        )
    # long enough that the end doesn't meet the beginning
    size = 1 << (len(original) + max(len(late), max_delay)).bit_length()
    spectrum = torch.fft.rfft(late.double(), size) * torch.fft.rfft(original.double(), size).conj()
    return int(torch.fft.irfft(spectrum, size)[: max_delay + 1].argmax())


def remove_delay(late: Tensor, delay: int, length: int) -> Tensor:
    """Return ``length`` samples of ``late`` (samples,) from ``delay`` on, zeros behind its end."""
    part = late[delay : delay + length]
    return F.pad(part, (0, length - len(part)))
