"""Proof that memory doesn't grow with a recording: transcribe a short and a long one.

    python tests/proofs/memory.py                     10 minutes and 3 hours at 16 kHz
    python tests/proofs/memory.py --minutes 2 20      a quick try
    python tests/proofs/memory.py --sample-rate 44100 --channels 2

Needs Linux, the installed ``audiossm`` and disk space for the recordings (115 MB an hour at
16 kHz). The exit code is 1 if a run needs 1.2 GB or more, or the two differ by more than 5 %.
"""

import argparse
import multiprocessing
import sys
import tempfile
from pathlib import Path

from command import run_command

from speech import write_speech

MAX_BYTES = 1.2e9
MAX_GROWTH = 0.05


def main() -> int:
    """Print a line for each recording and the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, nargs=2, default=[10.0, 180.0], metavar="M")
    parser.add_argument("--sample-rate", type=int, default=16000, metavar="HZ")
    parser.add_argument("--channels", type=int, default=1, metavar="N")
    parser.add_argument("--model", metavar="NAME|DIR", help="default: the shipped one")
    args = parser.parse_args()
    options = ["--model", args.model] if args.model else []
    peaks = []
    for minutes in args.minutes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "speech.wav")
            # in a process of its own: see run_command about this one's memory
            maker = multiprocessing.Process(
                target=write_speech, args=(path, 60 * minutes, args.sample_rate, args.channels)
            )
            maker.start()
            maker.join()
            if maker.exitcode:
                return 1
            run = run_command(["transcribe", str(path), *options])
        peaks.append(run.peak_bytes)
        print(
            f"{minutes:g} min, {args.sample_rate} Hz, {args.channels} channel(s): "
            f"{run.peak_bytes / 1e6:.1f} MB at most, {run.words} words, {run.wall_s:.1f} s, "
            f"real-time factor {run.wall_s / 60 / minutes:.4f}",
            flush=True,
        )
    growth = peaks[1] / peaks[0] - 1
    passed = max(peaks) < MAX_BYTES and abs(growth) <= MAX_GROWTH
    print(
        f"{'pass' if passed else 'FAIL'}: memory differs by {100 * growth:+.2f} % (limit "
        f"{100 * MAX_GROWTH:.0f} %), {max(peaks) / 1e6:.1f} MB at most (limit "
        f"{MAX_BYTES / 1e6:.0f} MB)"
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
