"""Proof of how many live streams one card listens to: a table of streams, fed in real time.

    python tests/proofs/card_streams.py --streams 8000 16000 20000 --seconds 10
    python tests/proofs/card_streams.py --shape 1.5b --streams 2000 4000 --groups 2
    python tests/proofs/card_streams.py --engine 64 128 256

For each number of streams, all in this process: every stream gets speech of its own place in the
recording, one backbone frame at a time, when that frame would be whole; the streams begin their
frames in --groups moments of a frame. A group's time runs from the moment at which its frames are
whole to its words as texts; the first second doesn't count. A number of streams holds if 99 of 100
times are shorter than a frame and the last one is no later than that.

first-light is the shipped recogniser. 1.5b has the same encoder under random weights of the
published size: 24 layers of 2048 channels, 80 ms frames, weights and states in bfloat16.

With --engine, streams of the shipped model are sessions of an engine with as many seats, each
pushed 80 ms at a time by a task of its own; the time runs to its news.

Before, --check streams of the shipped model are compared with sessions: of how many all words are
the same, and how many words aren't. The exit code is 1 if more than --max-other percent are not,
or if a number doesn't hold.
"""

import argparse
import asyncio
import gc
import json
import queue
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from audiossm.evaluate.machine import describe_machine
from audiossm.models import BackboneConfig, Recogniser
from audiossm.streaming import Engine, EngineLimits, MemoryStore, Transcriber, Word
from audiossm.streaming.session import Session
from audiossm.streaming.table import Heard, StreamTable

RATE = 16000
LEAD_S = 1.0  # not counted
STEP = 160  # streams begin at multiples of it, in samples
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Samples = NDArray[np.float32]


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, nargs="+", default=[8000])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--engine", type=int, nargs="+", default=[], metavar="STREAMS")
    parser.add_argument("--shape", choices=["first-light", "1.5b"], default="first-light")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--state", choices=DTYPES, default=None)
    parser.add_argument("--tf32", action="store_true", help="products of factors of 11 bits")
    parser.add_argument("--audio", type=Path, help="mono, 16 kHz: .npy or a recording")
    parser.add_argument("--check", type=int, default=16, metavar="STREAMS")
    parser.add_argument("--max-other", type=float, default=0.1, metavar="PERCENT")
    parser.add_argument("--json", type=Path)
    return parser


def load_audio(path: Path | None) -> Samples:
    if path is not None and path.suffix == ".npy":
        samples: Samples = np.load(path).astype(np.float32)
        return samples
    import soundfile

    folder = Path(__file__).parent.parent / "speech"
    names = sorted(folder.glob("*.flac")) if path is None else [path]
    parts = (soundfile.read(name, dtype="float32") for name in names)
    return np.concatenate([part for part, rate in parts if rate == RATE and part.ndim == 1])


def make_model(args: argparse.Namespace) -> Transcriber:
    if args.shape == "first-light":
        return Transcriber.load("first-light", device=args.device, decoder="greedy")
    small = Transcriber.load("first-light", decoder="greedy")
    config = replace(
        small.config,
        backbone=BackboneConfig(
            d_model=2048, num_layers=24, d_intermediate=4096, d_state=128, head_dim=64
        ),
        stack=4,
        lookahead_frames=(0, 2, 4),
        conv_kernel=0,
        phones=(),
    )
    torch.manual_seed(0)
    device = torch.device(args.device)
    with torch.device(device):
        network = Recogniser(config)
    network.layers.to(torch.bfloat16)
    return Transcriber(network, name="random-1.5b", model_hash="0" * 32, device=device)


class Feed:
    """The samples of every stream, frame by frame."""

    def __init__(self, audio: Samples, frame_size: int, num_streams: int) -> None:
        whole = len(audio) // STEP * STEP
        self.audio = np.concatenate([audio[:whole], audio[:frame_size]])
        self.num_starts, self.hop = whole // STEP, frame_size // STEP
        views = np.lib.stride_tricks.sliding_window_view(self.audio, frame_size)
        self.frames = torch.from_numpy(views[::STEP][: self.num_starts].copy())
        self.starts = np.random.default_rng(0).integers(0, self.num_starts, num_streams)

    def take(self, streams: NDArray[np.int64], frame: int) -> Samples:
        """Frame number ``frame`` of some streams."""
        at = (self.starts[streams] + frame * self.hop) % self.num_starts
        taken: Samples = torch.index_select(self.frames, 0, torch.from_numpy(at)).numpy()
        return taken

    def listen(self, stream: int, num_frames: int) -> Samples:
        """All frames of one stream."""
        return np.concatenate([self.take(np.array([stream]), k)[0] for k in range(num_frames)])


