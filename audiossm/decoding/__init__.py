"""Decoding: from label probabilities to words, incremental, the state a value."""

from audiossm.decoding.align import LabelSpans, align_labels
from audiossm.decoding.decoder import (
    DECODERS,
    Decoder,
    DecoderName,
    choose_decoder,
    make_decoder,
)
from audiossm.decoding.greedy import GreedyDecoder, GreedyState, best_labels
from audiossm.decoding.words import DecodedToken, DecodedWord

__all__ = [
    "DECODERS",
    "DecodedToken",
    "DecodedWord",
    "Decoder",
    "DecoderName",
    "GreedyDecoder",
    "GreedyState",
    "LabelSpans",
    "align_labels",
    "best_labels",
    "choose_decoder",
    "make_decoder",
]
