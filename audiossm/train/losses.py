"""Losses over label frames."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from audiossm_kernels.choice import triton_wanted

__all__ = ["consistency", "ctc", "ctc_of_heads", "send"]

NEVER = -1e4  # the logarithm of no probability, finite: infinite ones break the gradient


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
    return ctc_of_heads([log_probs], frames, [labels])[0]


def ctc_of_heads(
    log_probs: Sequence[Tensor], frames: Tensor, labels: Sequence[list[list[int]]]
) -> list[Tensor]:
    """Return ``ctc`` of each of several heads over the same frames.

    Their rows are put below each other: a device, which goes through the frames one by one, does
    so once for all heads. Triton's form doesn't wait for it, torch's does.

    Args:
        log_probs: of each head, (rows, frames, its pieces).
        frames: (rows,) valid frames, int64 on the CPU.
        labels: of each head, ids of each row.
    """
    told = [row for rows in labels for row in rows]
    lengths = torch.tensor([len(row) for row in told])
    padded = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row, dtype=torch.int64) for row in told], batch_first=True
    )
    pieces = max(x.shape[2] for x in log_probs)
    rows = torch.cat([F.pad(x, (0, pieces - x.shape[2]), value=NEVER) for x in log_probs])
    given = (frames.repeat(len(log_probs)), padded, lengths)
    if fits_triton(rows, padded):
        sent = [send(x.int(), rows.device) for x in given]
        losses = _Ctc.apply(rows, *sent)  # type: ignore[no-untyped-call]
    else:
        frames, padded, lengths = given
        losses = F.ctc_loss(
            rows.transpose(0, 1), send(padded, rows.device), frames, lengths,
            reduction="none", zero_infinity=True,
        )  # fmt: skip
    counts = [max(sum(map(len, head)), 1) for head in labels]
    return [
        loss.sum() / count for loss, count in zip(losses.chunk(len(labels)), counts, strict=True)
    ]


def fits_triton(rows: Tensor, labels: Tensor) -> bool:
    """Return whether CTC of these is Triton's matter."""
    if rows.device.type != "cuda" or not triton_wanted():
        return False
    from audiossm_kernels.triton_ctc import MOST_LABELS

    return labels.shape[1] <= MOST_LABELS


class _Ctc(torch.autograd.Function):
    """CTC in Triton; a row that its frames have no room for costs nothing, as in torch's form."""

    @staticmethod
    def forward(ctx, log_probs, frames, labels, counts):  # type: ignore[no-untyped-def]
        from audiossm_kernels.triton_ctc import ctc as triton_ctc

        costs, shares = triton_ctc(log_probs, frames, labels, counts)
        ctx.save_for_backward(shares)
        return costs.nan_to_num(posinf=0.0)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (shares,) = ctx.saved_tensors
        return shares * -grad.view(-1, 1, 1), None, None, None
