"""Proof that every recipe works from a fresh clone, by the commands of its README, on a CPU.

    python tests/proofs/recipes.py                       in a virtual environment of its own
    python tests/proofs/recipes.py --venv .venv --only codec text

Clones the repository that this file stands in, at HEAD, makes a toy set of the tests' recordings by
``audiossm prepare``, and trains with it by each recipe's README, then uses what was trained, as
docs/recipes.md does. Commands are read from those pages; recipe_cuts.py only says to what they are
cut, and what is meant by names such as DIR. Nothing is learnt in so few steps: each command must
end well, in its time, and leave what the next one needs. The exit code is 1 if one doesn't. Phones
by espeak-ng need its library (Debian: espeak-ng).
"""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).parents[1]))

from recipe_cuts import CUTS, TOYS, USE, Cut

from page_commands import list_commands

ROOT = Path(__file__).parents[2]
TOLD = 40  # last lines of a command that failed
GPU = {"--compile", "--capture"}  # options that want one


class Row(NamedTuple):
    """What came of a command."""

    cut: Cut
    command: str
    seconds: float
    fault: str


class Clone:
    """A clone in which commands run, each with a limit in seconds."""

    def __init__(self, folder: Path, venv: Path | None, limit_s: float) -> None:
        self.folder, self.limit_s = folder, limit_s
        self.port, self.server = 0, None
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        self.environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
        self.environment.pop("PYTHONPATH", None)
        if venv is not None:  # its packages, but the clone's code
            parts = [str(folder), str(folder / "kernels"), str(folder / "apps")]
            self.environment["PYTHONPATH"] = os.pathsep.join(parts)
        bin_folder = (venv or folder / ".venv").absolute() / "bin"
        self.environment["PATH"] = os.pathsep.join([str(bin_folder), os.environ["PATH"]])

    def install(self) -> None:
        """Make a virtual environment by the recipes page's own line."""
        for command in list_commands(self.folder / USE):
            words = [word.replace("serve]", "serve,export]") for word in command.words]
            if words[0] == "python" and words[1] == "-m" or command.program == "pip":
                words[0] = sys.executable if words[0] == "python" else words[0]
                words += ["--quiet"] if command.program == "pip" else []
                subprocess.run(words, cwd=self.folder, env=self.environment, check=True)

    def make_toys(self) -> None:
        """Lay out what the commands read: recordings with texts, a book."""
        speech = self.folder / "tests" / "speech"
        for line in (speech / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            place = self.folder / "recordings" / row["speaker"].replace(":", "-")
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(speech / row["path"], place)
            (place / f"{row['key']}.txt").write_text(row["text"], encoding="utf-8")
        shutil.copy(speech / "river.flac", self.folder / "talk.flac")
        (self.folder / "books").mkdir()
        sentences = (self.folder / "tests" / "text" / "sentences.txt").read_text(encoding="utf-8")
        (self.folder / "books" / "a-book.txt").write_text(sentences.replace("\n", " "))

    def run(self, cut: Cut) -> Row:
        """Run a command, or begin to serve, and see what it leaves."""
        words = self.read(cut)
        if words is None:
            return Row(cut, f"({cut.words})", 0.0, f"{cut.page} has no such command")
        began = time.monotonic()
        if words[:2] == ["audiossm", "serve"]:
            fault = self.serve(words)
        else:
            fault = self.call(words)
        made = [(name, self.folder / name) for name in cut.makes]
        missing = [name for name, path in made if not (path.exists() and path.stat().st_size)]
        if not fault and missing:
            fault = f"left no {missing[0]}, or an empty one"
        if not fault and cut.tells not in self.told():
            fault = f"doesn't tell {cut.tells!r}"
        return Row(cut, shlex.join(words), time.monotonic() - began, fault)

    def read(self, cut: Cut) -> list[str] | None:
        """Return the words to run: the page's, without a GPU's options, names filled in."""
        wanted = set(shlex.split(cut.words))
        for command in list_commands(self.folder / cut.page):
            if wanted <= set(command.words):
                break
        else:
            return None
        swaps = TOYS | dict(cut.swaps)
        names = "|".join(re.escape(name) for name in sorted(swaps, key=len, reverse=True))
        words = []
        for word in command.words:
            filled = re.sub(rf"(?<![\w.-])({names})(?![\w-])", lambda m: swaps[m[1]], word)
            if word not in GPU and filled:
                words.append(filled.replace("127.0.0.1:8765", f"127.0.0.1:{self.port}"))
        return words + shlex.split(cut.more)

    def call(self, words: Sequence[str]) -> str:
        """Run a command to its end; return what is wrong, or nothing."""
        with (self.folder / "last.log").open("w") as log:
            process = subprocess.Popen(
                words,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                code = process.wait(self.limit_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return f"took more than {self.limit_s:g} s"
        return f"exit code {code}" if code else ""

    def serve(self, words: Sequence[str]) -> str:
        """Begin to serve on a free port; return what is wrong, or nothing once it is ready."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        more = ["--port", str(self.port), "--store", "runs/streams"]
        with (self.folder / "last.log").open("w") as log:
            self.server = subprocess.Popen(
                [*words, *more], cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )
        end = time.monotonic() + self.limit_s
        while time.monotonic() < end and self.server.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5):
                    return ""
            except OSError:
                time.sleep(0.2)
        code = self.server.poll()
        return f"exit code {code}" if code is not None else f"not ready in {self.limit_s:g} s"

    def told(self) -> str:
        """Return the last lines that a command has written."""
        lines = (self.folder / "last.log").read_text(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-TOLD:])

    def stop(self) -> None:
        """End the server, if there is one."""
        if self.server is not None and self.server.poll() is None:
            self.server.terminate()
            self.server.wait(60)


def main(argv: list[str] | None = None) -> int:
    """Run all commands, print a line for each and then the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--venv", type=Path, metavar="DIR", help="(default: made in the clone)")
    parser.add_argument("--only", nargs="+", metavar="RECIPE", help="(default: all)")
    parser.add_argument("--limit-s", type=float, default=300.0, help="a command (default: 300)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="clone there, and leave it")
    args = parser.parse_args(argv)
    kinds = {cut.recipe for cut in CUTS}
    if strange := sorted(set(args.only or []) - kinds):
        parser.error(f"{strange[0]}: there are {', '.join(sorted(kinds))}")
    with tempfile.TemporaryDirectory() as temporary:
        clone = Clone(args.keep or Path(temporary, "clone"), args.venv, args.limit_s)
        if args.venv is None:
            clone.install()
        clone.make_toys()
        clone.call(["audiossm", "info"])
        print(clone.told(), flush=True)
        rows = []
        try:
            for cut in CUTS:
                if args.only and cut.recipe not in ["prepare", *args.only]:
                    continue
                row = clone.run(cut)
                rows.append(row)
                told = row.fault or "ok"
                print(f"{cut.recipe}: {row.command}: {row.seconds:.1f} s, {told}", flush=True)
                if row.fault:
                    print(clone.told(), flush=True)
                if cut.recipe == "prepare":
                    shutil.copytree(clone.folder / "prepared", clone.folder / "by-espeak")
        finally:
            clone.stop()
    print_table(rows)
    failed = sum(bool(row.fault) for row in rows)
    print(f"{len(rows)} commands, {failed} failed: {'FAIL' if failed else 'pass'}")
    return 1 if failed else 0


def print_table(rows: Sequence[Row]) -> None:
    """Print what ran, in Markdown."""
    print("\n| recipe | page | command | leaves | s | result |\n|---|---|---|---|---|---|")
    for row in rows:
        told = row.fault or "ok"
        short = row.command if len(row.command) <= 90 else row.command[:87] + "..."
        print(
            f"| {row.cut.recipe} | {row.cut.page} | `{short}` | {', '.join(row.cut.makes)} "
            f"| {row.seconds:.1f} | {told} |"
        )


if __name__ == "__main__":
    sys.exit(main())
