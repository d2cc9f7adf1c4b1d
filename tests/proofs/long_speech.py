"""Proof that a long text is said whole, in memory that doesn't grow: ``audiossm generate``.

    python tests/proofs/long_speech.py                        2000 characters, some 20 s
    python tests/proofs/long_speech.py --characters 100000    an hour and a half of speech

Sentences of tests/text/sentences.txt go to standard input, the speech to a file. Every word of the
text has to be told with its time, in the order of the text, and the file has to be as long as they
say. Resident memory is read at each tenth of the words. Needs Linux and the installed ``audiossm``,
or its source on PYTHONPATH. The exit code is 1 if a word is missing, or if memory at the end is
more than --max-growth above what it was at the first tenth.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import wave
from itertools import cycle
from pathlib import Path

from audiossm.evaluate.machine import describe_machine, name_machine

SENTENCES = Path(__file__).parent.parent / "text" / "sentences.txt"
POINTS = 10
COMMAND = (sys.executable, "-c", "from audiossm_apps.cli import main; raise SystemExit(main())")


def write_text(path: Path, characters: int) -> list[str]:
    """Write whole sentences of at least so many characters; return their words."""
    text = ""
    for sentence in cycle(SENTENCES.read_text(encoding="utf-8").splitlines()):
        if len(text) >= characters:
            break
        text += f"{sentence}\n"
    path.write_text(text, encoding="utf-8")
    return text.split()


def read_memory(pid: int) -> float:
    """Return a process's resident memory in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> int:
    """Print memory as it goes, and the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--characters", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--model", metavar="NAME|DIR", help="default: the shipped one")
    parser.add_argument(
        "--max-growth", type=float, default=0.05, help="a share (default: %(default)s)"
    )
    args = parser.parse_args()
    options = ["--model", args.model] if args.model else []
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "text.txt"), Path(folder, "speech.wav")
        words = write_text(source, args.characters)
        marks = [len(words) * point // POINTS for point in range(1, POINTS + 1)]
        said: list[str] = []
        memory: list[float] = []
        end_s = 0.0
        started = time.perf_counter()
        with open(source, "rb") as text:
            process = subprocess.Popen(
                [*COMMAND, "generate", "-o", str(target), "--format", "jsonl", "--threads", "1"]
                + options,
                stdin=text,
                stdout=subprocess.PIPE,
            )
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                told = json.loads(line)
                said.append(told["word"])
                end_s = told["end_s"]
                if len(said) in marks:
                    memory.append(read_memory(process.pid))
                    print(f"{len(said)} words, {end_s:.0f} s: {memory[-1]:.1f} MB", flush=True)
        status = process.wait()
        wall_s = time.perf_counter() - started
        if status:
            print(f"FAIL: exit code {status}")
            return 1
        with wave.open(str(target), "rb") as file:
            audio_s = file.getnframes() / file.getframerate()
    whole = said == words and end_s <= audio_s < end_s + 2
    growth = memory[-1] / memory[0] - 1 if memory else float("inf")
    passed = whole and growth <= args.max_growth
    pairs = zip(said, words, strict=False)
    same = next((at for at, (one, other) in enumerate(pairs) if one != other), len(said))
    print(name_machine(describe_machine()))
    print(
        f"{'pass' if passed else 'FAIL'}: {len(said)} of {len(words)} words"
        + ("" if said == words else f", of which the first {same} are right")
        + f"; {audio_s:.1f} s of speech in {wall_s:.0f} s; memory {100 * growth:+.2f} % from the "
        f"first tenth to the end (limit {100 * args.max_growth:g} %)"
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
