"""Losses over label frames."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["consistency", "ctc"]


def consistency(log_probs: Tensor, frames: Tensor) -> Tensor:
    """Symmetric KL between the two halves of the rows: two views of the same audio.

    Consistency-regularised CTC (arXiv:2410.05101); the target side takes no gradient.

    Args:
        log_probs: (2 * rows, frames, pieces), the second view below the first.
        frames: (2 * rows,) valid frames.
    """
    a, b = log_probs.chunk(2)
    valid = torch.arange(a.shape[1], device=a.device) < frames[: len(a), None]
    both = (a.exp().detach() * (a.detach() - b) + b.exp().detach() * (b.detach() - a)).sum(-1)
    return (both * valid).sum() / valid.sum() / 2


def pad_labels(labels: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return labels as (rows, longest) int64 and their lengths (rows,)."""
    lengths = torch.tensor([len(row) for row in labels])
    rows = [torch.tensor(row, dtype=torch.int64) for row in labels]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return padded.to(device), lengths.to(device)


def ctc(log_probs: Tensor, frames: Tensor, labels: list[list[int]]) -> Tensor:
    """CTC loss per label (Graves et al., 2006) of (rows, frames, pieces); 0 is the blank."""
    padded, lengths = pad_labels(labels, log_probs.device)
    loss = F.ctc_loss(
        log_probs.transpose(0, 1), padded, frames, lengths, reduction="none", zero_infinity=True
    )
    return loss.sum() / lengths.sum().clamp(min=1)
