"""What an evaluation of a codec found: a score a recording and coder, and their means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from audiossm.evaluate.opus import FRAME_MS
from audiossm.evaluate.pitch import PitchErrors
from audiossm.evaluate.quality import SAMPLE_RATE, Quality
from audiossm.evaluate.wer import WordErrors

__all__ = ["CodecEvaluation", "Means", "Score"]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One recording through one coder; ``words`` are those the recogniser gets wrong then."""

    key: str
    coder: str
    quality: Quality
    payload_bps: float
    delay_s: float
    words: WordErrors | None = None


@dataclass(frozen=True, kw_only=True)
class Means:
    """What a coder reached, over recordings; None if there was nothing to average.

    Errors of pitch and words are counted over all frames and words, the rest are means over
    recordings. PESQ, STOI and SI-SDR may refuse a recording: they count their own ones.
    """

    coder: str
    num_files: int
    payload_bps: float
    delay_s: float
    pesq_wb: float | None
    num_pesq: int
    stoi: float | None
    num_stoi: int
    mel_distance: float | None
    si_sdr_db: float | None
    num_si_sdr: int
    pitch: PitchErrors | None
    words: WordErrors | None

    @staticmethod
    def of(coder: str, scores: Sequence[Score]) -> "Means":
        """Average the scores of one coder, at least one."""
        qualities = [score.quality for score in scores]
        pesq = [q.pesq_wb for q in qualities if q.pesq_wb is not None]
        stoi = [q.stoi for q in qualities if q.stoi is not None]
        mel = [q.mel_distance for q in qualities if q.mel_distance is not None]
        si_sdr = [q.si_sdr_db for q in qualities if q.si_sdr_db is not None]
        pitch = [q.pitch for q in qualities if q.pitch is not None]
        words = [score.words for score in scores if score.words is not None]
        return Means(
            coder=coder,
            num_files=len(scores),
            payload_bps=fmean(score.payload_bps for score in scores),
            delay_s=fmean(score.delay_s for score in scores),
            pesq_wb=fmean(pesq) if pesq else None,
            num_pesq=len(pesq),
            stoi=fmean(stoi) if stoi else None,
            num_stoi=len(stoi),
            mel_distance=fmean(mel) if mel else None,
            si_sdr_db=fmean(si_sdr) if si_sdr else None,
            num_si_sdr=len(si_sdr),
            pitch=sum(pitch, PitchErrors()) if pitch else None,
            words=sum(words, WordErrors()) if words else None,
        )

    def to_json(self, metrics: Sequence[str], original: WordErrors | None) -> dict[str, Any]:
        """Return what was asked for as a JSON object, words beside those of the originals."""
        found: dict[str, Any] = {
            "coder": self.coder,
            "files": self.num_files,
            "payload_bps": round(self.payload_bps, 1),
            "removed_delay_ms": round(1000 * self.delay_s, 2),
        }
        if "pesq" in metrics:
            found["pesq_wb_mos_lqo"] = round_or_none(self.pesq_wb, 4)
            found["pesq_files"] = self.num_pesq
            found["pesq_refused_files"] = self.num_files - self.num_pesq
        if "stoi" in metrics:
            found["stoi_fraction"] = round_or_none(self.stoi, 5)
            found["stoi_files"] = self.num_stoi
            found["stoi_refused_files"] = self.num_files - self.num_stoi
        if "mel" in metrics:
            found["mel_distance_log10_power"] = round_or_none(self.mel_distance, 5)
        if "sisdr" in metrics:
            found["si_sdr_db"] = round_or_none(self.si_sdr_db, 3)
            found["si_sdr_files"] = self.num_si_sdr
            found["si_sdr_refused_files"] = self.num_files - self.num_si_sdr
        if self.pitch is not None:
            found["f0_rmse_cents"] = round_or_none(self.pitch.rmse_cents, 2)
            found["f0_gross_error_fraction"] = round_or_none(self.pitch.gross_error, 5)
            found["f0_voicing_error_fraction"] = round_or_none(self.pitch.voicing_error, 5)
            found["f0_yin_gross_error_fraction"] = round_or_none(self.pitch.guess_error, 5)
            found["f0_frames"] = self.pitch.frames
            found["f0_frames_voiced_in_original"] = self.pitch.original_voiced
            found["f0_frames_voiced_in_both"] = self.pitch.voiced
        if self.words is not None:
            found["wer"] = round(self.words.rate, 5)
            found["words"] = self.words.words
            found["wer_over_original"] = round_or_none(self.wer_over(original), 4)
        return found

    def wer_over(self, original: WordErrors | None) -> float | None:
        """Return the word error rate over that on the originals; None if that one is 0."""
        if self.words is None or original is None or not original.rate:
            return None
        return self.words.rate / original.rate


@dataclass(frozen=True, kw_only=True)
class CodecEvaluation:
    """What ``evaluate_codec`` measured; ``failures`` are keys of unreadable files, and why.

    ``series`` names the coders of each curve over bit rates. ``original_words`` is what the
    recogniser got wrong on the originals.
    """

    scores: tuple[Score, ...]
    failures: Mapping[str, str]
    audio_s: float
    metrics: tuple[str, ...]
    series: Mapping[str, tuple[str, ...]]
    codec: str | None
    codec_hash: str | None
    codec_latency_s: float | None
    machine: dict[str, str | int]
    packages: dict[str, str]
    jobs: int = 1
    recogniser: str | None = None
    recogniser_hash: str | None = None
    original_words: WordErrors | None = None

    @property
    def means(self) -> list[Means]:
        """One for each coder, in the order in which they ran."""
        coders = dict.fromkeys(score.coder for score in self.scores)
        return [
            Means.of(coder, [score for score in self.scores if score.coder == coder])
            for coder in coders
        ]

    @property
    def refusals(self) -> dict[tuple[str, str, str], list[str]]:
        """Return the coders whose result was refused, by (key, measure, reason)."""
        found: dict[tuple[str, str, str], list[str]] = {}
        for score in self.scores:
            for measure, reason in score.quality.refusals.items():
                found.setdefault((score.key, measure, reason), []).append(score.coder)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        latency_s, words = self.codec_latency_s, self.original_words
        return {
            "codec": self.codec,
            "codec_hash": self.codec_hash,
            "codec_latency_ms": None if latency_s is None else round(1000 * latency_s, 3),
            "opus": {
                "library": "libopus",
                "application": "voip",
                "frame_ms": FRAME_MS,
                "vbr": True,
            },
            "compared_at_hz": SAMPLE_RATE,
            "metrics": list(self.metrics),
            "audio_s": round(self.audio_s, 3),
            "coders": [means.to_json(self.metrics, words) for means in self.means],
            "recogniser": self.recogniser,
            "recogniser_hash": self.recogniser_hash,
            "original_wer": None if words is None else round(words.rate, 5),
            "refusals": [
                {"key": key, "measure": measure, "reason": reason, "coders": coders}
                for (key, measure, reason), coders in self.refusals.items()
            ],
            "failures": [{"key": key, "error": error} for key, error in self.failures.items()],
            "jobs": self.jobs,
            "machine": self.machine,
            "packages": self.packages,
        }


def round_or_none(value: float | None, digits: int) -> float | None:
    """Round what there is."""
    return None if value is None else round(value, digits)
