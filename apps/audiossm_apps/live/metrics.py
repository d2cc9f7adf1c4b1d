"""An engine's meters in the text format of Prometheus."""

from itertools import accumulate

from audiossm.streaming import Engine, SpeechEngine
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


SPEECH_COUNTERS = {
    "begun": "texts begun to be said",
    "refused": "texts refused, as there was no room",
    "cancelled": "texts that weren't said to their end",
    "failed": "texts that failed",
}


def write_metrics(engine: Engine, num_connections: int, speech: SpeechEngine | None = None) -> str:
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
    if speech is not None:
        for name, what in SPEECH_COUNTERS.items():
            lines += _one(f"speech_{name}_total", "counter", what, getattr(speech.meters, name))
        seconds = round(speech.meters.audio_s, 3)
        lines += _one("speech_seconds_total", "counter", "speech made", seconds)
        lines += _one("speech", "gauge", "texts that are being said", len(speech.saying))
        lines += _one("speech_capacity", "gauge", "texts there is room for", speech.capacity)
        if (seats := speech.seats) is not None:
            for name, what, value in (
                ("speech_steps", "steps of all texts together", seats.num_steps),
                ("speech_frames", "frames made in them", seats.num_frames),
            ):
                lines += _one(f"{name}_total", "counter", what, value)
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
