"""Proof that the Triton kernels train as torch does, and faster: the same run with each.

    python tests/proofs/kernel_training.py --data DIR --train NAME [--compile | --capture]

DIR holds the manifests NAME and "dev" with their shards. The recogniser of recipes/transcribe is
trained from one seed, with Triton once and with AUDIOSSM_KERNELS=torch --times times. These differ,
too, as torch sums CTC's gradient in no fixed order: the run that Triton's is nearest to is what it
is compared with, and what the others differ from it by is told. The exit code is 1 if a mean over
20 steps of the loss is more than --max-apart away, or if a step isn't --min-faster times as fast.
A step's time is the median of 20-step windows of the second half: where Triton has compiled nothing
before, one of them has a stall as long as twenty steps. Needs a CUDA device.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch

RECIPE = Path(__file__).parents[2] / "recipes" / "transcribe" / "train.py"
MEAN_OVER = 20


def main() -> int:
    """Train twice, compare, print the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--train", required=True, metavar="NAME", help="a manifest's name")
    parser.add_argument("--steps", type=int, default=200, help="default: %(default)s")
    graphs = parser.add_mutually_exclusive_group()
    graphs.add_argument("--compile", action="store_true", help="compile and capture, both times")
    graphs.add_argument("--capture", action="store_true", help="capture, both times")
    parser.add_argument(
        "--times", type=int, default=3, help="runs of torch's (default: %(default)s)"
    )
    parser.add_argument("--max-apart", type=float, default=0.01, help="default: %(default)s")
    parser.add_argument("--min-faster", type=float, default=2.0, help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("kernel_training.py: error: needs a CUDA device: nothing measured", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        triton = train(args, "auto", Path(folder) / "triton")
        plain = [train(args, "torch", Path(folder) / f"{i}") for i in range(args.times)]
    curves = [[row["ctc"] for row in rows] for rows in plain]
    means = [row["ctc"] for row in triton]
    curves.sort(key=lambda curve: max(differ(means, curve)))
    apart = differ(means, curves[0])
    seconds = {"triton": time_step(triton), "torch": min(map(time_step, plain))}
    faster = seconds["torch"] / seconds["triton"]
    for i, off in enumerate(apart):
        print(
            f"steps {MEAN_OVER * i + 1} to {MEAN_OVER * (i + 1)}: loss {curves[0][i]:.4f} "
            f"with torch, {means[i]:.4f} with Triton, {100 * off:.2f} % apart"
        )
    for curve in curves[1:]:
        noise = ", ".join(f"{100 * off:.2f}" for off in differ(curve, curves[0]))
        print(f"torch once more: {noise} % apart")
    for name, rows in (("triton", triton), *(("torch", rows) for rows in plain)):
        windows = ", ".join(f"{1e3 * window:.1f}" for window in time_windows(rows))
        print(f"{name}: {windows} ms a step, of {MEAN_OVER} steps each but the first ones")
    good = max(apart) <= args.max_apart and faster >= args.min_faster
    print(
        f"{torch.cuda.get_device_name()}: {1e3 * seconds['torch']:.1f} ms a step with torch, "
        f"{1e3 * seconds['triton']:.1f} with Triton"
    )
    print(
        f"{'PASS' if good else 'FAIL'}: means {100 * max(apart):.2f} % apart at most (limit "
        f"{100 * args.max_apart:.0f}), {faster:.2f} times as fast (limit {args.min_faster:g})"
    )
    if args.json is not None:
        how = "compile" if args.compile else "capture" if args.capture else "eager"
        report = {"how": how, "apart": apart, "seconds": seconds, "triton": means, "torch": curves}
        report["windows"] = [time_windows(rows) for rows in (triton, *plain)]
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if good else 1


def train(args: argparse.Namespace, kernels: str, out: Path) -> list[dict[str, Any]]:
    """Run the recipe and return the rows of its log."""
    changes = {
        "data.train": json.dumps([args.train]),
        "data.noise": "[]",
        "train.steps": args.steps,
        "train.log_every": MEAN_OVER,  # a line has the means since the last one
        "train.dev_every": 10 * args.steps,
    }
    command = [sys.executable, str(RECIPE), "--data", str(args.data), "--out", str(out)]
    for name, value in changes.items():
        command += ["--set", f"{name}={value}"]
    command += [f"--{name}" for name in ("compile", "capture") if getattr(args, name)]
    done = subprocess.run(
        command, env=os.environ | {"AUDIOSSM_KERNELS": kernels}, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"kernel_training.py: error: {' '.join(command)}\n{done.stdout}{done.stderr}")
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def differ(ours: list[float], theirs: list[float]) -> list[float]:
    """Return by what part each number differs from the other's."""
    return [abs(a / b - 1) for a, b in zip(ours, theirs, strict=True)]


def time_windows(rows: list[dict[str, Any]]) -> list[float]:
    """Return seconds a step between each two lines of the log."""
    times = [60 * row["minutes"] for row in rows]
    return [(b - a) / MEAN_OVER for a, b in zip(times[:-1], times[1:], strict=True)]


def time_step(rows: list[dict[str, Any]]) -> float:
    """Return seconds a step of the second half, when all is warm."""
    return median(time_windows(rows)[len(rows) // 2 - 1 :])


if __name__ == "__main__":
    sys.exit(main())
