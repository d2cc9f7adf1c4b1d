"""Hot words, measured: how many rare words they bring back, and how many appear unsaid."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiossm.errors import HotwordError, ManifestError
from audiossm.evaluate.transcribe import Evaluation, Score, evaluate_transcriber
from audiossm.evaluate.wer import match_words
from audiossm.hotwords import check_hotwords
from audiossm.manifest import Utterance
from audiossm.streaming import Transcriber
from audiossm.text import normalise_text

__all__ = ["HotwordEvaluation", "HotwordList", "evaluate_hotwords", "read_lists"]


@dataclass(frozen=True)
class HotwordList:
    """The hot words of an utterance: those that are said in it, and others."""

    rare_words: tuple[str, ...]
    phrases: tuple[str, ...]  # both kinds


@dataclass(frozen=True, kw_only=True)
class Run:
    """The same utterances transcribed with or without their lists."""

    evaluation: Evaluation
    said: int  # rare words in the references
    found: int  # of them written in their places
    false_alarms: tuple[tuple[str, str], ...]  # utterance, phrase of its list written but not said

    @property
    def recall(self) -> float:
        """The share of the rare words that were written in their places."""
        return self.found / max(self.said, 1)

    @property
    def alarms_per_10_min(self) -> float:
        """False alarms in ten minutes of audio."""
        audio_s = self.evaluation.total.audio_s
        return 600 * len(self.false_alarms) / audio_s if audio_s else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as a JSON object; ``wer`` and ``recall`` are fractions."""
        return {
            "wer": self.evaluation.total.errors.rate,
            "rare_words": self.said,
            "found": self.found,
            "recall": self.recall,
            "false_alarms": [list(alarm) for alarm in self.false_alarms],
            "false_alarms_per_10_min": self.alarms_per_10_min,
            "rtf": round(self.evaluation.total.rtf, 5),
        }


@dataclass(frozen=True, kw_only=True)
class HotwordEvaluation:
    """What ``evaluate_hotwords`` measured."""

    without: Run
    with_lists: Run

    @property
    def misses_left(self) -> float:
        """The share of the rare words missed without the lists that is missed with them."""
        missed = self.without.said - self.without.found
        return (self.with_lists.said - self.with_lists.found) / max(missed, 1)

    def to_json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        evaluation = self.with_lists.evaluation
        return {
            "without": self.without.to_json(),
            "with": self.with_lists.to_json(),
            "misses_left": self.misses_left,
            "model": evaluation.model,
            "model_hash": evaluation.model_hash,
            "lookahead_ms": evaluation.lookahead_ms,
            "machine": evaluation.machine,
            "failures": [
                {"key": score.utterance.key, "error": score.failure}
                for score in evaluation.failures
            ],
        }


def read_lists(path: str | Path) -> dict[str, HotwordList]:
    """Read a table of hot words, as the public contextual-biasing lists of LibriSpeech have them.

    Tab-separated with a header; ``key`` is the utterance's, ``rare_words`` a JSON list of the words
    that are said in it, and a column that begins with ``phrases`` one of these and others.

    Raises:
        HotwordError: it can't be read, or a line is wrong (``file:line`` is named).
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as exc:
        raise HotwordError(f"{path}: can't read the lists: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise HotwordError(f"{path}: not a table of hot words (it isn't UTF-8 text)") from exc
    rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    header = next(rows, [])
    listed = [name for name in header if name.startswith("phrases")]
    if "key" not in header or "rare_words" not in header or len(listed) != 1:
        raise HotwordError(
            f"{path}: expected the columns key, rare_words and one phrases..., got {header}"
        )
    lists: dict[str, HotwordList] = {}
    for number, row in enumerate(rows, 2):
        where = f"{path}:{number}"
        if len(row) != len(header):
            raise HotwordError(f"{where}: {len(row)} columns, but the header has {len(header)}")
        fields = dict(zip(header, row, strict=True))
        if fields["key"] in lists:
            raise HotwordError(f"{where}: the key {fields['key']!r} stands there twice")
        lists[fields["key"]] = HotwordList(
            _read_phrases(fields["rare_words"], where), _read_phrases(fields[listed[0]], where)
        )
    return lists


def _read_phrases(text: str, where: str) -> tuple[str, ...]:
    try:
        phrases = json.loads(text)
        if not isinstance(phrases, list) or not all(isinstance(item, str) for item in phrases):
            raise ValueError
        return tuple(word.phrase for word in check_hotwords(phrases))
    except HotwordError as exc:
        raise HotwordError(f"{where}: {exc}") from exc
    except (ValueError, RecursionError) as exc:
        raise HotwordError(f"{where}: {text[:20]!r} is not a JSON list of phrases") from exc


def evaluate_hotwords(
    transcriber: Transcriber,
    utterances: Sequence[Utterance],
    lists: dict[str, HotwordList],
    *,
    lookahead_ms: int = 320,
    on_score: Callable[[Score], None] | None = None,
) -> HotwordEvaluation:
    """Transcribe each utterance without hot words, then with its list, and compare.

    A rare word is found, and a phrase of the list is said, where the alignment of least word errors
    has it; both runs count false alarms by the same lists.

    Args:
        transcriber: a loaded model whose decoder is ``beam``.
        utterances: what ``read_manifest`` returned, or a part of it.
        lists: by key; each utterance must have one.
        lookahead_ms: the model's look-ahead.
        on_score: is called after each utterance, twice for each.

    Raises:
        ConfigError: the decoder can't weigh hot words.
        DependencyError: jiwer is not installed.
        ManifestError: an utterance has no list.
    """
    for utterance in utterances:
        if utterance.key not in lists:
            raise ManifestError(f"{utterance.where}: {utterance.key!r} has no list of hot words")

    def run(hotwords: dict[str, tuple[str, ...]]) -> Run:
        evaluation = evaluate_transcriber(
            transcriber,
            utterances,
            lookahead_ms=lookahead_ms,
            device=transcriber.device.type,
            hotwords=hotwords,
            on_score=on_score,
        )
        return count_hotwords(evaluation, lists)

    with_lists = run({key: item.phrases for key, item in lists.items()})
    return HotwordEvaluation(without=run({}), with_lists=with_lists)


def count_hotwords(evaluation: Evaluation, lists: dict[str, HotwordList]) -> Run:
    """Count what was found of the rare words, and what was written unsaid of the lists."""
    said = found = 0
    alarms: list[tuple[str, str]] = []
    for score in evaluation.scores:
        item = lists[score.utterance.key]
        in_reference, in_hypothesis = match_words(score.utterance.text, score.hypothesis)
        for _, places in find_phrases(score.utterance.text, item.rare_words):
            said += 1
            found += in_reference.issuperset(places)
        for phrase, places in find_phrases(score.hypothesis, item.phrases):
            if not in_hypothesis.issuperset(places):
                alarms.append((score.utterance.key, phrase))
    return Run(evaluation=evaluation, said=said, found=found, false_alarms=tuple(alarms))


def find_phrases(text: str, phrases: Sequence[str]) -> list[tuple[str, range]]:
    """Return where phrases of plain words stand in a text, as ranges of its words."""
    words = normalise_text(text).split()
    spelled = {tuple(phrase.split()): phrase for phrase in phrases}
    lengths = sorted({len(parts) for parts in spelled})
    return [
        (spelled[tuple(words[at : at + length])], range(at, at + length))
        for at in range(len(words))
        for length in lengths
        if tuple(words[at : at + length]) in spelled
    ]
