"""The transducer's loss is the sum over all ways to write, and its head learns to write."""

import math

import pytest
import torch

from audiossm.train.transducer import BLANK, Transducer, transducer_loss


def make_head(num_labels: int = 5) -> Transducer:
    torch.manual_seed(0)
    return Transducer(8, num_labels, width=64)


def paths(logs: torch.Tensor, labels: list[int]) -> torch.Tensor:
    """Add up all ways through (frames, labels + 1, symbols) that end with a blank."""

    def after(t: int, u: int) -> torch.Tensor:
        ways = []
        if u < len(labels):
            ways.append(logs[t, u, labels[u]] + after(t, u + 1))
        if t + 1 < len(logs):
            ways.append(logs[t, u, BLANK] + after(t + 1, u))
        elif u == len(labels):
            ways.append(logs[t, u, BLANK])
        return torch.stack(ways).logsumexp(0) if ways else torch.tensor(-math.inf)

    return after(0, 0)


def test_the_loss_is_the_sum_over_all_ways_and_so_is_its_gradient():
    head = make_head()
    hidden = torch.randn(2, 4, 8)
    frames, labels = torch.tensor([4, 3]), [[1, 2, 2], [4]]
    loss = transducer_loss(head, hidden, frames, labels)
    expected = []
    for row, length, told in zip(hidden, frames, labels, strict=True):
        begun = torch.tensor([[BLANK, *told]])
        written, _ = head.predict(begun, head.init_state(1))
        heard = head.listen(row[None, : int(length)])
        logits = head.join(heard.unsqueeze(2), written.unsqueeze(1))[0]
        expected.append(-paths(logits.log_softmax(-1), told))
    by_hand = sum(expected) / 4
    torch.testing.assert_close(loss, by_hand)
    parameters = tuple(head.parameters())
    ours = torch.autograd.grad(loss, parameters, allow_unused=True)
    theirs = torch.autograd.grad(by_hand, parameters, allow_unused=True)
    for (name, _), a, b in zip(head.named_parameters(), ours, theirs, strict=True):
        assert (a is None) == (b is None), name
        if a is not None:
            torch.testing.assert_close(a, b, msg=name, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("together", [True, False])
def test_a_head_learns_to_write_what_it_hears(together):
    head = make_head()
    # channel i sounds where label i is heard, three frames each
    labels = [[1, 2, 2, 3], [4, 1, 3], [2, 4]]
    hidden = torch.zeros(3, 14, 8)
    for row, told in zip(hidden, labels, strict=True):
        for at, label in enumerate(told):
            row[3 * at + 1, label] = 3.0
    frames = torch.tensor([3 * len(told) + 2 for told in labels])
    optimizer = torch.optim.Adam(head.parameters(), 3e-3)
    for _ in range(120):
        loss = transducer_loss(head, hidden, frames, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3
    head.eval()
    if together:
        assert head.write(hidden, frames) == labels
    else:  # silence after the end, and batch mates, have no say
        for row, length, told in zip(hidden, frames, labels, strict=True):
            assert head.write(row[None, : int(length)], length[None]) == [told]
    assert head.write(torch.zeros(1, 3, 8), torch.tensor([0])) == [[]]
