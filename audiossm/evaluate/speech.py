"""All that is measured of a generator's speech, and whether it is good enough."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from audiossm.decoding.sampling import Sampling
from audiossm.errors import ConfigError
from audiossm.evaluate.machine import describe_machine
from audiossm.evaluate.pitch import require_librosa
from audiossm.evaluate.speech_continuation import CodeBits, FreeRun, count_bits, run_freely
from audiossm.evaluate.speech_parity import SpeechParity, compare_cuts
from audiossm.evaluate.speech_takes import Studio, cycle, read_text
from audiossm.evaluate.speech_voices import Likeness, measure_voices
from audiossm.evaluate.speech_words import Hearing, hear_takes, hear_with_pocketsphinx
from audiossm.evaluate.wer import require_jiwer
from audiossm.manifest import Utterance
from audiossm.models import LoadedGenerator, Voice
from audiossm.streaming import Transcriber

__all__ = ["SPEECH_MEASURES", "SpeechEvaluation", "Verdict", "evaluate_speech"]

SPEECH_MEASURES = ("words", "pocketsphinx", "voices", "continuation", "streaming")
MAX_WER_RATIO, MAX_LOST = 2.5, 0.02
MAX_PITCH_ERROR, LEAST_NEARER = 0.1, 0.15
LEAST_SAVED, MAX_LOUDER_DB, MAX_ENTROPY_CHANGE = 0.1, 6.0, 0.15
NUM_RUNS = 3  # of a minute
NUM_TEXTS, TEXT_WORDS = 9, 8  # that are cut, and the words of their sentences


@dataclass(frozen=True)
class Verdict:
    """A number beside its limit."""

    what: str
    value: float | None  # None: it couldn't be had
    limit: str
    passed: bool


@dataclass(frozen=True, kw_only=True)
class SpeechEvaluation:
    """What ``evaluate_speech`` measured; None or empty where it wasn't asked to.

    ``rtf`` is that of the sentences that were said in this run, None if all came from a folder.
    """

    hearing: Hearing | None
    likenesses: tuple[Likeness, ...]
    bits: CodeBits | None
    runs: tuple[FreeRun, ...]
    parity: SpeechParity | None
    model: str
    model_hash: str
    control: str | None
    manner: Mapping[str, Any]
    said_s: float
    rtf: float | None
    machine: dict[str, str | int]

    @property
    def verdicts(self) -> list[Verdict]:
        """Every limit that there is for what was measured."""
        return list(self._judge())

    @property
    def passed(self) -> bool:
        """Whether nothing is beyond its limit."""
        return all(verdict.passed for verdict in self.verdicts)

    def to_json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        return {
            "model": self.model,
            "model_hash": self.model_hash,
            "manner": dict(self.manner),
            "said_s": round(self.said_s, 2),
            "rtf": None if self.rtf is None else round(self.rtf, 4),
            "words": None if self.hearing is None else self.hearing.to_json(),
            "voices": [item.to_json() for item in self.likenesses],
            "bits": None if self.bits is None else {"control": self.control, **self.bits.to_json()},
            "free_runs": [run.to_json() for run in self.runs],
            "streaming": None if self.parity is None else self.parity.to_json(),
            "verdicts": [vars(verdict) for verdict in self.verdicts],
            "passed": self.passed,
            "machine": self.machine,
        }

    def _judge(self) -> Iterator[Verdict]:
        if self.hearing is not None:
            ratio, said = self.hearing.ratio, self.hearing.errors[0].rate
            good = said == 0 if ratio is None else ratio <= MAX_WER_RATIO
            yield Verdict("word errors over recordings'", ratio, f"<= {MAX_WER_RATIO:g}", good)
            lost = self.hearing.lost_share
            yield Verdict("words lost", lost, f"<= {MAX_LOST:g}", lost <= MAX_LOST)
        for item in self.likenesses:
            off = item.pitch_error
            good = off is not None and abs(off) <= MAX_PITCH_ERROR
            yield Verdict(f"{item.voice}: pitch error", off, f"+-{MAX_PITCH_ERROR:g}", good)
            nearer, whom = item.nearer_than_default, f"default voice {item.default_voice}"
            if nearer is None:  # it is the default voice, or there is none
                nearer, whom = item.nearer, "nobody"
            limit, good = f">= {LEAST_NEARER:g}", nearer >= LEAST_NEARER
            yield Verdict(f"{item.voice}: nearer than {whom}", nearer, limit, good)
        if self.bits is not None:
            share = sum(self.bits.model) / sum(self.bits.unigram)
            yield Verdict("bits a frame over unigram's", share, "< 1", share < 1)
            saved = self.bits.saved
            if saved is not None:
                good = saved >= LEAST_SAVED
                yield Verdict("fewer bits than control", saved, f">= {LEAST_SAVED:g}", good)
        for run in self.runs:
            value, most = run.louder_db, MAX_LOUDER_DB
            yield Verdict(f"{run.key}: louder, dB", value, f"+-{most:g}", abs(value) <= most)
            value, most = run.entropy_change, MAX_ENTROPY_CHANGE
            yield Verdict(f"{run.key}: code entropy", value, f"+-{most:g}", abs(value) <= most)
        if self.parity is not None:
            value = float(self.parity.differing_frames)
            yield Verdict("frames changed by cuts", value, "0", self.parity.passed)


def evaluate_speech(
    studio: Studio,
    utterances: Sequence[Utterance],
    voices: Sequence[Voice],
    *,
    measures: Sequence[str] = SPEECH_MEASURES,
    transcriber: Transcriber | None = None,
    recordings: Mapping[str, Sequence[Utterance]] | None = None,
    control: LoadedGenerator | None = None,
    num_runs: int = NUM_RUNS,
    free_sampling: Sampling | None = None,
    on_heard: Callable[[], None] | None = None,
) -> SpeechEvaluation:
    """Have a generator speak, and listen to it.

    Args:
        studio: says sentences, and has the generator.
        utterances: sentences with recordings, by whomever.
        voices: take turns.
        measures: which of ``SPEECH_MEASURES``.
        transcriber: who listens, for ``words``.
        recordings: of the voices, for ``voices``: by their names.
        control: a model that guesses codes too, for ``continuation``.
        num_runs: free runs of a minute, from as many of the recordings.
        free_sampling: how freely those are drawn; by default as ``Speaker.continue_audio`` does.
        on_heard: is called after each take that was listened to.

    Raises:
        AudioError: a recording can't be read.
        ConfigError: a measure isn't one, or lacks something.
        DependencyError: a package that measures is not installed.
        ModelError: the model's default voice can't be loaded, and voices are compared with it.
        PronunciationError: nothing of a text can be said.
    """
    require(measures, transcriber, recordings)
    speaker, manner = studio.speaker, studio.manner
    spent_s = said_s = 0.0
    hearing, likenesses = None, tuple[Likeness, ...]()
    default = speaker.voice() if "voices" in measures else None  # before minutes of other work
    if "words" in measures or "pocketsphinx" in measures:
        takes = [
            studio.say(item, cycle(voices, number), number)
            for number, item in enumerate(utterances)
        ]
        spent_s = sum(take.processing_s or 0.0 for take in takes)
        said_s = sum(take.seconds for take in takes if take.processing_s is not None)
        real = [studio.replay(item) for item in utterances]
        assert transcriber is not None
        rivals = None
        if "pocketsphinx" in measures:
            rivals = (
                hear_with_pocketsphinx(takes, on_heard),
                hear_with_pocketsphinx(real, on_heard),
            )
        hearing = Hearing(
            said=hear_takes(transcriber, takes, on_heard),
            real=hear_takes(transcriber, real, on_heard),
            recogniser=transcriber.name,
            rivals=rivals,
        )
    if default is not None:
        likenesses = measure_voices(studio, voices, recordings or {}, default)
    bits, runs = None, list[FreeRun]()
    if "continuation" in measures:
        bits = count_bits(speaker, utterances, control)
        for number, utterance in enumerate(choose_prompts(utterances, num_runs)):
            seed = manner.seed + number
            runs.append(run_freely(speaker, utterance, sampling=free_sampling, seed=seed))
    parity = None
    if "streaming" in measures:
        parity = compare_cuts(
            speaker,
            make_texts(utterances),
            lambda number: cycle(voices, number),
            sampling=manner.sampling,
            seed=manner.seed,
        )
    return SpeechEvaluation(
        hearing=hearing,
        likenesses=likenesses,
        bits=bits,
        runs=tuple(runs),
        parity=parity,
        model=speaker.name,
        model_hash=speaker.hash,
        control=None if control is None else control.name,
        manner=studio.about,
        said_s=said_s,
        rtf=spent_s / said_s if said_s else None,
        machine=describe_machine(),
    )


def require(
    measures: Sequence[str],
    transcriber: Transcriber | None,
    recordings: Mapping[str, Sequence[Utterance]] | None,
) -> None:
    """Raise before the work if something is missing."""
    for name in measures:
        if name not in SPEECH_MEASURES:
            raise ConfigError(f"{name!r} is not one of {', '.join(SPEECH_MEASURES)}")
    if "words" in measures or "pocketsphinx" in measures:
        require_jiwer()
        if transcriber is None:
            raise ConfigError("words are heard by a transcriber: there is none")
    if "voices" in measures:
        require_librosa()
        if not recordings:
            raise ConfigError("voices are compared with recordings: there are none")


def choose_prompts(utterances: Sequence[Utterance], count: int) -> list[Utterance]:
    """Return the first recordings, of different speakers as far as there are any."""
    first = {item.speaker or item.key: item for item in reversed(utterances)}
    chosen = [item for item in utterances if first[item.speaker or item.key] is item]
    return (chosen + [item for item in utterances if item not in chosen])[:count]


def make_texts(utterances: Sequence[Utterance]) -> list[str]:
    """Return texts of two short sentences."""
    some = [" ".join(read_text(item).split()[:TEXT_WORDS]) for item in utterances[: NUM_TEXTS + 1]]
    return [f"{a}, {b}?" if a.endswith(".") else f"{a}. {b}?" for a, b in pairwise(some)] or some