def make_table(args: argparse.Namespace, model: Transcriber, num_slots: int) -> StreamTable:
    layers = model.network.layers[0].norm.weight.dtype
    wanted = args.state or ("bfloat16" if args.shape == "1.5b" else "float32")
    rows = -(-num_slots // args.groups) if num_slots > 1 else 1
    return StreamTable(
        model,
        num_slots,
        max_rows=rows,
        state_dtype=DTYPES[wanted],
        layer_dtype=layers,
        tf32=args.tf32,
    )


def check_words(args: argparse.Namespace, model: Transcriber, audio: Samples) -> float:
    """Compare streams in the table with sessions on the CPU; return percent of other words."""
    frame_size = model.config.frame_size
    num_frames = round(args.seconds * RATE / frame_size)
    feed = Feed(audio, frame_size, args.check)
    table = make_table(args, model, args.check)
    slots = table.open(args.check)
    heard: list[list[str]] = [[] for _ in range(args.check)]

    def take_up(news: Heard | None) -> None:
        for slot, event in table.events(news) if news else ():
            if isinstance(event, Word):
                heard[slot].append(event.word)

    for frame in range(num_frames):
        table.push(slots, feed.take(slots, frame))
        while table.start():
            take_up(table.collect())
    table.finish(slots.tolist())
    while table.start() or table.flights:
        take_up(table.collect())
    reference = Transcriber.load("first-light", decoder="greedy", backend="torch")
    other = words = equal = 0
    for stream in range(args.check):
        session = Session(reference)
        events = session.push(feed.listen(stream, num_frames)) + session.finish()
        expected = [event.word for event in events if isinstance(event, Word)]
        matcher = SequenceMatcher(None, expected, heard[stream], autojunk=False)
        same = sum(block.size for block in matcher.get_matching_blocks())
        other += max(len(expected), len(heard[stream])) - same
        words += len(expected)
        equal += expected == heard[stream]
    percent = 100 * other / max(1, words)
    print(
        f"{equal} of {args.check} streams have all words of a session on the CPU; "
        f"{other} of {words} words are others ({percent:.3f} %)",
        flush=True,
    )
    return percent


def measure_moves(table: StreamTable, slots: NDArray[np.int64], count: int = 8) -> float:
    """Return the milliseconds of a stream out of its slot, through bytes, and into it again."""
    times = []
    for slot in slots[:count].tolist():
        started = time.perf_counter()
        data = table.take_out(slot).snapshot()
        table.close([slot])
        table.put_in(Session.restore(table.transcriber, data))
        times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times))


class Run:
    """One number of streams, fed in real time."""

    def __init__(self, table: StreamTable, feed: Feed, num_streams: int, groups: int) -> None:
        self.table, self.feed, self.groups = table, feed, groups
        self.frame_s = feed.frames.shape[1] / RATE
        slots = table.open(num_streams)
        self.parts = [slots[g::groups] for g in range(groups)]
        self.streams = [np.arange(num_streams)[g::groups] for g in range(groups)]
        self.due: list[float] = []
        self.late_s: list[float] = []
        self.device_ms: list[float] = []
        self.words: list[int] = []
        self.host_s: list[float] = []
        self.pushed_s: list[float] = []

    def moments(self, num_frames: int) -> Iterator[tuple[int, int, float]]:
        for frame in range(num_frames):
            for group in range(self.groups):
                yield frame, group, (frame + group / self.groups) * self.frame_s

    def speak(self, num_frames: int) -> Iterator[tuple[int, float, Samples]]:
        """Yield group, moment and samples: another thread stands for the clients."""
        ready: queue.Queue[tuple[int, float, Samples]] = queue.Queue(2)

        def fill() -> None:
            for frame, group, due in self.moments(num_frames):
                ready.put((group, due, self.feed.take(self.streams[group], frame)))

        thread = threading.Thread(target=fill, daemon=True)
        thread.start()
        for _ in range(num_frames * self.groups):
            yield ready.get()
        thread.join()

    def run(self, seconds: float) -> None:
        table = self.table
        begun = time.perf_counter() + 0.2
        for group, due, samples in self.speak(round((LEAD_S + seconds) / self.frame_s)):
            due += begun
            # a step that is done is told while there is time, and before a third would begin
            while table.flights and (len(table.flights) > 1 or time.perf_counter() < due):
                if len(table.flights) > 1 or table.flights[0].labels.is_done:
                    self.collect()
                else:
                    time.sleep(2e-4)
            time.sleep(max(0.0, due - time.perf_counter()))
            started = time.perf_counter()
            table.push(self.parts[group], samples)
            count = table.start()
            self.pushed_s.append(time.perf_counter() - started)
            assert count == len(self.parts[group])
            self.due.append(due)
        while table.flights:
            self.collect()

    def collect(self) -> None:
        labels = self.table.flights[0].labels
        labels.wait()
        started = time.perf_counter()
        heard = self.table.collect()
        assert heard is not None and not len(heard.failed)
        self.words.append(len(self.table.events(heard)))
        now = time.perf_counter()
        self.host_s.append(now - started + self.pushed_s[len(self.host_s)])
        self.late_s.append(now - self.due[len(self.late_s)])
        self.device_ms.append(labels.device_ms)

    def close(self) -> None:
        self.table.close(np.nonzero(self.table.open_slots)[0].tolist())


