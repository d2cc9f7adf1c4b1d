"""Proof that a stream's snapshot is small and quickly made and read.

    python tests/proofs/snapshots.py                 the shipped model, words written
    python tests/proofs/snapshots.py AUDIO --backend torch

A stream listens to a recording live; at its end it is kept and taken up again many times. Times are
of this thread's processor, and medians, so that what else the machine does matters little. The exit
code is 1 if the snapshot is over --max-mb, or a median over --max-ms, or if the stream that was
taken up doesn't go on as the first does, to the bit.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import get_args

import numpy as np
import torch

from audiossm import Transcriber
from audiossm.evaluate.machine import describe_machine, name_machine
from audiossm.graphs import Backend
from audiossm.streaming.stream import Stream
from audiossm_apps.clips import RATE, read_clips


def main(argv: list[str] | None = None) -> int:
    """Print the three figures and the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("audio", nargs="*", help="(default: the shipped clip)")
    parser.add_argument("--model", metavar="NAME|DIR", help="(default: the shipped one)")
    parser.add_argument("--backend", choices=get_args(Backend), default="auto")
    parser.add_argument("--turns", type=int, default=50, metavar="N", help="(default: 50)")
    parser.add_argument("--max-mb", type=float, default=3.0, help="(default: 3)")
    parser.add_argument("--max-ms", type=float, default=10.0, help="(default: 10)")
    parser.add_argument("--json", action="store_true", help="one object instead")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    transcriber = Transcriber.load(args.model, backend=args.backend, readable=True)
    stream = Stream(transcriber.session(RATE))
    for clip in read_clips(args.audio):
        for at in range(0, len(clip.samples), RATE // 10):
            stream.push(clip.samples[at : at + RATE // 10])
    data = stream.snapshot()
    save_ms = median_ms(stream.snapshot, args.turns)
    restore_ms = median_ms(lambda: Stream.restore(transcriber, data), args.turns)
    goes_on = Stream.restore(transcriber, data).finish() == stream.finish()
    passed = goes_on and len(data) <= args.max_mb * 1e6 and max(save_ms, restore_ms) <= args.max_ms
    report = {"mb": len(data) / 1e6, "save_ms": save_ms, "restore_ms": restore_ms}
    if args.json:
        print(json.dumps(report | {"passed": passed, "machine": describe_machine()}))
        return 0 if passed else 1
    print(name_machine(describe_machine()), f"{transcriber.name}, {args.backend}", sep="; ")
    if not goes_on:
        print("the stream that was taken up told something else than the first")
    print(
        f"{'pass' if passed else 'FAIL'}: {report['mb']:.2f} MB, saved in {save_ms:.1f} ms, "
        f"restored in {restore_ms:.1f} ms (limits: {args.max_mb:g} MB, {args.max_ms:g} ms)"
    )
    return 0 if passed else 1


def median_ms(act: Callable[[], object], turns: int) -> float:
    """Return the median of this thread's processor time, in milliseconds."""
    act()
    times = []
    for _ in range(turns):
        started = time.thread_time()
        act()
        times.append(1000 * (time.thread_time() - started))
    return float(np.median(times))


if __name__ == "__main__":
    sys.exit(main())
