"""The installed ``audiossm`` command as a process whose time and memory are measured."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Run", "run_command"]


@dataclass(frozen=True)
class Run:
    """One finished process."""

    wall_s: float
    peak_bytes: int  # largest resident memory
    disk_bytes: int  # read from the disk: 0 if all came from the page cache
    words: int  # on standard output


def run_command(arguments: Sequence[str]) -> Run:
    """Run ``audiossm`` beside this Python; a failure ends the proof with the command's own words.

    The kernel counts this process's memory at the fork as the child's, so keep torch out of it.
    """
    command = [str(Path(sys.executable).with_name("audiossm")), *arguments]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    words = sum(len(line.split()) for line in process.stdout)
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit code {process.returncode}")
    return Run(wall_s, usage.ru_maxrss * 1024, usage.ru_inblock * 512, words)
