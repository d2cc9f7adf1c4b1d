"""The losses against their definitions, written out."""

import itertools

import pytest
import torch

from audiossm.train.losses import consistency, ctc, ctc_of_heads


def log_probabilities(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64).log_softmax(-1)


def collapse(path: tuple[int, ...]) -> list[int]:
    return [b for a, b in zip((0, *path), path, strict=False) if b not in (0, a)]


def sum_over_alignments(log_probs: torch.Tensor, labels: list[int]) -> torch.Tensor:
    """-log of the probability of all paths (frames,) that collapse to ``labels``."""
    frames, pieces = log_probs.shape
    paths = [p for p in itertools.product(range(pieces), repeat=frames) if collapse(p) == labels]
    scores = [sum(log_probs[t, label] for t, label in enumerate(path)) for path in paths]
    return -torch.logsumexp(torch.stack(scores), 0)


def test_ctc_is_the_sum_over_all_alignments_per_label():
    log_probs = log_probabilities(3, 5, 3)
    frames, labels = torch.tensor([5, 4, 3]), [[1, 2], [1, 1], [2]]
    expected = sum(
        sum_over_alignments(log_probs[row, : frames[row]], labels[row]) for row in range(3)
    )
    torch.testing.assert_close(ctc(log_probs, frames, labels), expected / 5)


def test_ctc_takes_rows_without_labels():
    log_probs = log_probabilities(2, 4, 3)
    expected = sum_over_alignments(log_probs[0], []) + sum_over_alignments(log_probs[1], [1])
    torch.testing.assert_close(ctc(log_probs, torch.tensor([4, 4]), [[], [1]]), expected)
    silent = sum_over_alignments(log_probs[0], [])
    torch.testing.assert_close(ctc(log_probs[:1], torch.tensor([4]), [[]]), silent)


def test_ctc_leaves_out_a_row_with_more_labels_than_frames():
    log_probs = log_probabilities(2, 3, 3).requires_grad_()
    loss = ctc(log_probs, torch.tensor([3, 3]), [[1], [1, 1, 1]])
    torch.testing.assert_close(loss, sum_over_alignments(log_probs[0], [1]) / 4)
    loss.backward()
    assert log_probs.grad.isfinite().all() and not log_probs.grad[1].any()


def test_ctc_does_not_see_what_follows_the_frames():
    log_probs = log_probabilities(1, 6, 3)
    changed = log_probs.clone()
    changed[:, 4:] = log_probabilities(1, 2, 3)
    frames = torch.tensor([4])
    assert torch.equal(ctc(log_probs, frames, [[1, 2]]), ctc(changed, frames, [[1, 2]]))


def test_heads_with_other_pieces_are_worth_together_what_each_is_alone():
    heads = [log_probabilities(2, 6, pieces).requires_grad_() for pieces in (3, 7)]
    frames, labels = torch.tensor([6, 4]), [[[1, 2], [2]], [[6, 1, 1], []]]
    together = ctc_of_heads(heads, frames, labels)
    gradients = torch.autograd.grad(together[0] + 2 * together[1], heads)
    alone = [ctc(head, frames, told) for head, told in zip(heads, labels, strict=True)]
    torch.testing.assert_close(together, alone)
    expected = torch.autograd.grad(alone[0] + 2 * alone[1], heads)
    torch.testing.assert_close(gradients, expected)


def test_equal_views_are_consistent():
    view = log_probabilities(3, 5, 4)
    frames = torch.tensor([5, 2, 4]).repeat(2)
    log_probs = torch.cat([view, view]).requires_grad_()
    loss = consistency(log_probs, frames)
    assert loss.item() == pytest.approx(0.0, abs=1e-12)


def test_consistency_is_the_symmetric_divergence_a_frame():
    log_probs = log_probabilities(4, 5, 3)
    frames = torch.tensor([5, 2])
    expected = 0.0
    for row in range(2):
        for t in range(frames[row]):
            p, q = log_probs[row, t].exp(), log_probs[row + 2, t].exp()
            expected += float((p * (p / q).log() + q * (q / p).log()).sum()) / 2
    loss = consistency(log_probs, frames.repeat(2))
    assert loss.item() == pytest.approx(expected / 7, rel=1e-9)


def test_consistency_moves_each_view_towards_the_other():
    logits = torch.randn(2, 1, 4, dtype=torch.float64, requires_grad=True)
    loss = consistency(logits.log_softmax(-1), torch.tensor([1, 1]))
    (gradient,) = torch.autograd.grad(loss, logits)
    a, b = logits.detach().softmax(-1)
    # a view's cross entropy with the other as its fixed target
    torch.testing.assert_close(gradient[0], (a - b) / 2)
    torch.testing.assert_close(gradient[1], (b - a) / 2)
