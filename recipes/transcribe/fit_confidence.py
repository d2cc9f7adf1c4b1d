"""Fit what turns a word's evidence into the probability that it is right.

    python recipes/transcribe/fit_confidence.py MANIFEST.jsonl [...] --model DIR [--write]
        [--weight SOURCE=W ...] [--told]

Transcribes the manifests, which the model wasn't trained on, by its best decoder, and fits a
logistic regression: right or wrong by the alignment of least word errors. A word counts W times if
its utterance's source begins with SOURCE, otherwise once. Prints the table ``confidence`` for the
model's config.toml; --write puts it there instead of the one that is there. By that table it is
decided which words are told. --told leaves it as it is and fits ``confidence.told``: how sure the
words are that are told, by what it says of each and of those before. The model's hash stays.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from audiossm.config import dump_toml, to_dict
from audiossm.decoding.beam import BeamDecoder
from audiossm.evaluate.confidence import hear_words, measure_bins
from audiossm.manifest import read_manifest
from audiossm.models import EVIDENCE, Calibration, Company
from audiossm.streaming import Session, Transcriber

RIDGE = 1.0  # pull to 0, as much as that of a word; evidence is standardised for it
STEPS = 50
TOLD = "confidence.told"
COMMENTS = {
    "confidence": "# the probability that a word is right:",
    TOLD: "# of a word that is told:",
}

Floats = NDArray[np.float64]


class Recorder(Calibration):
    """Keeps the evidence instead of judging it."""

    def __init__(self) -> None:
        super().__init__(bias=0.0, **dict.fromkeys(EVIDENCE, 0.0))
        object.__setattr__(self, "evidence", [])

    def judge(self, evidence: Sequence[float]) -> float:
        """Keep it."""
        self.__dict__["evidence"].append(tuple(evidence))
        return 0.5


class ToldRecorder(Calibration):
    """Judges as another one does and keeps what is known of words that are told."""

    def __init__(self, calibration: Calibration) -> None:
        super().__init__(**{name: getattr(calibration, name) for name in ("bias", *EVIDENCE)})
        object.__setattr__(self, "evidence", [])

    def tell(self, confidence: float, company: float) -> float:
        """Keep it."""
        odds = np.log(confidence) - np.log1p(-confidence)
        self.__dict__["evidence"].append((float(odds), company))
        return confidence


class RecordingTranscriber(Transcriber):
    """A transcriber whose sessions' words leave their evidence in ``recorder``."""

    recorder: Recorder | ToldRecorder

    def session(self, *args: object, **options: object) -> Session:
        """Begin a session that records."""
        session = super().session(*args, **options)  # type: ignore[arg-type]  # handed on
        decoder = session.decoder.decoder
        assert isinstance(decoder, BeamDecoder)
        session.decoder.decoder = BeamDecoder(
            decoder.units, decoder.ngrams, decoder.config, calibration=self.recorder
        )
        return session


def main(argv: list[str] | None = None) -> int:
    """Fit, and print or write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("manifests", nargs="+", type=Path, metavar="MANIFEST.jsonl")
    parser.add_argument("--model", type=Path, required=True, metavar="DIR")
    parser.add_argument("--lookahead-ms", type=int, default=320, help="default: %(default)s")
    parser.add_argument("--weight", action="append", default=[], metavar="SOURCE=W")
    parser.add_argument("--told", action="store_true", help="only of the words that are told")
    parser.add_argument("--write", action="store_true", help="change the model's config.toml")
    args = parser.parse_args(argv)
    weights = {name: float(value) for name, _, value in (w.rpartition("=") for w in args.weight)}
    torch.set_num_threads(1)
    transcriber = RecordingTranscriber.load(args.model)
    fitted = transcriber.calibration
    if args.told and fitted is None:
        parser.error("--told goes on from a table [confidence]: fit that first")
    transcriber.recorder = ToldRecorder(fitted) if args.told and fitted else Recorder()
    right: list[bool] = []
    counts: list[float] = []
    for manifest in args.manifests:
        for utterance in read_manifest(manifest):
            count = next((w for s, w in weights.items() if utterance.source.startswith(s)), 1.0)
            for _, is_right in hear_words(transcriber, utterance, args.lookahead_ms):
                right.append(is_right)
                counts.append(count)
    evidence = np.array(transcriber.recorder.__dict__["evidence"], np.float64)
    truth, times = np.array(right, np.float64), np.array(counts)
    bias, weighed = fit(evidence, truth, times)
    if args.told and fitted is not None:
        alone, company = weighed
        calibration = replace(fitted, told=Company(bias=bias, alone=alone, company=company))
    else:
        calibration = Calibration(bias=bias, **dict(zip(EVIDENCE, weighed, strict=True)))
    judged = 1 / (1 + np.exp(-bias - evidence @ np.array(weighed)))
    bins = measure_bins(judged, truth, 15)
    error = sum(b.words * abs(b.confidence - b.right) for b in bins) / len(truth)
    print(
        f"{len(truth)} words, {truth.mean():.1%} right; expected calibration error on these very "
        f"words, unweighted: {error:.3f}",
        file=sys.stderr,
    )
    told = calibration.told
    table = {"confidence": to_dict(calibration)} if told is None else {TOLD: to_dict(told)}
    text = dump_toml(table).strip()
    if args.write:
        how = ["fit_confidence.py", *(["--told"] if args.told else []), *args.weight]
        write_table(args.model / "config.toml", text, " ".join(how))
    else:
        print(text)
    return 0


def fit(evidence: Floats, right: Floats, times: Floats) -> tuple[float, list[float]]:
    """Return the bias and weights of (words, kinds) evidence that make ``right`` likeliest."""
    mean = np.average(evidence, axis=0, weights=times)
    spread = np.sqrt(np.average((evidence - mean) ** 2, axis=0, weights=times)) + 1e-9
    x = np.column_stack([np.ones(len(evidence)), (evidence - mean) / spread])
    pull = np.diag([0.0, *[RIDGE] * evidence.shape[1]])
    w = np.zeros(x.shape[1])
    for _ in range(STEPS):  # Newton's
        p = 1 / (1 + np.exp(-x @ w))
        slope = x.T @ (times * (p - right)) + pull @ w
        curve = (x * (times * p * (1 - p))[:, None]).T @ x + pull
        w -= np.linalg.solve(curve, slope)
    weights = w[1:] / spread
    return round(float(w[0] - weights @ mean), 5), weights.round(5).tolist()


def write_table(path: Path, table: str, how: str) -> None:
    """Put the table at the end of a config.toml, in the place of an older one.

    ``confidence.told`` goes with the table that it was fitted on top of.
    """
    old = [TOLD] if table.startswith(f"[{TOLD}]") else ["confidence", TOLD]
    kept: list[str] = []
    inside = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(("[", "#")):
            inside = line.strip() in [f"[{name}]" for name in old]
            inside |= line.startswith(tuple(COMMENTS[name] for name in old))
        if not inside:
            kept.append(line)
    text = "\n".join(kept).rstrip()
    comment = f"{COMMENTS[old[0]]} recipes/transcribe/{how}"
    path.write_text(f"{text}\n\n{comment}\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
