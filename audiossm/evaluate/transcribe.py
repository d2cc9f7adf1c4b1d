"""Word error rate and speed of a transcriber over a manifest."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from audiossm.audio import open_audio
from audiossm.errors import AudioError, ManifestError
from audiossm.evaluate.bootstrap import Interval, change_interval, rate_interval
from audiossm.evaluate.machine import describe_machine
from audiossm.evaluate.wer import WordErrors, count_word_errors, require_jiwer
from audiossm.manifest import Utterance
from audiossm.streaming import Transcriber, Word
from audiossm.streaming.files import transcribe_stream

__all__ = [
    "Change",
    "Evaluation",
    "Group",
    "GroupBy",
    "Score",
    "evaluate_transcriber",
    "read_scores",
]

GroupBy = Literal["source", "speaker", "lang"]
COUNTS = tuple(item.name for item in fields(WordErrors))


@dataclass(frozen=True, kw_only=True)
class Score:
    """One utterance: its errors, its time, and why it couldn't be read if it couldn't."""

    utterance: Utterance
    hypothesis: str
    errors: WordErrors
    audio_s: float
    processing_s: float
    failure: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what was said and heard, and the counts, as ``read_scores`` reads them."""
        return {
            "key": self.utterance.key,
            "speaker": self.utterance.speaker,
            "reference": self.utterance.text,
            "hypothesis": self.hypothesis,
            **{name: getattr(self.errors, name) for name in COUNTS},
        }


@dataclass(kw_only=True)
class Group:
    """Sums over some utterances."""

    errors: WordErrors = field(default_factory=WordErrors)
    num_utterances: int = 0
    audio_s: float = 0.0
    processing_s: float = 0.0

    @property
    def rtf(self) -> float:
        """Real-time factor: processing seconds / audio seconds; below 1 keeps up."""
        return self.processing_s / self.audio_s if self.audio_s else 0.0

    def add(self, score: Score) -> None:
        """Count one more utterance."""
        self.errors += score.errors
        self.num_utterances += 1
        self.audio_s += score.audio_s
        self.processing_s += score.processing_s

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as a JSON object; ``wer`` and ``rtf`` are fractions."""
        return {
            "wer": self.errors.rate,
            "substitutions": self.errors.substitutions,
            "deletions": self.errors.deletions,
            "insertions": self.errors.insertions,
            "words": self.errors.words,
            "utterances": self.num_utterances,
            "audio_s": round(self.audio_s, 3),
            "processing_s": round(self.processing_s, 3),
            "rtf": round(self.rtf, 5),
        }


@dataclass(frozen=True, kw_only=True)
class Change:
    """Word error rates of one model and then of another, on the same utterances; fractions.

    ``interval`` is of the share of errors that are gone.
    """

    before: float
    now: float
    interval: Interval | None

    @property
    def fewer(self) -> float | None:
        """Which share of the errors is gone, negative if there are more; None of none at all."""
        return 1 - self.now / self.before if self.before else None

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as a JSON object."""
        found = {"before": self.before, "now": self.now, "fewer": self.fewer}
        return found | {"fewer_interval": self.interval and self.interval.to_json()}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What ``evaluate_transcriber`` measured."""

    scores: tuple[Score, ...]
    model: str
    model_hash: str
    lookahead_ms: int
    machine: dict[str, str | int]

    @property
    def total(self) -> Group:
        """Sums over all utterances."""
        return self.group_by(lambda score: "")[""]

    @property
    def failures(self) -> list[Score]:
        """The utterances that couldn't be read; all their words are counted as deleted."""
        return [score for score in self.scores if score.failure is not None]

    def group_by(self, name: Callable[[Score], str]) -> dict[str, Group]:
        """Return sums by whatever ``name`` says, sorted."""
        groups: dict[str, Group] = {}
        for score in self.scores:
            groups.setdefault(name(score), Group()).add(score)
        return dict(sorted(groups.items()))

    @property
    def interval(self) -> Interval | None:
        """Between what word error rates other recordings of this kind would have."""
        speakers = [score.utterance.speaker for score in self.scores]
        return rate_interval(speakers, [score.errors for score in self.scores])

    def compare(self, before: Mapping[str, WordErrors]) -> Change:
        """Return what changed since ``before``, errors by key that ``read_scores`` returned."""
        then = [before[score.utterance.key] for score in self.scores]
        now = [score.errors for score in self.scores]
        speakers = [score.utterance.speaker for score in self.scores]
        rates = (sum(errors, WordErrors()).rate for errors in (then, now))
        return Change(
            before=next(rates), now=next(rates), interval=change_interval(speakers, then, now)
        )

    def to_json(self, by: GroupBy = "source") -> dict[str, Any]:
        """Return the report as one JSON object, with the groups under ``per_<by>``."""
        groups = self.group_by(lambda score: getattr(score.utterance, by))
        interval = self.interval
        return {
            **self.total.to_json(),
            "wer_interval": interval and interval.to_json(),
            "model": self.model,
            "model_hash": self.model_hash,
            "lookahead_ms": self.lookahead_ms,
            "machine": self.machine,
            f"per_{by}": {name: group.to_json() for name, group in groups.items()},
            "failures": [
                {"key": score.utterance.key, "error": score.failure} for score in self.failures
            ],
        }


