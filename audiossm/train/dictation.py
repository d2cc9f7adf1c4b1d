"""What a writer reads at each step of training: rows of running words without case or marks."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from audiossm.marks import CASES, MARKS
from audiossm.models import WriterConfig
from audiossm.models.writer import BORDER
from audiossm.train.sentences import Sentences

__all__ = ["Dictation", "Page", "writing_loss"]

IGNORED = -100  # as a label: what cross entropy leaves out


class Page(NamedTuple):
    """Rows of words and how those ``lookahead`` before are written."""

    features: Tensor  # (rows, words, features) int64
    cases: Tensor  # (rows, words) int64, IGNORED where there is no word
    marks: Tensor  # (rows, words) int64


class Dictation:
    """Sentences joined to one stream, in another order in each pass, cut into rows.

    A sentence ends anywhere in a row and the next one follows at once, so that nothing but the
    words tells where. Some ends are borders, as where a stream is flushed, and so are some places
    within sentences. What a step reads is a function of the seed and the step.

    Args:
        config: of the writer.
        sentences: all of them.
        hp: ``seed``, ``rows``, ``row_words``, ``block`` (sentences that stay together in every
            other pass), and the shares ``border`` (of sentences that end with a border), ``cut``
            (that have one inside), ``misheard`` (of words: replaced by any other) and ``unknown``
            (known by their first and last letters only).
        device: where the arrays lie.
    """

    def __init__(
        self, config: WriterConfig, sentences: Sentences, hp: dict[str, Any], device: torch.device
    ) -> None:
        self.hp, self.device, self.lookahead = hp, device, config.lookahead
        self.features = config.features([*sentences.words, BORDER]).to(device)
        # the last item is the border; it has no label
        ids = torch.from_numpy(sentences.ids.astype(np.int64))
        self.ids = F.pad(ids, (0, 1), value=len(sentences.words)).to(device)
        self.labels = torch.from_numpy(sentences.labels.astype(np.int64)).to(device)
        self.labels = F.pad(self.labels, (0, 1), value=IGNORED)
        self.starts = torch.from_numpy(sentences.starts).to(device)
        self.num_batches = len(sentences.ids) // (hp["rows"] * hp["row_words"])
        if not self.num_batches:
            raise ValueError(f"{len(sentences.ids)} words are fewer than a step takes")
        self.number, self.stream = -1, torch.zeros(0)

    def page(self, step: int) -> Page:
        """Return what a step reads."""
        hp, size = self.hp, self.hp["rows"] * self.hp["row_words"]
        number, at = divmod(step, self.num_batches)
        if number != self.number:
            self.number, self.stream = number, self._order(number)
        items = self.stream[at * size : (at + 1) * size].view(hp["rows"], -1)
        rng = self._random(1, step)
        words, border = self.ids[items], items == len(self.ids) - 1
        other = torch.randint(len(self.ids) - 1, items.shape, generator=rng, device=self.device)
        misheard = self._chance(items, hp["misheard"], rng) & ~border
        features = self.features[torch.where(misheard, self.ids[other], words)]
        unknown = self._chance(items, hp["unknown"], rng) & ~border
        features[..., 0].masked_fill_(unknown, 0)
        labels = F.pad(self.labels[items], (self.lookahead, 0), value=IGNORED)
        labels = labels[:, : items.shape[1]]
        blank = labels == IGNORED
        cases = (labels // len(MARKS)).masked_fill(blank, IGNORED)
        return Page(features, cases, (labels % len(MARKS)).masked_fill(blank, IGNORED))

    def _order(self, number: int) -> Tensor:
        """Lay the sentences of a pass one after the other: indices into ``ids``."""
        hp, count, rng = self.hp, len(self.starts) - 1, self._random(0, number)
        block = hp["block"] if number % 2 else 1
        blocks = torch.randperm(-(-count // block), generator=rng, device=self.device)
        order = (blocks.unsqueeze(1) * block + torch.arange(block, device=self.device)).flatten()
        order = order[order < count]
        first, last = self.starts[order], self.starts[order + 1]
        # each sentence is two pieces, the first of which is empty but where it is cut
        cut = self._chance(first, hp["cut"], rng)
        place = torch.rand(count, generator=rng, device=self.device) * (last - first)
        middle = torch.where(cut, first + place.long(), first)
        begins = torch.stack([first, middle], 1).flatten()
        words = torch.stack([middle - first, last - middle], 1).flatten()
        ends = self._chance(first, hp["border"], rng)
        borders = torch.stack([middle > first, ends], 1).flatten() * self.lookahead
        sizes = words + borders
        offsets = sizes.cumsum(0) - sizes
        which = torch.repeat_interleave(sizes)
        at = torch.arange(len(which), device=self.device) - offsets[which]
        return torch.where(at < words[which], begins[which] + at, len(self.ids) - 1)

    def _chance(self, like: Tensor, share: float, rng: torch.Generator) -> Tensor:
        return torch.rand(like.shape, generator=rng, device=self.device) < share

    def _random(self, *numbers: int) -> torch.Generator:
        seed = 0
        for number in (self.hp["seed"], *numbers):
            seed = seed * 1_000_003 + number
        return torch.Generator(self.device).manual_seed(seed)


def writing_loss(logits: Tensor, page: Page) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the cross entropy of cases and marks, nats per word, and the two alone."""
    flat = logits.flatten(0, 1)
    case = F.cross_entropy(flat[:, : len(CASES)], page.cases.flatten(), ignore_index=IGNORED)
    mark = F.cross_entropy(flat[:, len(CASES) :], page.marks.flatten(), ignore_index=IGNORED)
    return case + mark, {"case": case.detach(), "mark": mark.detach()}
