"""``audiossm loadtest``: many streams of real speech against a server, at the pace of speech."""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from audiossm.errors import ConfigError, DependencyError, ServiceError
from audiossm_apps.clips import RATE, Clip, add_clip_options, read_clips
from audiossm_apps.consumption import Consumption, consumption_of, machine_load
from audiossm_apps.options import (
    add_decoder_option,
    add_model_options,
    count,
    load_transcriber,
    positive,
)

if TYPE_CHECKING:
    from audiossm.streaming import Transcriber
    from audiossm_apps.load import Tally

__all__ = ["add_command", "make_report", "run", "serving"]

START_S = 180.0
LEVELS = (50, 95, 99)

DESCRIPTION = """\
Have many callers speak to a server at once, each one recording after the other at the pace of
speech, and measure: how long after a sample was sent a partial text of it came, and how long after
the end of a recording all of its words; words that 'audiossm transcribe' writes and the server
didn't, or wrote otherwise; calls that broke off or were refused; processor and memory. Without
--server it starts one, which shares the machine with the callers.

The exit code is 1 if a call broke off, a word was lost or wrong, or the finals or answers to pings
were too late; also if somebody was refused, or with --overload, if nobody was."""


@dataclass(frozen=True)
class Server:
    """Where a server is, and its process if it is ours."""

    address: str
    pid: int | None = None


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``loadtest`` to the command line."""
    parser = commands.add_parser(
        "loadtest",
        help="many streams against a server: latency, losses, processor",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_clip_options(parser)
    parser.add_argument("--streams", type=count, default=8, metavar="N", help="(default: 8)")
    parser.add_argument(
        "--seconds", type=positive, default=60.0, metavar="S", help="(default: %(default)g)"
    )
    parser.add_argument(
        "--overload",
        action="store_true",
        help="twice as many streams as the server has places; who is refused comes again",
    )
    parser.add_argument(
        "--message-ms",
        type=count,
        default=100,
        metavar="MS",
        help="audio in a message (default: %(default)s)",
    )
    parser.add_argument(
        "--max-p99-ms",
        type=positive,
        default=350.0,
        metavar="MS",
        help="limit for the finals' and the pings' p99 (default: %(default)g)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too; - prints")
    parser.add_argument("--server", metavar="URL", help="where it is (default: one of our own)")
    parser.add_argument("--key", metavar="KEY", help="API key, if the server wants one")
    parser.add_argument(
        "--capacity", type=count, metavar="N", help="of our own server (default: measured)"
    )
    add_decoder_option(parser)
    add_model_options(parser, lookahead=False)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Load a server, and report."""
    try:
        import websockets  # noqa: F401
    except ImportError as exc:
        raise DependencyError(
            "a load test needs the package websockets: pip install 'audiossm[serve]'"
        ) from exc
    if args.server is not None and args.capacity is not None:
        args.parser.error("--capacity is about a server of our own: leave --server out")
    from audiossm_apps.load import Load

    clips = read_clips(args.files, args.manifest)
    if args.threads is None:
        args.threads = 1
    transcriber = load_transcriber(args, readable=True)
    expected = {clip.name: transcribe_clip(transcriber, clip) for clip in clips}
    model = transcriber.name
    del transcriber
    gc.collect()
    gc.freeze()  # a collection over all that was loaded would delay messages
    with serving(args) as server:
        capacity = ask_capacity(server.address, args.key)
        streams = 2 * capacity if args.overload else args.streams
        before = measure(server)
        began = time.monotonic()
        load = Load(server.address, clips, args.message_ms, args.key)
        tally = asyncio.run(load.run(streams, args.seconds))
        spent_s, after = time.monotonic() - began, measure(server)
    if tally.model and tally.model != model:
        raise ConfigError(
            f"the server has the model {tally.model!r}, but {model!r} is here: give --model"
        )
    report = make_report(tally, expected, overload=args.overload, max_p99_ms=args.max_p99_ms)
    report |= {
        "model": model,
        "backend": args.backend,
        "streams": streams,
        "capacity": capacity,
        "message_ms": args.message_ms,
        "seconds": round(spent_s, 1),
        "load_average": round(machine_load(), 2),
    }
    for name, start, end in zip(("server", "client"), before, after, strict=True):
        report[name] = describe_use(start, end, spent_s)
    show(report, args.json)
    return 0 if report["passed"] else 1


def transcribe_clip(transcriber: "Transcriber", clip: Clip) -> tuple[list[str], list[str]]:
    """Return the plain and the written words of a clip, as ``transcribe`` has them."""
    from audiossm.streaming import Word, WrittenWord

    session = transcriber.session(RATE)
    events = session.push(clip.samples) + session.finish()
    plain = [event.word for event in events if isinstance(event, Word)]
    return plain, [event.text for event in events if isinstance(event, WrittenWord)]


