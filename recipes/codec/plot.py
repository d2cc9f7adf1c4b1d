"""Draw the curves of a run: its log.jsonl as a picture.

python recipes/codec/plot.py RUN [RUN ...] --out curves.png
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

PANELS = {"mel": "mel distance, training", "dev_mel_": "mel distance, dev", "phone": "phone CTC"}


def main() -> None:
    """Read all logs, draw a panel for each kind of number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders that train.py wrote")
    parser.add_argument("--out", type=Path, default=Path("curves.png"), help="%(default)s")
    args = parser.parse_args()
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(15, 4.5), layout="constrained")
    for run in args.runs:
        rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        for axis, (start, title) in zip(axes, PANELS.items(), strict=True):
            for name in sorted({n for row in rows for n in row if n.startswith(start)}):
                points = [(row["step"], row[name]) for row in rows if name in row]
                axis.plot(*zip(*points, strict=True), label=f"{run.name}: {name}")
            axis.set(title=title, xlabel="step")
    for axis in axes:
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    figure.savefig(args.out)


if __name__ == "__main__":
    main()
