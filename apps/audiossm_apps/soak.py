"""``audiossm soak``: hours of speech through one session, whose memory and steps stay as they were.

A step's time is compared with that of a session that has just begun, in the same moment and on the
same samples: what else the machine does slows both.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from audiossm_apps.clips import RATE, Clip, add_clip_options, read_clips
from audiossm_apps.consumption import consumption_of
from audiossm_apps.options import (
    add_decoder_option,
    add_model_options,
    count,
    load_transcriber,
    positive,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from audiossm.streaming import Transcriber
    from audiossm.streaming.stream import Stream

__all__ = ["Window", "add_command", "judge", "run", "soak"]

DESCRIPTION = """\
Send hours of speech through one session as fast as it goes, and check that nothing grows: resident
memory, the size of a snapshot, and a step's time beside that of a session that has just begun; and
that words go on coming. The last quarter is compared with the first. Prints a line a minute; the
exit code is 1 if something isn't flat. Ctrl-C ends it early, and judges what there is."""

WINDOW_S = 60.0
SILENCE_S = 1.0  # after each clip, so that segments end
SNAPSHOT_S = 3.0  # as often as a server's
NUM_WINDOWS = 8  # at least; the first one is for what loads late
REFERENCE_S = 6.0  # of a window beside a new session
UNCOUNTED = 5  # first steps of a session, which bind its memory
WORDS = 0.5  # what is said differs from window to window


@dataclass(frozen=True)
class Window:
    """A minute of audio, or an eighth of a short run."""

    audio_s: float  # at its end
    resident_bytes: int
    snapshot_bytes: int
    step_ms: float  # median of the old session
    ratio: float  # of that, step by step, to the new session's
    words_a_minute: float


@dataclass(frozen=True)
class Change:
    """How a figure differs between the first and the last quarter of the windows."""

    name: str
    first: float
    last: float
    limit: float

    @property
    def share(self) -> float:
        """By how much the last is more, as a share of the first."""
        return self.last / self.first - 1 if self.first else float(self.last != 0)

    @property
    def is_flat(self) -> bool:
        """Whether that is within the limit."""
        return abs(self.share) <= self.limit


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``soak`` to the command line."""
    parser = commands.add_parser(
        "soak", help="hours through one session: nothing grows", description=DESCRIPTION
    )
    add_clip_options(parser)
    parser.add_argument(
        "--minutes",
        type=positive,
        default=480.0,
        metavar="M",
        help="of audio (default: %(default)g)",
    )
    parser.add_argument(
        "--message-ms",
        type=count,
        default=160,
        metavar="MS",
        help="audio of a step (default: %(default)s)",
    )
    parser.add_argument(
        "--max-memory",
        type=positive,
        default=1.0,
        metavar="PERCENT",
        help="by how much memory may change, (default: %(default)g)",
    )
    parser.add_argument(
        "--max-step",
        type=positive,
        default=5.0,
        metavar="PERCENT",
        help="by how much a step's time may change, (default: %(default)g)",
    )
    parser.add_argument("--json", metavar="FILE", help="write all windows there, too")
    add_decoder_option(parser)
    add_model_options(parser, lookahead=False)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Soak, and say whether all was flat."""
    from audiossm.evaluate.machine import describe_machine, name_machine

    if args.threads is None:
        args.threads = 1  # as a server
    clips = read_clips(args.files, args.manifest)
    transcriber = load_transcriber(args, readable=True)
    windows: list[Window] = []
    started = shown = time.monotonic()
    try:
        for window in soak(transcriber, clips, args.minutes * 60, args.message_ms):
            windows.append(window)
            now = time.monotonic()
            if now - shown >= 60 or window.audio_s >= args.minutes * 60:
                shown = now
                print(_describe(window, now - started), flush=True)
    except KeyboardInterrupt:
        if len(windows) < NUM_WINDOWS:
            raise  # too little to judge
    changes = judge(windows, args.max_memory / 100, args.max_step / 100)
    minutes = windows[-1].audio_s / 60
    for change in changes:
        print(
            f"{'flat' if change.is_flat else 'NOT FLAT'}: {change.name} {change.first:.4g} -> "
            f"{change.last:.4g} ({change.share:+.2%}, limit {100 * change.limit:g} %)"
        )
    machine, passed = describe_machine(), all(change.is_flat for change in changes)
    spent_s = time.monotonic() - started
    if args.json:
        report = {
            "model": transcriber.name,
            "backend": args.backend,
            "message_ms": args.message_ms,
            "wall_s": spent_s,
            "passed": passed,
            "machine": machine,
            "changes": [asdict(change) | {"flat": change.is_flat} for change in changes],
            "windows": [asdict(window) for window in windows],
        }
        Path(args.json).write_text(json.dumps(report) + "\n", encoding="utf-8")
    print(f"{name_machine(machine)}; {transcriber.name}, {args.backend}")
    print(
        f"{'pass' if passed else 'FAIL'}: {minutes:g} minutes of audio in {spent_s / 60:.1f}",
        file=sys.stdout if passed else sys.stderr,
    )
    return 0 if passed else 1


