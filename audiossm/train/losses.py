"""Losses over label frames."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["consistency", "ctc", "send"]


def consistency(log_probs: Tensor, frames: Tensor) -> Tensor:
    """Symmetric KL between the two halves of the rows: two views of the same audio.

    Consistency-regularised CTC (arXiv:2410.05101); the target side takes no gradient.

    Args:
        log_probs: (2 * rows, frames, pieces), the second view below the first.
        frames: (2 * rows,) valid frames, int64 on the CPU.
    """
    a, b = log_probs.chunk(2)
    ends = send(frames[: len(a), None], a.device)
    valid = torch.arange(a.shape[1], device=a.device) < ends
    both = (a.exp().detach() * (a.detach() - b) + b.exp().detach() * (b.detach() - a)).sum(-1)
    return (both * valid).sum() / valid.sum() / 2


def send(x: Tensor, device: torch.device) -> Tensor:
    """Move a CPU tensor without waiting for what the device is doing."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x


def ctc(log_probs: Tensor, frames: Tensor, labels: list[list[int]]) -> Tensor:
    """CTC loss per label (Graves et al., 2006) of (rows, frames, pieces); 0 is the blank.

    Args:
        log_probs: (rows, frames, pieces).
        frames: (rows,) valid frames, int64 on the CPU: on the device they would be waited for.
        labels: ids of each row.
    """
    lengths = torch.tensor([len(row) for row in labels])
    rows = [torch.tensor(row, dtype=torch.int64) for row in labels]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    loss = F.ctc_loss(
        log_probs.transpose(0, 1),
        send(padded, log_probs.device),
        frames,
        lengths,
        reduction="none",
        zero_infinity=True,
    )
    return loss.sum() / max(int(lengths.sum()), 1)
