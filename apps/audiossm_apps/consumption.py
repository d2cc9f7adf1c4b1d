"""What a process has used of the machine: processor time and memory, from Linux's /proc."""

import os
from pathlib import Path
from typing import NamedTuple

from audiossm.errors import DependencyError

__all__ = ["Consumption", "consumption_of", "machine_load"]


class Consumption(NamedTuple):
    """Of one process, all its threads together."""

    cpu_s: float
    resident_bytes: int


def consumption_of(pid: int) -> Consumption:
    """Read what a process has used.

    Raises:
        DependencyError: there is no /proc, or no such process.
    """
    try:
        # the name in brackets may have spaces
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError) as exc:
        raise DependencyError(f"measuring process {pid} needs Linux's /proc ({exc})") from exc
    ticks = int(fields[11]) + int(fields[12])
    return Consumption(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"))


def machine_load() -> float:
    """Return how many processes wanted to run, on average of the last minute."""
    return os.getloadavg()[0]