def evaluate_transcriber(
    transcriber: Transcriber,
    utterances: Iterable[Utterance],
    *,
    lookahead_ms: int = 320,
    device: str = "cpu",
    hotwords: Mapping[str, Sequence[str]] | None = None,
    on_score: Callable[[Score], None] | None = None,
) -> Evaluation:
    """Transcribe each utterance, one after the other, and count word errors.

    Args:
        transcriber: a loaded model; loading isn't timed.
        utterances: what ``read_manifest`` returned, or a part of it.
        lookahead_ms: the model's look-ahead.
        device: where the model is, for the report.
        hotwords: the hot words of each utterance, by its key; none where there is no such key.
        on_score: is called after each utterance.
    Raises:
        DependencyError: jiwer is not installed.
    """
    require_jiwer()
    scores = []
    for utterance in utterances:
        phrases = (hotwords or {}).get(utterance.key, ())
        score = _score_utterance(transcriber, utterance, lookahead_ms, phrases)
        scores.append(score)
        if on_score is not None:
            on_score(score)
    return Evaluation(
        scores=tuple(scores),
        model=transcriber.name,
        model_hash=transcriber.hash,
        lookahead_ms=lookahead_ms,
        machine=describe_machine(device),
    )


def read_scores(path: Path, utterances: Iterable[Utterance]) -> dict[str, WordErrors]:
    """Return the errors that another model made on utterances, by key.

    Args:
        path: JSON Lines of ``Score.to_json``; others than these utterances may be in it.
        utterances: those that will be compared.

    Raises:
        ManifestError: it can't be read, or not all of the utterances are in it with their texts.
    """
    rows, number = {}, 0
    try:
        for line in path.read_text(encoding="utf-8").removesuffix("\n").split("\n"):
            number += 1
            row = json.loads(line)
            rows[row["key"]] = row["reference"], WordErrors(*(int(row[name]) for name in COUNTS))
    except OSError as exc:
        raise ManifestError(f"{path}: can't read the scores: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise ManifestError(f"{path}: no scores: it isn't UTF-8 text") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise ManifestError(
            f"{path}:{number}: no line of scores, as audiossm evaluate transcribe --scores has them"
        ) from exc
    found = {}
    for utterance in utterances:
        text, errors = rows.get(utterance.key, (None, WordErrors()))
        if text != utterance.text:
            raise ManifestError(
                f"{path}: has no {utterance.key!r} with the text of {utterance.where}: "
                "scores can be compared on the same recordings only"
            )
        found[utterance.key] = errors
    return found


def _score_utterance(
    transcriber: Transcriber, utterance: Utterance, lookahead_ms: int, hotwords: Sequence[str]
) -> Score:
    words: list[str] = []
    failure = None
    num_samples, sample_rate = 0, 1

    def count_block(size: int) -> None:
        nonlocal num_samples
        num_samples += size

    # a member of a shard has no path to be named by
    name = f"{utterance.shard.name}:{utterance.key}" if utterance.shard else None
    started = time.perf_counter()
    try:
        with open_audio(utterance.open(), name=name) as reader:
            sample_rate = reader.sample_rate
            for event in transcribe_stream(
                reader,
                lambda: transcriber.session(sample_rate, lookahead_ms, hotwords),
                on_block=count_block,
            ):
                if isinstance(event, Word):
                    words.append(event.word)
    except (AudioError, ManifestError) as exc:
        words, failure = [], str(exc)
    processing_s = time.perf_counter() - started
    hypothesis = " ".join(words)
    return Score(
        utterance=utterance,
        hypothesis=hypothesis,
        errors=count_word_errors(utterance.text, hypothesis),
        audio_s=num_samples / sample_rate,
        processing_s=processing_s,
        failure=failure,
    )
