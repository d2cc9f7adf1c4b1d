"""What a decoder and its discriminators want of each other: hinge losses and feature matching."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from audiossm.train.discriminators import Judgement
from audiossm.train.ranks import ALONE, Ranks

__all__ = ["fooling_loss", "matching_loss", "telling_loss"]


def telling_loss(judgements: Sequence[Judgement]) -> Tensor:
    """Hinge loss of the discriminators: above 1 for recorded rows, below -1 for decoded ones.

    Args:
        judgements: of rows whose first half is recorded and second half decoded.
    """
    losses = []
    for judgement in judgements:
        recorded, decoded = judgement.scores.float().chunk(2)
        losses.append(F.relu(1 - recorded).mean() + F.relu(1 + decoded).mean())
    return torch.stack(losses).mean()


def fooling_loss(judgements: Sequence[Judgement]) -> Tensor:
    """Hinge loss of the decoder: what it decoded should score high. Arguments as above."""
    return torch.stack([-j.scores.float().chunk(2)[1].mean() for j in judgements]).mean()


def matching_loss(judgements: Sequence[Judgement], ranks: Ranks = ALONE) -> Tensor:
    """Return how far features of decoded rows are from those of their recordings.

    L1 over the mean size of the recording's feature, mean over all layers; no gradient flows to the
    recorded rows. Arguments as above, and whose rows these are.
    """
    far, sizes = [], []
    for judgement in judgements:
        for feature in judgement.features:
            recorded, decoded = feature.float().chunk(2)
            recorded = recorded.detach()
            far.append((decoded - recorded).abs().mean())
            sizes.append(recorded.abs().mean())
    return (torch.stack(far) / ranks.mean(torch.stack(sizes)).clamp(min=1e-4)).mean()
