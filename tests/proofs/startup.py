"""Proof that the command starts fast: a 10 s clip from a cold disk and from a warm one.

    python tests/proofs/startup.py

Needs Linux and the installed ``audiossm``. "Cold" drops the files of Python, of the installed
packages and of the model from the page cache; what other processes use stays in it, so the bytes
that did come from the disk are printed. The exit code is 1 if the cold run takes 10 s or more, the
median of the warm ones 4 s or more, or ``audiossm --help`` 0.3 s or more.
"""

import argparse
import os
import statistics
import sys
import sysconfig
import tempfile
from pathlib import Path

from command import Run, run_command

from speech import write_speech

MAX_COLD_S, MAX_WARM_S, MAX_HELP_S = 10.0, 4.0, 0.3
CLIP_S = 10
WARM_RUNS = 5


def main() -> int:
    """Print a line for each kind of start and the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", metavar="NAME|DIR", help="default: the shipped one")
    args = parser.parse_args()
    options = ["--model", args.model] if args.model else []
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.wav")
        write_speech(clip, CLIP_S)
        command = ["transcribe", str(clip), *options]
        dropped = drop_files([Path(args.model)] if args.model and Path(args.model).is_dir() else [])
        cold = run_command(command)
        print(
            f"cold: {cold.wall_s:.2f} s (limit {MAX_COLD_S:g}), {dropped / 1e6:.0f} MB of files "
            f"dropped from the page cache, {cold.disk_bytes / 1e6:.0f} MB read from the disk"
        )
        if not cold.disk_bytes:
            print("cold: NOT COLD: this system kept the files in its page cache")
        warm = time_runs("warm", command, MAX_WARM_S)
    help_s = time_runs("--help", ["--help"], MAX_HELP_S)
    passed = cold.wall_s < MAX_COLD_S and warm < MAX_WARM_S and help_s < MAX_HELP_S
    print("pass" if passed else "FAIL")
    return 0 if passed else 1


def time_runs(name: str, command: list[str], limit_s: float) -> float:
    """Run a command a few times and return the median of its wall times in seconds."""
    runs: list[Run] = [run_command(command) for _ in range(WARM_RUNS)]
    times = sorted(run.wall_s for run in runs)
    print(
        f"{name}: {statistics.median(times):.2f} s, {times[0]:.2f} to {times[-1]:.2f}, median of "
        f"{WARM_RUNS} (limit {limit_s:g})"
    )
    return statistics.median(times)


def drop_files(folders: list[Path]) -> int:
    """Ask the kernel to forget the files that a start reads; return their bytes."""
    paths = sysconfig.get_paths()
    roots = {Path(paths[key]).resolve() for key in ("stdlib", "purelib", "platlib")}
    project = Path(__file__).resolve().parents[2]
    roots |= {project / part for part in ("audiossm", "kernels", "apps", "assets")}
    total = 0
    for root in [*roots, *folders]:
        for place, _, names in os.walk(root):
            for name in names:
                total += drop_file(Path(place, name))
    return total


def drop_file(path: Path) -> int:
    """Drop one file from the page cache and return its size; a special file counts nothing."""
    if path.is_symlink() or not path.is_file():
        return 0
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return 0
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.fstat(file).st_size
    finally:
        os.close(file)


if __name__ == "__main__":
    sys.exit(main())
