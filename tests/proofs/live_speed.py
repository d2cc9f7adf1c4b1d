"""Proof that live mode keeps up: a session fed 20 ms at a time, on one thread.

    python tests/proofs/live_speed.py AUDIO|MANIFEST.jsonl [--backend torch] [--limit 5]

Each push is timed; a push that completes no frame is nearly free, so the median says less than the
p95. The real-time factor counts all pushes and the finish. The exit code is 1 if it is over
--max-rtf.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from audiossm import Transcriber
from audiossm.decoding import DECODERS
from audiossm.evaluate.machine import describe_machine, name_machine
from audiossm.evaluate.recording import read_recording
from audiossm.graphs import Backend
from audiossm.manifest import Utterance, read_manifest

SAMPLE_RATE = 16000
PUSH_MS = 20


def main() -> int:
    """Print the times and the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="AUDIO|MANIFEST.jsonl")
    parser.add_argument("--model", metavar="NAME|DIR", help="default: the shipped one")
    parser.add_argument("--lookahead-ms", type=int, default=320, help="default: %(default)s")
    parser.add_argument("--decoder", choices=DECODERS, help="default: the model's best")
    parser.add_argument("--backend", choices=get_args(Backend), default="auto")
    parser.add_argument("--limit", type=int, default=5, help="utterances (default: %(default)s)")
    parser.add_argument("--max-rtf", type=float, default=0.5, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="one object instead of the table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transcriber = Transcriber.load(args.model, decoder=args.decoder, backend=args.backend)
    if args.source.suffix == ".jsonl":
        utterances = read_manifest(args.source)[: args.limit]
    else:
        utterances = [Utterance(key=args.source.name, text="", path=args.source)]
    signals = [read_recording(utterance).at_rate(SAMPLE_RATE) for utterance in utterances]
    if not sum(map(len, signals)):
        parser.error(f"{args.source}: there is no audio to measure with")
    # the first steps of a process allocate and choose kernels
    profile, *_ = time_pushes(transcriber, np.zeros(2 * SAMPLE_RATE, np.float32), args.lookahead_ms)
    pushes: list[float] = []
    processing_s = 0.0
    for signal in signals:
        _, times, finish_s = time_pushes(transcriber, signal, args.lookahead_ms)
        pushes += times
        processing_s += sum(times) + finish_s
    audio_s = sum(map(len, signals)) / SAMPLE_RATE
    rtf = processing_s / audio_s
    values = (*np.percentile(pushes, [50, 95, 99]), max(pushes))
    per_push = dict(
        zip(("median", "p95", "p99", "worst"), (1000 * float(v) for v in values), strict=True)
    )
    passed = rtf <= args.max_rtf
    machine = describe_machine()
    if args.json:
        report = {"model": transcriber.name, "profile": profile, "rtf": rtf, "push_ms": per_push}
        report |= {"pushes": len(pushes), "audio_s": audio_s, "passed": passed}
        print(json.dumps(report | {"machine": machine}))
        return 0 if passed else 1
    shown = ", ".join(f"{name} {value:.2f}" for name, value in per_push.items())
    print(f"{len(pushes)} pushes of {PUSH_MS} ms, {audio_s:.1f} s; ms a push: {shown}")
    print(f"{name_machine(machine)}; {transcriber.name}, {profile}")
    print(
        f"{'pass' if passed else 'FAIL'}: real-time factor {rtf:.4f} (limit {args.max_rtf:g}), "
        f"{len(signals)} recordings"
    )
    return 0 if passed else 1


def time_pushes(
    transcriber: Transcriber, signal: np.ndarray, lookahead_ms: int
) -> tuple[str, list[float], float]:
    """Feed a recording live; returns the profile, the seconds of each push and of the finish."""
    session = transcriber.session(SAMPLE_RATE, lookahead_ms)
    size = SAMPLE_RATE * PUSH_MS // 1000
    times = []
    for at in range(0, len(signal), size):
        started = time.perf_counter()
        session.push(signal[at : at + size])
        times.append(time.perf_counter() - started)
    started = time.perf_counter()
    session.finish()
    return session.profile, times, time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
