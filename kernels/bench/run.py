"""Measure the kernels on a CUDA device: python kernels/bench/run.py [--json FILE].

First every kernel is compared with a float64 form on this device; a wrong one isn't timed. Times
are medians over replays of a CUDA graph. Floors come from the rates of a copy and of a matrix
product measured here. Needs torch and triton.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from measure import WrongKernel, copy_bandwidth, matmul_rate

PARTS = ("step", "scan", "layer", "backbone")


def make_parser() -> argparse.ArgumentParser:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    parser.add_argument("--only", choices=PARTS, help="all by default")
    parser.add_argument("--grid", choices=("step", "scan"), help="try other layouts of this kernel")
    parser.add_argument(
        "--seconds", type=float, default=50, help="no new layout after that long (%(default)s)"
    )
    parser.add_argument(
        "--few-checks", action="store_true", help="check the scan only where it is timed"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Check, measure, print."""
    args = make_parser().parse_args(argv)
    begin = time.monotonic()
    if not torch.cuda.is_available():
        print("run.py: error: needs a CUDA device: nothing measured", file=sys.stderr)
        return 1
    import backbone
    import scan
    import step
    import triton

    only = {args.only} if args.only else set(PARTS)
    device = torch.cuda.get_device_properties(0)
    report: dict[str, Any] = {
        "device": device.name,
        "processors": device.multi_processor_count,
        "cache_bytes": device.L2_cache_size,
        "torch": torch.__version__,
        "triton": triton.__version__,
    }
    print(f"{device.name}, torch {torch.__version__}, triton {triton.__version__}")
    checks = []
    if "step" in only:
        checks.append(step.run_checks())
    if only & {"scan", "layer"}:
        checks.append(scan.run_checks(few=args.few_checks))
    try:
        report["checks"] = []
        for lines in checks:
            for line in lines:
                report["checks"].append(line)
                print(f"right: {line} ({time.monotonic() - begin:.0f} s)", flush=True)
    except WrongKernel as exc:
        print(f"run.py: error: not timed, the kernel is wrong: {exc}", file=sys.stderr)
        return 1
    torch.cuda.empty_cache()

    def save() -> None:  # after each part: what was measured stays if a later one fails
        report["seconds"] = time.monotonic() - begin
        if args.json is not None:
            args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

    bandwidth, rate = copy_bandwidth(), matmul_rate()
    report["copy_bytes_per_s"] = bandwidth
    report["matmul_flop_per_s"] = rate
    print(
        f"copy: {bandwidth / 1e12:.2f} TB/s read and written; product: {rate / 1e12:.0f} TFLOP/s\n"
    )
    deadline = begin + args.seconds
    if "scan" in only:
        grid = deadline if args.grid == "scan" else None
        report["scans"] = scan.measure(bandwidth, rate, grid)
        save()
    if "layer" in only:
        report["layers"] = scan.measure_layers(bandwidth, rate)
        save()
    if "step" in only:
        report["drift_2048"] = step.drift()
        print(f"bfloat16 state after 2048 steps: off by {report['drift_2048']:.1e} (aim 3e-2)")
        report["works"] = step.measure(bandwidth, deadline if args.grid == "step" else None)
        save()
    if "backbone" in only:
        report["backbones"] = backbone.measure(bandwidth)
    save()
    print(f"{device.name}: {report['seconds']:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
