"""Training is killed (kill -9) and begun again, again and again: is the model the same?

python tests/proofs/kill_training.py [--recipes codec generate transcribe] [--kills 20] [--seed 0]

Each recipe's ``train.py --smoke`` runs twice, once left alone and once killed: at a random time
after its next checkpoint, which it writes each step, or, one time of five, while it starts. Then
weights have to be equal to the byte, and so have dev's figures in the log (its losses are means
since the line before, or since a process began).
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPES = Path(__file__).parents[2] / "recipes"
LATEST_S = 1.0  # after a checkpoint
START_S = 8.0
LIMIT_S = 900.0


def main() -> None:
    """Kill, compare, print a line for each recipe; exit code 1 if one differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    choices = ("codec", "generate", "transcribe")
    parser.add_argument("--recipes", nargs="+", default=choices, choices=choices)
    parser.add_argument("--kills", type=int, default=20, help="of each (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    equal = [test(recipe, args.kills, random.Random(args.seed)) for recipe in args.recipes]
    sys.exit(not all(equal))


def test(recipe: str, kills: int, rng: random.Random) -> bool:
    """Run one recipe alone and killed; tell what differs."""
    with tempfile.TemporaryDirectory() as place:
        alone, killed = Path(place) / "alone", Path(place) / "killed"
        finish(recipe, alone)
        made = sum(kill(recipe, killed, rng) for _ in range(kills))
        finish(recipe, killed)
        differ = [
            name for name in ("model", "log") if contents(name, alone) != contents(name, killed)
        ]
        steps = len(contents("log", alone))
        print(f"{recipe}: killed {made} times, {steps} lines of log, differ: {differ or 'none'}")
        if made < kills:
            print(f"{recipe}: ended by itself before the other {kills - made} kills")
        return not differ and made > 0


def begin(recipe: str, out: Path) -> "subprocess.Popen[bytes]":
    """Start training, or go on with it."""
    program = [sys.executable, str(RECIPES / recipe / "train.py"), "--smoke", "--out", str(out)]
    return subprocess.Popen(
        [*program, "--save-minutes", "0"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finish(recipe: str, out: Path) -> None:
    """Let it come to its end."""
    process = begin(recipe, out)
    _, said = process.communicate(timeout=LIMIT_S)
    if process.returncode:
        sys.exit(f"{recipe}: exit code {process.returncode}: {said.decode()}")


def kill(recipe: str, out: Path, rng: random.Random) -> bool:
    """Kill a run that is begun anew; False if it had ended before."""
    process = begin(recipe, out)
    checkpoint = out / "checkpoint.pt"
    before = modified(checkpoint)
    started = time.monotonic()
    if rng.random() < 0.2:
        process_ends(process, rng.uniform(0, START_S))
    else:
        while modified(checkpoint) == before and process.poll() is None:
            time.sleep(0.002)
            if time.monotonic() - started > LIMIT_S:
                sys.exit(f"{recipe}: no checkpoint in {LIMIT_S:.0f} s")
        process_ends(process, rng.uniform(0, LATEST_S))
    alive = process.poll() is None
    process.kill()
    process.communicate()
    return alive


def process_ends(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Wait so long, or until it has ended."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass


def modified(path: Path) -> int:
    """Return when a file was last replaced, in nanoseconds; 0 if there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def contents(name: str, out: Path) -> list[object]:
    """Return what must be alike: the weights' bytes, or the log's steps and dev's figures."""
    if name == "model":
        return [path.read_bytes() for path in sorted((out / "model").glob("*.safetensors"))]
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in row.items() if key == "step" or key.startswith("dev")}
        for row in rows
    ]


if __name__ == "__main__":
    main()
