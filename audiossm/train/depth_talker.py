"""A generator in training that makes a frame's groups one after the other, by a small depth head.

The other way to order groups, beside the delay pattern: the backbone makes a step a frame, whose
outcome a small network of its own turns into the codes of the frame, each group from those before
it (the RQ-Transformer, Lee et al., arXiv:2203.01941, with feed-forward layers instead of attention:
there are four groups). It is here to be compared with (recipes/generate/ablate.py).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiossm.models.generator import GeneratorConfig
from audiossm.nn import RMSNorm, SwiGLU
from audiossm.train.recitals import Recital
from audiossm.train.talker import Talker, find_losses

__all__ = ["DepthHead", "DepthTalker"]

WIDTH_SHARE = 0.8  # of the backbone's channels


class DepthHead(nn.Module):
    """The logits of a frame's codes, group after group.

    Args:
        config: of the generator.
        num_layers: feed-forward layers, shared by the groups.
    """

    def __init__(self, config: GeneratorConfig, num_layers: int = 2) -> None:
        super().__init__()
        groups, width = config.num_groups, round(WIDTH_SHARE * config.backbone.d_model)
        self.begin = nn.Linear(config.backbone.d_model, width)
        # a code is told by its digits, as the generator hears it
        self.digits = nn.Embedding(groups * sum(config.levels) + 1, width)
        self.groups = nn.Embedding(groups, width)
        self.norms = nn.ModuleList(RMSNorm(width) for _ in range(num_layers))
        self.layers = nn.ModuleList(SwiGLU(width, 2 * width) for _ in range(num_layers))
        self.norm_f = RMSNorm(width)
        self.heads = nn.Parameter(torch.empty(groups, config.num_codes, width))
        self.biases = nn.Parameter(torch.zeros(groups, config.num_codes))
        nn.init.normal_(self.digits.weight, std=0.3)
        nn.init.normal_(self.groups.weight, std=0.3)
        nn.init.normal_(self.heads, std=width**-0.5)

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:
        """Return logits (batch, frames, groups, codes).

        Args:
            x: (batch, frames, d_model): what the backbone made of the frames before.
            rows: (batch, frames, groups, dimensions): of ``digits``, the codes of the frame itself;
                each group sees those before it.
        """
        # as products, whose gradient is one; of so many lookups it would be a long sum
        counts = x.new_zeros(*rows.shape[:-1], self.digits.num_embeddings)
        ones = torch.ones((), device=x.device).to(x.dtype).expand(rows.shape)
        told = counts.scatter_add(3, rows, ones) @ self.digits.weight
        before = F.pad(told, (0, 0, 1, 0))[:, :, :-1].cumsum(2)
        h = self.begin(x).unsqueeze(2) + before + self.groups.weight
        for norm, layer in zip(self.norms, self.layers, strict=True):
            h = h + layer(norm(h))
        logits = torch.einsum("bfgw,gcw->bfgc", self.norm_f(h).to(self.heads.dtype), self.heads)
        return logits + self.biases


class DepthTalker(Talker):
    """A talker without delay: a step hears the whole frame before it."""

    def __init__(self, config: GeneratorConfig, num_speakers: int, noise: float = 0.0) -> None:
        super().__init__(config, num_speakers, noise)
        self.generator.head = nn.Identity()  # type: ignore[assignment]
        self.depth = DepthHead(config)
        self.ending = nn.Linear(config.backbone.d_model, 1)

    def forward(self, recital: Recital) -> Tensor:
        """Return the mean losses, in nats: of each group's codes, then of the units' ends."""
        none, codes = self.generator.config.num_codes, recital.codes.long()
        before = F.pad(codes, (0, 0, 1, 0), value=none)[:, :-1]
        beside = codes
        if self.training:
            before, beside = self.mishear(before), self.mishear(beside)
        x = self.listen(recital, before)
        groups = torch.arange(codes.shape[-1], device=codes.device)
        logits = self.depth(x, self.generator.rows[groups, beside])
        return find_losses(logits, codes, self.ending(x)[..., 0], recital.ends)
