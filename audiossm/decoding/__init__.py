"""Decoding: from label probabilities to words, incremental, the state a value."""

from audiossm.decoding.align import LabelSpans, align_labels
from audiossm.decoding.greedy import (
    DecodedToken,
    DecodedWord,
    GreedyDecoder,
    GreedyState,
    best_labels,
)

__all__ = [
    "DecodedToken",
    "DecodedWord",
    "GreedyDecoder",
    "GreedyState",
    "LabelSpans",
    "align_labels",
    "best_labels",
]
