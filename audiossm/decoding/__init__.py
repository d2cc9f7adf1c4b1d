"""Decoding: from label probabilities to words, incremental, the state a value."""

from audiossm.decoding.align import LabelSpans, align_labels
from audiossm.decoding.decoder import (
    DECODERS,
    Decoder,
    DecoderName,
    choose_decoder,
    find_decoder,
    make_decoder,
)
from audiossm.decoding.endpoints import EndpointRules, Segmenter, SegmentState
from audiossm.decoding.greedy import GreedyDecoder, GreedyState, best_labels
from audiossm.decoding.words import DecodedEndpoint, DecodedToken, DecodedWord, Reading, Rule

__all__ = [
    "DECODERS",
    "DecodedEndpoint",
    "DecodedToken",
    "DecodedWord",
    "Decoder",
    "DecoderName",
    "EndpointRules",
    "GreedyDecoder",
    "GreedyState",
    "LabelSpans",
    "Reading",
    "Rule",
    "SegmentState",
    "Segmenter",
    "align_labels",
    "best_labels",
    "choose_decoder",
    "find_decoder",
    "make_decoder",
]
