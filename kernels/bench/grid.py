"""Hold the kernels to float64 on a grid of shapes, on a CUDA device: python kernels/bench/grid.py.

Sizes are combined so that every pair of values of two of them occurs in a case: each case checks a
step, a scan, its final states and, for shorter ones, every gradient. Processes share the device,
since most of the time is that of the compiler. The exit code is 1 if a case is wrong.
"""

import argparse
import itertools
import json
import multiprocessing
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

SIZES: dict[str, tuple[Any, ...]] = {
    "frames": (1, 2, 15, 64, 65, 257, 2048),
    "d_state": (16, 32, 64, 128, 256),
    "head_dim": (16, 32, 48, 64, 128),
    "rank": (1, 2, 4, 8),
    "groups": (1, 2),
    "dtype": ("bfloat16", "float32"),
    "rope_fraction": (0.5, 1.0),
    "out_norm": (False, True),
}
MOST_FRAMES_OF_GRADIENTS = 257


def cover_pairs(sizes: dict[str, tuple[Any, ...]], seed: int = 0) -> list[dict[str, Any]]:
    """Return cases, few of them, in which each two values of two sizes meet."""
    rng, names = random.Random(seed), list(sizes)
    missing = {
        ((a, x), (b, y))
        for a, b in itertools.combinations(names, 2)
        for x in sizes[a]
        for y in sizes[b]
    }
    cases = []
    while missing:
        tries = []
        for _ in range(60):
            case = {name: rng.choice(values) for name, values in sizes.items()}
            (a, x), (b, y) = min(missing, key=repr)
            case |= {a: x, b: y}
            pairs = set(itertools.combinations(case.items(), 2))
            tries.append((len(pairs & missing), case, pairs))
        _, case, pairs = max(tries, key=lambda found: found[0])
        missing -= pairs
        cases.append(case)
    return cases


def check_case(case: dict[str, Any]) -> str | None:
    """Return what is wrong with a case, or None; in a process of its own, which it may break."""
    import step
    import training
    from measure import TOLERANCE, error, wide

    from audiossm_kernels.ssm_scan import ssm_scan
    from audiossm_kernels.ssm_scan.cases import ScanShape, make_inputs

    case = dict(case)
    dtype = getattr(torch, case.pop("dtype"))
    shape = ScanShape(batch=2, heads=4, **case)
    found = []
    try:
        if shape.frames == 1:
            step.check_step(shape, dtype, dtype)
        inputs = make_inputs(shape, dtype, "cuda")
        y, state = ssm_scan(*inputs, pairing=shape.pairing, impl="triton")
        expected_y, expected = ssm_scan(*wide(inputs), pairing=shape.pairing, impl="chunked")
        limit, state_limit = TOLERANCE[dtype]
        off = {"y": (error(y, expected_y), limit)}
        for name in ("ssm", "k", "v"):
            part = error(getattr(state, name), getattr(expected, name))
            off[name] = (part, state_limit)
        found = [
            f"{n} off by {got:.1e} (limit {most:.0e})"
            for n, (got, most) in off.items()
            if not got <= most
        ]
        if shape.frames <= MOST_FRAMES_OF_GRADIENTS:
            training.check(shape, dtype)
    except Exception as exc:  # one case must not end the grid
        found.append(f"{type(exc).__name__}: {str(exc).strip().splitlines()[0][:200]}")
    return "; ".join(found) or None


def main(argv: list[str] | None = None) -> int:
    """Check all cases and print the wrong ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=1e9, help="no new case after that long")
    parser.add_argument("--json", type=Path, help="write the results here too")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("grid.py: error: needs a CUDA device: nothing checked", file=sys.stderr)
        return 1
    cases, begin = cover_pairs(SIZES), time.monotonic()
    random.Random(1).shuffle(cases)
    wrong, done = [], []

    def save() -> None:  # after each case: what was found stays if this is ended
        if args.json is not None:
            args.json.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")

    with multiprocessing.get_context("spawn").Pool(args.processes, maxtasksperchild=1) as pool:
        for case, found in zip(cases, pool.imap(check_case, cases), strict=True):
            done.append(case | {"wrong": found})
            save()
            if found is not None:
                wrong.append(case)
                print(f"wrong: {case}: {found}", flush=True)
            if time.monotonic() - begin > args.seconds:
                pool.terminate()
                break
    print(
        f"{torch.cuda.get_device_name()}: {len(done) - len(wrong)} of {len(done)} cases are right"
        f" ({len(cases)} cases in the grid, {time.monotonic() - begin:.0f} s)"
    )
    return 1 if wrong or not done else 0


if __name__ == "__main__":
    sys.exit(main())
