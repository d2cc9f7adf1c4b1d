"""An engine's meters in the text format of Prometheus."""

from itertools import accumulate

from audiossm.streaming import Engine
from audiossm.streaming.meters import BOUNDS, Timing

__all__ = ["write_metrics"]

COUNTERS = {
    "opened": "streams begun",
    "resumed": "streams resumed",
    "refused": "streams refused, as there was no room",
    "failed": "streams that failed",
    "stuck": "steps given up",
    "hibernated": "streams moved to the store",
    "woken": "streams moved back",
    "snapshots": "snapshots kept",
    "lost_snapshots": "snapshots that couldn't be kept",
}


def write_metrics(engine: Engine, num_connections: int) -> str:
    """Write all meters; none of them has a label that names anybody."""
    meters = engine.meters
    lines = []
    for name, what in COUNTERS.items():
        lines += _one(f"{name}_total", "counter", what, getattr(meters, name))
    lines += _one("audio_seconds_total", "counter", "audio listened to", round(meters.audio_s, 3))
    lines += _one("streams", "gauge", "streams in memory", engine.num_resident)
    lines += _one("capacity", "gauge", "streams there is room for", engine.capacity)
    lines += _one("connections", "gauge", "websockets", num_connections)
    lines += _one("backlog_seconds", "gauge", "audio that waits", round(engine.backlog_s, 3))
    lines += _timing("wait_seconds", "how long a turn waits for a thread", meters.wait)
    lines += _timing("turn_seconds", "how long a turn takes", meters.turn)
    return "\n".join(lines) + "\n"


def _one(name: str, kind: str, what: str, value: float) -> list[str]:
    full = f"audiossm_{name}"
    return [f"# HELP {full} {what}", f"# TYPE {full} {kind}", f"{full} {value}"]


def _timing(name: str, what: str, timing: Timing) -> list[str]:
    full = f"audiossm_{name}"
    counts = list(accumulate(timing.counts))
    lines = [f"# HELP {full} {what}", f"# TYPE {full} histogram"]
    for bound, count in zip((*BOUNDS, "+Inf"), counts, strict=True):
        lines.append(f'{full}_bucket{{le="{bound}"}} {count}')
    return [*lines, f"{full}_sum {timing.total_s:.6f}", f"{full}_count {counts[-1]}"]
