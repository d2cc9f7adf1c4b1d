"""Quality of a codec's speech over a manifest, beside that of Opus on the same files."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import NamedTuple

import torch
from torch import Tensor

from audiossm.codec import LoadedCodec
from audiossm.errors import AudioError, ConfigError, ManifestError
from audiossm.evaluate.codec_scores import CodecEvaluation, Score
from audiossm.evaluate.coders import Coder, make_coders
from audiossm.evaluate.machine import describe_machine
from audiossm.evaluate.metrics import DEFAULT_METRICS, METRICS
from audiossm.evaluate.opus import require_av
from audiossm.evaluate.pitch import track_pitch
from audiossm.evaluate.quality import SAMPLE_RATE, measure_quality, require_metrics
from audiossm.evaluate.recording import read_recording
from audiossm.evaluate.wer import WordErrors, count_word_errors, require_jiwer
from audiossm.manifest import Utterance
from audiossm.processes import start_processes
from audiossm.streaming import Transcriber, Word

__all__ = ["evaluate_codec"]

# what measures what, beside torch and ourselves
PACKAGES = {"pesq": "pesq", "stoi": "pystoi", "f0": "librosa", "wer": "jiwer"}


class Measured(NamedTuple):
    """One recording through all coders, or why it couldn't be read."""

    scores: list[Score]
    num_samples: int = 0
    original_words: WordErrors | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Measurement:
    """What is done to each recording; a value that other processes can take."""

    coders: Sequence[Coder]
    metrics: Sequence[str]
    transcriber: Transcriber | None

    def measure(self, utterance: Utterance) -> Measured:
        """Send a recording through all coders and compare."""
        try:
            samples = torch.from_numpy(read_recording(utterance).at_rate(SAMPLE_RATE))
        except (AudioError, ManifestError) as exc:
            return Measured([], failure=str(exc))
        pitch = track_pitch(samples, SAMPLE_RATE) if "f0" in self.metrics else None
        scores = []
        for coder in self.coders:
            coded = coder.run(samples, utterance.key)
            scores.append(
                Score(
                    key=utterance.key,
                    coder=coder.name,
                    quality=measure_quality(samples, coded.samples, self.metrics, pitch=pitch),
                    payload_bps=coded.payload_bps,
                    delay_s=coded.delay_s,
                    words=self.count_words(utterance.text, coded.samples),
                )
            )
        return Measured(scores, len(samples), self.count_words(utterance.text, samples))

    def count_words(self, text: str, samples: Tensor) -> WordErrors | None:
        """Count the word errors of the recogniser, if it was asked for and there is a text."""
        if self.transcriber is None or not text:
            return None
        session = self.transcriber.session(SAMPLE_RATE)
        events = [*session.push(samples.numpy()), *session.finish()]
        said = " ".join(event.word for event in events if isinstance(event, Word))
        return count_word_errors(text, said)


def evaluate_codec(
    codec: LoadedCodec | None,
    utterances: Iterable[Utterance],
    *,
    groups: Sequence[int] | None = None,
    losses: Sequence[float] = (),
    metrics: Sequence[str] = DEFAULT_METRICS,
    transcriber: Transcriber | None = None,
    jobs: int = 1,
    live: bool = False,
    on_utterance: Callable[[], None] | None = None,
) -> CodecEvaluation:
    """Encode and decode each recording, by the codec and by Opus at 6, 8 and 12 kbps, and compare.

    All is compared at 16000 Hz, mono, as loud as it comes. The codec's delay is known and Opus's
    is found in each file by cross-correlation; both are removed.

    Args:
        codec: a loaded codec, or None for Opus alone.
        utterances: what ``read_manifest`` returned, or a part of it; texts matter for ``wer`` only.
        groups: from how many of the codec's groups to decode, for each of its bit rates; by
            default a quarter of them, half, and all.
        losses: fractions of frames to lose at random, each decoder concealing them, beside none;
            the same frames of a recording for every coder.
        metrics: which of ``METRICS``.
        transcriber: who listens, for ``wer``, on the CPU.
        jobs: recordings at a time, each in a process of its own if more than one.
        live: whether the codec takes a frame at a time, as live streams do.
        on_utterance: is called after each utterance.

    Raises:
        ConfigError: the codec hasn't as many groups, or a metric isn't one, or ``wer`` has no
            transcriber or no texts.
        ModelError: the codec's sample rate is another than that of the measures.
        DependencyError: PyAV or a package that measures is not installed.
        WorkerError: a process of several was killed.
    """
    require(metrics, transcriber)
    coders = make_coders(codec, groups, losses, live=live)
    listener = transcriber if "wer" in metrics else None
    utterances = list(utterances)
    if listener is not None and not any(utterance.text for utterance in utterances):
        raise ConfigError("metric 'wer' needs texts, but the manifest has none")
    jobs = max(1, min(jobs, len(utterances)))
    scores: list[Score] = []
    failures: dict[str, str] = {}
    num_samples, original_words = 0, []
    found = run_jobs(Measurement(coders, tuple(metrics), listener), utterances, jobs)
    for utterance, measured in zip(utterances, found, strict=True):
        scores += measured.scores
        num_samples += measured.num_samples
        if measured.failure is not None:
            failures[utterance.key] = measured.failure
        if measured.original_words is not None:
            original_words.append(measured.original_words)
        if on_utterance is not None:
            on_utterance()
    series = dict.fromkeys(coder.series for coder in coders)
    return CodecEvaluation(
        scores=tuple(scores),
        failures=failures,
        audio_s=num_samples / SAMPLE_RATE,
        metrics=tuple(metrics),
        series={name: tuple(c.name for c in coders if c.series == name) for name in series},
        codec=None if codec is None else codec.name,
        codec_hash=None if codec is None else codec.hash,
        codec_latency_s=None if codec is None else codec.network.latency / SAMPLE_RATE,
        machine=describe_machine("cpu" if codec is None else codec.device.type),
        packages={
            name: version(name) for name in (*(PACKAGES[m] for m in metrics if m in PACKAGES), "av")
        },
        jobs=jobs,
        recogniser=None if listener is None else listener.name,
        recogniser_hash=None if listener is None else listener.hash,
        original_words=sum(original_words, WordErrors()) if original_words else None,
    )


def require(metrics: Sequence[str], transcriber: Transcriber | None) -> None:
    """Raise an error if something that the metrics need is missing."""
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown:
        raise ConfigError(f"no metric {unknown[0]!r}: there are {', '.join(METRICS)}")
    require_metrics(metrics)
    require_av()
    if "wer" in metrics:
        require_jiwer()
        if transcriber is None:
            raise ConfigError("metric 'wer' needs a transcriber")


def run_jobs(
    measurement: Measurement, utterances: Sequence[Utterance], jobs: int
) -> Iterator[Measured]:
    """Measure the recordings in their order, ``jobs`` at a time."""
    if jobs == 1:
        yield from map(measurement.measure, utterances)
        return
    threads = max(1, torch.get_num_threads() // jobs)
    with start_processes(jobs, _begin_job, measurement, threads, option="--jobs") as pool:
        yield from pool.map(_measure, utterances)


_measurement: Measurement | None = None  # of this process, if it is one of several


def _begin_job(measurement: Measurement, threads: int) -> None:
    global _measurement
    torch.set_num_threads(threads)
    _measurement = measurement


def _measure(utterance: Utterance) -> Measured:
    assert _measurement is not None
    return _measurement.measure(utterance)
