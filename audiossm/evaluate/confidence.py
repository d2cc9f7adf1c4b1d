"""Are confidences probabilities? Words right and wrong, by how sure the recogniser is of them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiossm.audio import open_audio
from audiossm.decoding import choose_decoder
from audiossm.evaluate.machine import describe_machine
from audiossm.evaluate.wer import match_words, require_jiwer
from audiossm.manifest import Utterance
from audiossm.streaming import Transcriber, Word
from audiossm.streaming.files import transcribe_stream

__all__ = ["Bin", "ConfidenceEvaluation", "evaluate_confidence", "hear_words", "measure_bins"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Words that the recogniser is about equally sure of."""

    words: int
    lowest: float  # confidence
    highest: float
    confidence: float  # mean
    right: float  # share


@dataclass(frozen=True, kw_only=True)
class ConfidenceEvaluation:
    """What ``evaluate_confidence`` measured."""

    bins: tuple[Bin, ...]
    words: int
    right: float  # share
    discrimination: float  # area under the ROC curve: 0.5 tells nothing, 1 tells all
    brier: float  # mean squared difference from what is so
    is_calibrated: bool
    model: str
    model_hash: str
    lookahead_ms: int
    machine: dict[str, str | int]

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: mean distance of confidence and share that is right."""
        total = sum(item.words * abs(item.confidence - item.right) for item in self.bins)
        return total / max(self.words, 1)

    def to_json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        return {"calibration_error": self.calibration_error, **asdict(self)}


def evaluate_confidence(
    transcriber: Transcriber,
    utterances: Sequence[Utterance],
    *,
    lookahead_ms: int = 320,
    num_bins: int = 15,
    on_utterance: Callable[[], None] | None = None,
) -> ConfidenceEvaluation:
    """Transcribe each utterance and compare its words' confidences with what is right.

    A word is right if the alignment of least word errors has it.

    Args:
        transcriber: a loaded model.
        utterances: what ``read_manifest`` returned, or a part of it.
        lookahead_ms: the model's look-ahead.
        num_bins: of as many words each.
        on_utterance: is called after each utterance.

    Raises:
        AudioError: an utterance can't be read.
        DependencyError: jiwer is not installed.
    """
    require_jiwer()
    confidences: list[float] = []
    right: list[bool] = []
    for utterance in utterances:
        for word, is_right in hear_words(transcriber, utterance, lookahead_ms):
            confidences.append(word.confidence)
            right.append(is_right)
        if on_utterance is not None:
            on_utterance()
    sure, truth = np.array(confidences, np.float64), np.array(right, np.float64)
    return ConfidenceEvaluation(
        bins=measure_bins(sure, truth, num_bins),
        words=len(sure),
        right=float(truth.mean()) if len(truth) else 0.0,
        discrimination=measure_area(sure, truth),
        brier=float(np.mean((sure - truth) ** 2)) if len(truth) else 0.0,
        is_calibrated=transcriber.calibration is not None
        and transcriber.decoder == choose_decoder(transcriber.config),
        model=transcriber.name,
        model_hash=transcriber.hash,
        lookahead_ms=lookahead_ms,
        machine=describe_machine(transcriber.device.type),
    )


def hear_words(
    transcriber: Transcriber, utterance: Utterance, lookahead_ms: int
) -> Iterator[tuple[Word, bool]]:
    """Transcribe an utterance and yield its words, and whether each is right."""
    name = f"{utterance.shard.name}:{utterance.key}" if utterance.shard else None
    with open_audio(utterance.open(), name=name) as reader:
        rate = reader.sample_rate
        events = transcribe_stream(reader, lambda: transcriber.session(rate, lookahead_ms))
        words = [event for event in events if isinstance(event, Word)]
    _, written = match_words(utterance.text, " ".join(word.word for word in words))
    for number, word in enumerate(words):
        yield word, number in written


def measure_bins(confidences: Floats, right: Floats, num_bins: int) -> tuple[Bin, ...]:
    """Sort words by confidence and part them in bins of as many words each, or one fewer."""
    order = np.argsort(confidences, kind="stable")
    return tuple(
        Bin(
            words=len(part),
            lowest=float(confidences[part[0]]),
            highest=float(confidences[part[-1]]),
            confidence=float(confidences[part].mean()),
            right=float(right[part].mean()),
        )
        for part in np.array_split(order, num_bins)
        if len(part)
    )


def measure_area(confidences: Floats, right: Floats) -> float:
    """Return how often a right word has a higher confidence than a wrong one; ties are halves."""
    num_right = right.sum()
    num_wrong = len(right) - num_right
    if not num_right or not num_wrong:
        return math.nan
    _, place, counts = np.unique(confidences, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    over = ranks[right > 0].sum() - num_right * (num_right + 1) / 2
    return float(over / (num_right * num_wrong))
