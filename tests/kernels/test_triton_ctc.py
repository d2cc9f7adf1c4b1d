"""CTC in Triton: the losses and gradients of torch's own form."""

import os

import pytest
import torch
import torch.nn.functional as F

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
# labels alike in a row, one label, none, as many as there are frames, more than there is room for
ROWS = [[1, 1, 2, 5, 5, 5], [3], [], [2, 1, 2, 1, 2], [4] * 9]
FRAMES = [23, 5, 9, 5, 12]
IMPOSSIBLE = 4

with_triton = pytest.mark.skipif(
    not INTERPRETED and DEVICE == "cpu", reason="runs in the interpreter's process"
)


def make(symbols: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return log-probabilities, frames, labels and how many of them each row has."""
    torch.manual_seed(symbols)
    log_probs = torch.randn(len(ROWS), max(FRAMES), symbols).log_softmax(-1)
    labels = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in ROWS], batch_first=True)
    return log_probs, torch.tensor(FRAMES), labels.long(), torch.tensor([len(r) for r in ROWS])


@with_triton
@pytest.mark.parametrize("symbols", [6, 37])
def test_losses_and_gradients_are_torchs(symbols):
    from audiossm_kernels.triton_ctc import ctc

    log_probs, frames, labels, counts = make(symbols)
    logits = log_probs.clone().requires_grad_()
    given = (logits.log_softmax(-1).transpose(0, 1), labels, frames, counts)
    expected = F.ctc_loss(*given, reduction="none", zero_infinity=True)
    expected.sum().backward()
    moved = [x.to(DEVICE) for x in (log_probs, frames.int(), labels.int(), counts.int())]
    found, shares = ctc(*moved)
    assert found[IMPOSSIBLE] == float("inf")
    found[IMPOSSIBLE] = 0.0
    torch.testing.assert_close(found.cpu(), expected.detach(), rtol=1e-5, atol=1e-5)
    valid = (torch.arange(max(FRAMES)) < frames[:, None]).unsqueeze(-1)
    valid[IMPOSSIBLE] = False
    gradient = torch.where(valid, log_probs.exp(), 0.0) - shares.cpu()
    torch.testing.assert_close(gradient, logits.grad, rtol=1e-4, atol=2e-5)
    again = ctc(*moved)
    assert torch.equal(again[0][:IMPOSSIBLE], found[:IMPOSSIBLE])
    assert torch.equal(again[1], shares)


@with_triton
def test_a_long_row_keeps_its_digits():
    """Shares of a frame sum to one however small the whole probability is."""
    from audiossm_kernels.triton_ctc import ctc

    torch.manual_seed(0)
    log_probs = (3 * torch.randn(1, 300, 8)).log_softmax(-1).to(DEVICE)
    labels = torch.randint(1, 8, (1, 140), dtype=torch.int32, device=DEVICE)
    frames, counts = (torch.tensor([n], dtype=torch.int32, device=DEVICE) for n in (300, 140))
    found, shares = ctc(log_probs, frames, labels, counts)
    expected = F.ctc_loss(
        log_probs.double().transpose(0, 1), labels, frames, counts, reduction="none"
    )
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(shares.sum(-1), torch.ones_like(shares[..., 0]))


@with_triton
def test_too_many_labels_are_refused():
    from audiossm_kernels.errors import KernelError
    from audiossm_kernels.triton_ctc import MOST_LABELS, ctc

    labels = torch.ones(1, MOST_LABELS + 1, dtype=torch.int32)
    with pytest.raises(KernelError, match="2048 labels: a row has room for 2047"):
        ctc(torch.zeros(1, 1, 2), torch.tensor([1]), labels, torch.tensor([1]))
