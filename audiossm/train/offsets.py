"""What is added to a writer's logits so that its choices have the best F1."""

from collections.abc import Sequence

import torch
from torch import Tensor

from audiossm.evaluate.writing import find_logits, score_forms, true_forms
from audiossm.marks import CAPITAL, CASES, COMMA, QUESTION, STOP, MarkedWord
from audiossm.models import Writer, choose_forms

__all__ = ["find_offsets"]

CHOICES = [0.1 * step for step in range(-15, 16)]
PLACES = (len(CASES) + STOP, len(CASES) + COMMA, len(CASES) + QUESTION, CAPITAL)
COUNTED = ("full stop", "comma", "question mark", "capitals")


def find_offsets(network: Writer, words: Sequence[MarkedWord]) -> Tensor:
    """Find what to add to ``network.head.bias``: the likeliest mark is too rarely a comma.

    Each offset in turn, twice, takes the value with which the F1 of full stops, commas, question
    marks and capitals have the largest sum.

    Args:
        network: a trained writer, in evaluation mode.
        words: of a stream that it hasn't been trained on.
    Returns:
        (cases + marks,) float32 on the CPU.
    """
    logits, truth = find_logits(network, words), true_forms(words)
    offsets = torch.zeros(logits.shape[-1])

    def worth(place: int, value: float) -> float:
        changed = offsets.clone()
        changed[place] = value
        scores = score_forms(truth, choose_forms(logits + changed, STOP))
        return sum(scores[name].f1 for name in COUNTED)

    for _ in range(2):
        for place in PLACES:
            # the smallest of those that are equally good
            best = max(CHOICES, key=lambda value: (worth(place, value), -abs(value)))
            offsets[place] = best
    return offsets
