"""Packed sequences: many of any length in one row, as a padded batch that freezes at its ends."""

from collections.abc import Callable

import torch
from torch import Tensor

from audiossm_kernels.errors import KernelError
from audiossm_kernels.state import SsmInputs, SsmState

__all__ = ["run_packed", "sequence_lengths"]


def sequence_lengths(cu_seqlens: Tensor, batch: int, frames: int) -> list[int]:
    """Return the length of each sequence between the borders ``cu_seqlens`` (n + 1,).

    Raises:
        KernelError: the borders aren't 0 <= ... <= ``frames``, or ``batch`` isn't 1.
    """
    if batch != 1:
        raise KernelError(f"ssm_scan: packed sequences stand in one row, but the batch is {batch}")
    if cu_seqlens.dim() != 1 or cu_seqlens.is_floating_point() or len(cu_seqlens) < 2:
        raise KernelError(
            f"ssm_scan: cu_seqlens must be (n + 1,) integers, n >= 1, "
            f"not {tuple(cu_seqlens.shape)} {cu_seqlens.dtype}"
        )
    borders = cu_seqlens.tolist()
    lengths = [end - start for start, end in zip(borders, borders[1:], strict=False)]
    if borders[0] != 0 or borders[-1] != frames or min(lengths) < 0:
        raise KernelError(
            f"ssm_scan: cu_seqlens must rise from 0 to {frames} frames, not {borders[0]}.."
            f"{borders[-1]} with a smallest length of {min(lengths)}"
        )
    return lengths


def run_packed(
    scan: Callable[[SsmInputs, SsmState], tuple[Tensor, SsmState]],
    x: SsmInputs,
    state: SsmState,
    lengths: list[int],
) -> tuple[Tensor, SsmState]:
    """Run ``scan(x, state)`` with each packed sequence in a row of its own.

    Args:
        scan: advances a padded batch.
        x: the packed frames, (1, frames, ...).
        state: one row per sequence.
        lengths: frames of each sequence; 0 leaves its state as it is.
    Returns:
        y: (1, frames, H, P); and the state after each sequence's last frame.
    """
    frames, longest = x.v.shape[1], max(lengths)
    if longest == 0:
        return x.v.clone(), SsmState._make(part.clone() for part in state)
    device = x.v.device
    length = torch.tensor(lengths, device=device).unsqueeze(1)
    start = length.cumsum(0) - length
    frame = torch.arange(longest, device=device).unsqueeze(0)
    inside = frame < length
    # a row goes on with copies of its last frame at dt = 0: the state stands still, and the
    # last key and value are the right ones
    source = (start + frame.minimum((length - 1).clamp(min=0))).clamp(max=frames - 1)
    padded = SsmInputs._make(part[0][source] for part in x)
    outside = ~inside.unsqueeze(-1)
    y, new = scan(
        padded._replace(
            dt=padded.dt.masked_fill(outside, 0.0), adt=padded.adt.masked_fill(outside, 0.0)
        ),
        state,
    )
    empty = length.squeeze(1) == 0
    kept = SsmState._make(
        torch.where(empty.view(-1, *[1] * (after.dim() - 1)), before, after)
        for after, before in zip(new, state, strict=True)
    )
    return y[inside].unsqueeze(0), kept
