"""Fit what turns a word's evidence into the probability that it is right.

    python recipes/transcribe/fit_confidence.py MANIFEST.jsonl [...] --model DIR [--write]
        [--weight SOURCE=W ...]

Transcribes the manifests, which the model wasn't trained on, by its best decoder, and fits a
logistic regression: right or wrong by the alignment of least word errors. A word counts W times if
its utterance's source begins with SOURCE, otherwise once. Prints the table ``confidence`` for the
model's config.toml; --write puts it there instead of the one that is there. The model's hash stays.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from audiossm.config import dump_toml
from audiossm.decoding.beam import BeamDecoder
from audiossm.evaluate.confidence import hear_words, measure_bins
from audiossm.manifest import read_manifest
from audiossm.models import EVIDENCE, Calibration
from audiossm.streaming import Session, Transcriber

RIDGE = 1.0  # pull to 0, as much as that of a word; evidence is standardised for it
STEPS = 50

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


class RecordingTranscriber(Transcriber):
    """A transcriber whose sessions' words leave their evidence in ``recorder``."""

    recorder: Recorder

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
    parser.add_argument("--write", action="store_true", help="change the model's config.toml")
    args = parser.parse_args(argv)
    weights = {name: float(value) for name, _, value in (w.rpartition("=") for w in args.weight)}
    torch.set_num_threads(1)
    transcriber = RecordingTranscriber.load(args.model)
    transcriber.recorder = Recorder()
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
    calibration = fit(evidence, truth, times)
    judged = np.array([calibration.judge(row) for row in evidence.tolist()])
    bins = measure_bins(judged, truth, 15)
    error = sum(b.words * abs(b.confidence - b.right) for b in bins) / len(truth)
    print(
        f"{len(truth)} words, {truth.mean():.1%} right; expected calibration error on these very "
        f"words, unweighted: {error:.3f}",
        file=sys.stderr,
    )
    table = dump_toml({"confidence": vars(calibration)}).strip()
    if args.write:
        write_table(
            args.model / "config.toml", table, " ".join(["fit_confidence.py", *args.weight])
        )
    else:
        print(table)
    return 0


def fit(evidence: Floats, right: Floats, times: Floats) -> Calibration:
    """Return the weights of (words, len(EVIDENCE)) evidence that make ``right`` likeliest."""
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
    by_name = dict(zip(EVIDENCE, (w[1:] / spread).round(5).tolist(), strict=True))
    return Calibration(bias=round(float(w[0] - (w[1:] / spread) @ mean), 5), **by_name)


def write_table(path: Path, table: str, how: str) -> None:
    """Put the table at the end of a config.toml, in the place of an older one."""
    kept: list[str] = []
    inside = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            inside = line.strip() == "[confidence]"
        if not inside and not line.startswith("# the probability that a word is right:"):
            kept.append(line)
    text = "\n".join(kept).rstrip()
    comment = f"# the probability that a word is right: recipes/transcribe/{how}"
    path.write_text(f"{text}\n\n{comment}\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