def soak(
    transcriber: "Transcriber", clips: list[Clip], seconds: float, message_ms: int
) -> Iterator[Window]:
    """Push clips through one session, over and over, and yield how it went, window by window."""
    from audiossm.streaming.stream import Stream

    total = round(seconds * RATE)
    length = min(round(WINDOW_S * RATE), -(-total // NUM_WINDOWS))
    compared = min(round(REFERENCE_S * RATE), length)
    old, pieces = Stream(transcriber.session(RATE)), cut(clips, RATE * message_ms // 1000)
    at = kept = 0
    snapshot = old.snapshot()
    while at < total:
        new = Stream(transcriber.session(RATE))
        begin, end = at, min(at + length, total)
        words = 0
        times: list[float] = []
        pairs: list[float] = []
        while at < end:
            piece = next(pieces)
            at += len(piece)
            if at <= begin + compared:
                # first one, then the other: the second finds weights in the processor's cache
                order = (new, old) if len(pairs) % 2 else (old, new)
                took = {stream: time_push(stream, piece) for stream in order}
                pairs.append(took[old][0] / max(took[new][0], 1e-9))
            else:
                took = {old: time_push(old, piece)}
            times.append(took[old][0])
            words += took[old][1]
            if at - kept >= SNAPSHOT_S * RATE:
                kept, snapshot = at, old.snapshot()
        yield Window(
            at / RATE,
            consumption_of(os.getpid()).resident_bytes,
            len(snapshot),
            1000 * median(times),
            median(pairs[UNCOUNTED:] or pairs),
            words * 60 * RATE / (at - begin),
        )


def time_push(stream: "Stream", samples: "NDArray[np.float32]") -> tuple[float, int]:
    """Push samples: seconds of this thread's processor time, and how many words were told."""
    from audiossm.streaming import Word

    started = time.thread_time()
    news = stream.push(samples)
    spent_s = time.thread_time() - started
    stream.confirm(stream.seq)
    return spent_s, sum(isinstance(item.event, Word) for item in news)


def cut(clips: list[Clip], size: int) -> Iterator["NDArray[np.float32]"]:
    """Yield the clips and silences in pieces, for ever."""
    import numpy as np

    silence = np.zeros(round(SILENCE_S * RATE), np.float32)
    speech = np.concatenate([part for clip in clips for part in (clip.samples, silence)])
    speech = np.tile(speech, -(-size // len(speech)))
    at = 0
    while True:
        piece = speech[at : at + size]
        at = (at + size) % len(speech)
        if len(piece) < size:
            piece = np.concatenate([piece, speech[:at]])
        yield piece


def judge(windows: list[Window], max_memory: float, max_step: float) -> list[Change]:
    """Compare the last quarter of the windows with the first one; limits are shares."""
    windows = windows[1:] if len(windows) > 2 else windows
    quarter = max(1, len(windows) // 4)
    first, last = windows[:quarter], windows[-quarter:]

    def compare(name: str, unit: str, scale: float, limit: float) -> Change:
        before, after = (median(getattr(w, name) * scale for w in part) for part in (first, last))
        return Change(unit, before, after, limit)

    return [
        compare("resident_bytes", "memory, MB", 1e-6, max_memory),
        compare("snapshot_bytes", "snapshot, MB", 1e-6, max_memory),
        compare("ratio", "step, in those of a new session", 1, max_step),
        compare("words_a_minute", "words a minute", 1, WORDS),
    ]


def _describe(window: Window, spent_s: float) -> str:
    minutes, whole = divmod(round(window.audio_s), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02}:{whole:02} of audio, {window.audio_s / spent_s:.1f} x "
        f"real time; memory {window.resident_bytes / 1e6:.1f} MB, step {window.step_ms:.2f} ms, "
        f"{window.ratio:.3f} of a new session's; {window.words_a_minute:.0f} words a minute"
    )