@contextlib.contextmanager
def serving(args: argparse.Namespace) -> Iterator[Server]:
    """Yield the server that is named, or start one with the same model and end it.

    Raises:
        ServiceError: it didn't start.
    """
    if args.server is not None:
        yield Server(args.server)
        return
    command = [sys.executable, "-m", "audiossm_apps.cli", "serve", "--port", "0"]
    for name in ("model", "decoder", "device", "backend", "capacity", "threads"):
        value = getattr(args, name)
        if value is not None:
            command += [f"--{name}", str(value)]
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "log"), "w+b") as log:
        process = subprocess.Popen(
            [*command, "--store", str(Path(folder, "streams"))],
            stdout=subprocess.PIPE,
            stderr=log,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            if "serving on" not in line:
                process.wait(START_S)
                log.seek(0)
                said = " ".join(log.read().decode(errors="replace").split())[-300:]
                raise ServiceError(f"the server didn't start: {said or line!r}")
            yield Server(line.split()[-1], process.pid)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()


def ask_capacity(server: str, key: str | None) -> int:
    """Ask a server how many places it has.

    Raises:
        ServiceError: it can't be reached, or isn't one.
    """
    from audiossm_apps.client import stream_address

    parts = urlsplit(stream_address(server))
    url = f"{'https' if parts.scheme == 'wss' else 'http'}://{parts.netloc}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(json.load(answer)["capacity"])
    except (OSError, ValueError, KeyError, urllib.error.URLError) as exc:
        raise ServiceError(f"{url}: no such service ({exc})") from exc


def measure(server: Server) -> tuple[Consumption | None, Consumption]:
    """Return what the server, if it is ours, and this process have used."""
    used = None if server.pid is None else consumption_of(server.pid)
    return used, consumption_of(os.getpid())


def describe_use(
    start: Consumption | None, end: Consumption | None, spent_s: float
) -> dict[str, float] | None:
    """Return how many processors were busy, and the memory at the end."""
    if start is None or end is None:
        return None
    cores = (end.cpu_s - start.cpu_s) / spent_s
    return {"cores": round(cores, 3), "resident_mb": round(end.resident_bytes / 1e6, 1)}


def make_report(
    tally: "Tally",
    expected: dict[str, tuple[list[str], list[str]]],
    *,
    overload: bool,
    max_p99_ms: float,
) -> dict[str, Any]:
    """Sum up what came of the calls, and judge it."""
    from audiossm.evaluate.pronounce import count_edits

    words = wrong = 0
    for call in tally.calls:
        plain, written = expected[call.clip.name]
        words += len(plain)
        # a server that was started with --raw writes none
        errors = count_edits(call.written, written) if call.written else 0
        wrong += max(count_edits(call.words, plain), errors)
    finals, pings = rank(tally.finals), rank(tally.pongs)
    problems = []
    if not words:
        problems.append("no words came")
    if wrong:
        problems.append(f"{wrong} of {words} words lost or wrong")
    if tally.drops:
        problems.append(f"{len(tally.drops)} calls broke off, such as by {tally.drops[0]}")
    if tally.rude:
        problems.append(f"{len(tally.rude)} refusals such as {tally.rude[0]}")
    if tally.refusals and not overload:
        problems.append(f"{tally.refusals} refusals")
    if overload and not tally.refusals:
        problems.append("nobody was refused: that is no overload")
    for name, times in (("finals", finals), ("pings", pings)):
        if times and times["p99"] > max_p99_ms:
            problems.append(f"{name}' p99 {times['p99']:.0f} ms, limit {max_p99_ms:g}")
    return {
        "passed": not problems,
        "problems": problems,
        "calls": len(tally.calls),
        "most_at_once": tally.most_at_once,
        "speech_s": round(sum(call.clip.seconds for call in tally.calls), 1),
        "words": words,
        "words_wrong": wrong,
        "drops": len(tally.drops),
        "refusals": tally.refusals + len(tally.rude),
        "partial_ms": rank(tally.partials),
        "final_ms": finals,
        "start_ms": rank(tally.starts),
        "ping_ms": pings,
        "late_ms": rank(tally.late),  # the client's own fault
    }


def rank(times: Sequence[float]) -> dict[str, float]:
    """Return percentiles of seconds in milliseconds; none of nothing."""
    if not times:
        return {}
    ranked = sorted(times)
    levels = {f"p{level}": ranked[-(-level * len(ranked) // 100) - 1] for level in LEVELS}
    return {name: round(1000 * t, 1) for name, t in (levels | {"max": ranked[-1]}).items()}


def show(report: dict[str, Any], target: str | None) -> None:
    """Print the report, as JSON if ``target`` is "-", or write it there, too."""
    from audiossm.evaluate.machine import describe_machine, name_machine

    report["machine"] = describe_machine()
    text = json.dumps(report)
    if target == "-":
        print(text)
        return
    if target:
        Path(target).write_text(text + "\n", encoding="utf-8")
    print(
        f"{report['streams']} streams (places: {report['capacity']}, at most "
        f"{report['most_at_once']} at once), {report['message_ms']} ms a message, "
        f"{report['seconds']:g} s: {report['calls']} calls, {report['speech_s']:g} s of speech"
    )
    for name in ("partial", "final", "start", "ping", "late"):
        values = report[f"{name}_ms"]
        print(f"{name:8}", *(f"{level} {value:7.1f}" for level, value in values.items()), "ms")
    print(
        f"words lost or wrong: {report['words_wrong']} of {report['words']}; calls broken off: "
        f"{report['drops']}; refused: {report['refusals']}"
    )
    for name in ("server", "client"):
        if report[name]:
            use = report[name]
            print(f"{name}: {use['cores']:.2f} processors, {use['resident_mb']:.0f} MB")
    print(
        f"{name_machine(report['machine'])}; {report['model']}, {report['backend']}; load average "
        f"{report['load_average']}"
    )
    print("pass" if report["passed"] else f"FAIL: {'; '.join(report['problems'])}")
