"""How close decoded speech is to its original: a number for each measure that was asked for."""

import importlib
import warnings
from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from audiossm.errors import AudioError, DependencyError, ShapeError
from audiossm.evaluate.mel_distance import mel_distance
from audiossm.evaluate.metrics import DEFAULT_METRICS
from audiossm.evaluate.pitch import (
    PitchErrors,
    PitchTrack,
    count_pitch_errors,
    require_librosa,
    track_pitch,
)
from audiossm.evaluate.si_sdr import si_sdr

__all__ = ["SAMPLE_RATE", "Quality", "measure_quality", "pesq_wb", "require_metrics", "stoi"]

SAMPLE_RATE = 16000  # Hz: the only one of wide-band PESQ

# The pesq package has room for 50 stretches of speech and writes on behind it. A stretch and the
# pause after it last 97 of its 4 ms windows or more, so that 50 take 19.4 s.
MAX_PESQ_SAMPLES = 18 * SAMPLE_RATE


@dataclass(frozen=True, kw_only=True)
class Quality:
    """One decoded recording; None stands for a measure that wasn't asked for or refused it.

    ``refusals`` says why it refused.
    """

    pesq_wb: float | None = None  # MOS-LQO, 1.04 to 4.64
    stoi: float | None = None  # 0 to 1
    mel_distance: float | None = None
    si_sdr_db: float | None = None
    pitch: PitchErrors | None = None
    refusals: dict[str, str] = field(default_factory=dict)


def measure_quality(
    original: Tensor,
    decoded: Tensor,
    metrics: Collection[str] = DEFAULT_METRICS,
    *,
    pitch: PitchTrack | None = None,
) -> Quality:
    """Compare a decoded recording with its original, level and all; neither is changed.

    Args:
        original: (samples,) float32 in [-1, 1] at 16000 Hz.
        decoded: as long, without delay.
        metrics: which of ``METRICS``; ``wer`` isn't measured here.
        pitch: the original's ``track_pitch``, if it is known, for ``f0``.

    Raises:
        ShapeError: the signals differ in length, or are empty or not one-dimensional.
        DependencyError: a package that measures is not installed.
    """
    require_metrics(metrics)
    found: dict[str, float | None] = {}
    refusals = {}
    for metric, name, measure in (
        ("pesq", "PESQ", pesq_wb),
        ("stoi", "STOI", stoi),
        ("sisdr", "SI-SDR", si_sdr),
    ):
        found[metric] = None
        if metric in metrics:
            try:
                found[metric] = measure(original, decoded)
            except AudioError as exc:
                refusals[name] = str(exc)
    errors = None
    if "f0" in metrics:
        track = track_pitch(original, SAMPLE_RATE) if pitch is None else pitch
        errors = count_pitch_errors(track, track_pitch(decoded, SAMPLE_RATE))
    return Quality(
        pesq_wb=found["pesq"],
        stoi=found["stoi"],
        mel_distance=mel_distance(original, decoded, SAMPLE_RATE) if "mel" in metrics else None,
        si_sdr_db=found["sisdr"],
        pitch=errors,
        refusals=refusals,
    )


def pesq_wb(original: Tensor, decoded: Tensor) -> float:
    """Return wide-band PESQ (ITU-T P.862.2), as MOS-LQO; for the signals, see ``measure_quality``.

    What is longer than 18 s is measured in equal parts, and their mean is returned.

    Raises:
        AudioError: PESQ hears no speech, or there is less than a quarter of a second.
    """
    check_pair(original, decoded)
    import pesq

    num_parts = -(-len(original) // MAX_PESQ_SAMPLES)
    scores = []
    for a, b in zip(original.tensor_split(num_parts), decoded.tensor_split(num_parts), strict=True):
        if not a.any() or not b.any():  # pesq divides by the level
            raise AudioError("nothing but digital silence")
        try:
            scores.append(float(pesq.pesq(SAMPLE_RATE, a.numpy(), b.numpy(), "wb")))
        except pesq.PesqError as exc:
            reason = exc.args[0]
            raise AudioError(reason.decode() if isinstance(reason, bytes) else str(exc)) from exc
        except ValueError as exc:  # pesq trips over a result that is not a number
            raise AudioError("no score comes out for a signal this quiet") from exc
    return sum(scores) / num_parts


def stoi(original: Tensor, decoded: Tensor) -> float:
    """Return short-time objective intelligibility (STOI), 0 to 1; takes what ``pesq_wb`` takes.

    Raises:
        AudioError: less than 0.4 s is loud enough to be compared.
    """
    check_pair(original, decoded)
    import pystoi

    if len(original) < 0.4 * SAMPLE_RATE or not original.any():  # pystoi would fail on a shape
        raise AudioError("less than 0.4 s of speech")
    with warnings.catch_warnings():
        # its number is a placeholder then
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        try:
            return float(pystoi.stoi(original.numpy(), decoded.numpy(), SAMPLE_RATE))
        except RuntimeWarning as exc:
            raise AudioError("less than 0.4 s of speech") from exc


def check_pair(original: Tensor, decoded: Tensor) -> None:
    """Raise an error if the two can't be compared."""
    if original.dim() != 1 or original.shape != decoded.shape or not len(original):
        raise ShapeError(
            "quality is measured on two signals (samples,) of one length, got "
            f"{(*original.shape,)}, {(*decoded.shape,)}"
        )
    if not torch.isfinite(original).all() or not torch.isfinite(decoded).all():
        raise AudioError("samples that are no finite numbers")


def require_metrics(metrics: Collection[str] = DEFAULT_METRICS) -> None:
    """Raise ``DependencyError`` if a package that measures is missing."""
    for metric, measure, package in (("pesq", "PESQ", "pesq"), ("stoi", "STOI", "pystoi")):
        if metric not in metrics:
            continue
        try:
            importlib.import_module(package)
        except ImportError as exc:
            raise DependencyError(
                f"{measure} is measured by {package}, which is not installed: "
                "pip install 'audiossm[eval]'"
            ) from exc
    if "f0" in metrics:
        require_librosa()
