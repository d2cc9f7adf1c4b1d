"""What an engine counts and times."""

import threading
from bisect import bisect_left
from dataclasses import dataclass, field

__all__ = ["Meters", "Timing"]

# upper ends of a timing's classes, in seconds
BOUNDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass
class Timing:
    """How long something took, in classes. Threads may share it."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total_s: float = 0.0
    recent_s: float = 0.0  # a mean in which the last twenty or so weigh most
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, seconds: float) -> None:
        """Count one."""
        with self.lock:
            self.counts[bisect_left(BOUNDS, seconds)] += 1
            self.total_s += seconds
            self.recent_s += 0.05 * (seconds - self.recent_s)

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)


@dataclass
class Meters:
    """Counts since the engine's start."""

    opened: int = 0
    resumed: int = 0
    refused: int = 0
    failed: int = 0
    stuck: int = 0
    hibernated: int = 0
    woken: int = 0
    snapshots: int = 0
    lost_snapshots: int = 0
    audio_s: float = 0.0
    wait: Timing = field(default_factory=Timing)  # of a turn in the line
    turn: Timing = field(default_factory=Timing)  # of a turn itself
