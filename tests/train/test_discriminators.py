"""Discriminators judge each row by itself, and their losses say what they should."""

import pytest
import torch

from audiossm.train.adversarial import fooling_loss, matching_loss, telling_loss
from audiossm.train.discriminators import (
    Discriminators,
    Judgement,
    PeriodDiscriminator,
    SpectrumDiscriminator,
)


@pytest.mark.parametrize("judge", [PeriodDiscriminator(3), SpectrumDiscriminator(256)])
def test_rows_are_judged_each_by_itself(judge):
    x = 0.1 * torch.randn(2, 2000)
    both = judge(x)
    for row in range(2):
        alone = judge(x[row : row + 1])
        torch.testing.assert_close(both.scores[row : row + 1], alone.scores, rtol=1e-4, atol=1e-5)
    assert len(both.features) == 5
    assert both.scores.shape[1] > 10


def test_a_period_sees_samples_that_are_a_period_apart():
    judge, x = PeriodDiscriminator(5), torch.zeros(1, 1000)
    changed = x.clone()
    changed[0, 2::5] = 0.5
    before, after = judge(x).features[0], judge(changed).features[0]
    touched = (before != after).any(1)[0].any(0)
    assert touched.tolist() == [False, False, True, False, False]


def test_eight_small_networks_judge():
    judges = Discriminators()
    assert len(judges(torch.randn(2, 4000))) == 8
    assert 2.0e6 < sum(p.numel() for p in judges.parameters()) < 3.5e6


def judgements(recorded: float, decoded: float, feature: float) -> list[Judgement]:
    scores = torch.tensor([[recorded], [decoded]])
    return [Judgement(scores, (torch.tensor([[2.0], [feature]]),))]


def test_the_hinge_lets_go_beyond_one():
    assert telling_loss(judgements(1.5, -1.5, 0.0)) == 0.0
    assert telling_loss(judgements(0.5, 0.25, 0.0)) == pytest.approx(0.5 + 1.25)
    assert fooling_loss(judgements(9.0, 0.25, 0.0)) == pytest.approx(-0.25)


def test_features_are_matched_relative_to_the_recording():
    assert matching_loss(judgements(0.0, 0.0, 1.5)) == pytest.approx(0.25)
    scores, features = torch.zeros(2, 1), torch.tensor([[2.0], [1.0]], requires_grad=True)
    matching_loss([Judgement(scores, (features,))]).backward()
    assert features.grad.tolist() == [[0.0], [-0.5]]
