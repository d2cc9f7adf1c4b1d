"""Proof that a dead worker costs nothing: kill Ray's workers while they transcribe a folder.

    python tests/proofs/kill_ray.py                    10 kills, the shipped model
    python tests/proofs/kill_ray.py --tiny --kills 2   a tiny random model

A folder of recordings, each several of the committed ones in a row, is transcribed without Ray and
then by two workers of it, one of which is killed (SIGKILL) at random moments while it works. Each
file must be as without Ray, to the byte, but for confidences in the last digit. Then the command is
ended in the middle (SIGINT), and goes on. The exit code is 1 if a file differs, a recording failed,
or results didn't come one by one. For the service on Ray there is kill_server.py --ray.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from children import find_children  # noqa: E402  # beside this file, wherever it is run
from kill_server import save_tiny  # noqa: E402

SPEECH = Path(__file__).parent.parent / "speech"


def make_folder(folder: Path, num_files: int, length_s: float, rng: random.Random) -> None:
    """Write recordings of about this length."""
    clips = [path for path in sorted(SPEECH.glob("*.flac")) if "00" not in path.name]
    for number in range(num_files):
        parts: list[np.ndarray] = []
        while sum(map(len, parts)) < 16000 * length_s:
            parts.append(soundfile.read(rng.choice(clips), dtype="int16")[0])
        (folder / f"{number % 2}").mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{number % 2}" / f"{number}.wav", np.concatenate(parts), 16000)


def read_results(folder: Path) -> dict[str, bytes]:
    """Return what is whole, by its place."""
    found = sorted(folder.rglob("*.txt"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def main(argv: list[str] | None = None) -> int:
    """Print what happened and the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10, metavar="N")
    parser.add_argument("--files", type=int, default=6, metavar="N")
    parser.add_argument("--length-s", type=float, default=600.0, metavar="S", help="of each")
    parser.add_argument("--tiny", action="store_true", help="a tiny model with random weights")
    parser.add_argument("--longest-s", type=float, default=4.0, metavar="S", help="after a kill")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    started, rng = time.monotonic(), random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_folder(folder / "talks", args.files, args.length_s, rng)
        command = [sys.executable, "-m", "audiossm_apps.cli", "transcribe", str(folder / "talks")]
        command += ["--threads", "1"]
        if args.tiny:
            command += ["--model", str(save_tiny(folder / "tiny")), "--decoder", "greedy"]
        subprocess.run([*command, "--output-dir", str(folder / "plain")], check=True)
        expected = read_results(folder / "plain")
        plain_s = time.monotonic() - started

        command += ["--ray", "--jobs", "2", "--output-dir", str(folder / "ray")]
        (folder / "ray").mkdir()
        kills, stops, seen, told = 0, 0, set[int](), ""
        while len(read_results(folder / "ray")) < len(expected):
            with open(folder / "log", "w+") as log:
                process = subprocess.Popen(command, stderr=log)
                while process.poll() is None:
                    time.sleep(rng.uniform(0.02, 0.1))
                    seen.add(len(read_results(folder / "ray")))
                    workers = find_children(process.pid, "MapWorker")
                    busy = [*(folder / "ray").rglob("*.partial")]
                    if kills < args.kills and workers and busy:
                        os.kill(rng.choice(workers), signal.SIGKILL)
                        kills += 1
                        time.sleep(rng.uniform(0, args.longest_s))
                    elif kills == args.kills and not stops and busy:
                        process.send_signal(signal.SIGINT)  # what is at work may end meanwhile
                        stops += 1
                log.seek(0)
                told += log.read()
            if process.returncode not in (0, 130):
                print(told[-3000:])
                break
        got = read_results(folder / "ray")
    wrong = [name for name in expected if got.get(name) != expected[name]]
    one_by_one = len(seen) > 2 or args.files < 3
    passed = not wrong and kills == args.kills and stops == 1 and one_by_one
    print(
        f"{'pass' if passed else 'FAIL'}: {kills} workers killed and {stops} command stopped over "
        f"{args.files} recordings of {args.length_s:g} s; {len(wrong)} of {len(expected)} results "
        f"differ; gone on {told.count('goes on at')} times; seen {sorted(seen)} results; "
        f"{plain_s:.0f} s without Ray, {time.monotonic() - started - plain_s:.0f} s with it"
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