def measure(
    args: argparse.Namespace, table: StreamTable, feed: Feed, count: int
) -> dict[str, object]:
    run = Run(table, feed, count, args.groups)
    table.slots.warm_up([len(part) for part in run.parts])
    gc.collect()
    gc.freeze()
    run.run(args.seconds)
    lead = round(LEAD_S / run.frame_s) * args.groups
    wall_s = run.due[-1] + run.late_s[-1] - run.due[lead]
    moved_ms = measure_moves(table, run.parts[0]) if count > 8 and args.shape != "1.5b" else None
    run.close()
    late = 1e3 * np.array(run.late_s[lead:])
    device = np.array(run.device_ms[lead:])
    host_s, words = sum(run.host_s[lead:]), sum(run.words[lead:])
    frame_ms = 1e3 * run.frame_s
    p99 = float(np.percentile(late, 99))
    holds = p99 < frame_ms and late[-1] < frame_ms
    row = {
        "streams": count,
        "holds": bool(holds),
        "frame_ms": frame_ms,
        "p50_ms": float(np.median(late)),
        "p99_ms": p99,
        "max_ms": float(late.max()),
        "device_p50_ms": float(np.median(device)),
        "device_p99_ms": float(np.percentile(device, 99)),
        "rows": table.slots.bucket(len(run.parts[0])),
        "host_busy": host_s / wall_s,
        "words_per_s": words / wall_s,
        "move_ms": moved_ms,
    }
    print(
        f"{count:6} streams {'hold' if holds else 'DO NOT HOLD'}: words {row['p50_ms']:.1f} ms "
        f"(p99 {p99:.1f}, worst {row['max_ms']:.1f}) after frames of {frame_ms:.0f} ms; "
        f"card {row['device_p50_ms']:.1f} ms (p99 {row['device_p99_ms']:.1f}) a step of "
        f"{row['rows']} rows, {args.groups} a frame; host busy {100 * host_s / wall_s:.0f} %; "
        f"{row['words_per_s']:.0f} words and ends a second"
        + ("" if moved_ms is None else f"; out, bytes and in again {moved_ms:.1f} ms"),
        flush=True,
    )
    return row


async def measure_engine(
    args: argparse.Namespace, model: Transcriber, audio: Samples, count: int
) -> dict[str, object]:
    """Push 80 ms at a time through an engine's sessions; a time runs to a push's news."""
    size = 2 * model.config.frame_size
    feed = Feed(audio, size, count)
    late: list[float] = []
    pieces = round((LEAD_S + args.seconds) * RATE / size)
    limits = EngineLimits(capacity=count, max_wait_s=60.0)
    async with Engine(model, MemoryStore(), None, limits, count) as engine:
        names = [await engine.open() for _ in range(count)]
        gc.collect()
        gc.freeze()
        begun = time.perf_counter() + 0.2

        async def talk(stream: int) -> None:
            for piece in range(pieces):
                due = begun + (piece + stream / count) * size / RATE
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                await engine.push(names[stream], feed.take(np.array([stream]), piece)[0])
                if piece * size >= LEAD_S * RATE:
                    late.append(1e3 * (time.perf_counter() - due))

        await asyncio.gather(*(talk(stream) for stream in range(count)))
        seats = engine._seats
        rows = 0.0 if seats is None else seats.num_frames / max(1, seats.num_steps)
    p50, p99 = (float(np.percentile(late, q)) for q in (50, 99))
    holds = p99 < 1e3 * size / RATE
    print(
        f"{count:6} streams of an engine {'hold' if holds else 'DO NOT HOLD'}: news {p50:.1f} ms "
        f"(p99 {p99:.1f}, worst {max(late):.1f}) after pieces of {1e3 * size / RATE:.0f} ms; "
        f"{rows:.1f} streams a step",
        flush=True,
    )
    return {"streams": count, "holds": holds, "p50_ms": p50, "p99_ms": p99, "rows": rows}


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    audio = load_audio(args.audio)
    model = make_model(args)
    report = {"machine": describe_machine(), "args": {k: str(v) for k, v in vars(args).items()}}
    on_card = model.device.type == "cuda"
    if on_card:
        report["card"] = torch.cuda.get_device_name(model.device)
    ok = True
    if args.check and args.shape == "first-light":
        report["other_percent"] = check_words(args, model, audio)
        ok = report["other_percent"] <= args.max_other
    if args.engine:
        engines = [asyncio.run(measure_engine(args, model, audio, count)) for count in args.engine]
        report["engines"] = engines
        if args.json:
            args.json.write_text(json.dumps(report, indent=1))
        return 0 if ok and all(row["holds"] for row in engines) else 1
    most = max(args.streams)
    table = make_table(args, model, most)
    print(
        f"{args.shape} on {report.get('card', 'the CPU')}, {table.profile}: "
        f"{table.slots.state_bytes / 1e6:.2f} MB a stream, {len(audio) / RATE:.0f} s of speech",
        flush=True,
    )
    feed = Feed(audio, model.config.frame_size, most)
    rows = report["rows"] = [measure(args, table, feed, count) for count in args.streams]
    if on_card:
        free, total = torch.cuda.mem_get_info(model.device)
        report["card_bytes"] = total - free
        print(f"{(total - free) / 1e9:.1f} GB of {total / 1e9:.1f} GB of the card in use")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))
    return 0 if ok and all(row["holds"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
