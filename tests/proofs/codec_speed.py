"""Proof that the codec keeps up: encoded and decoded 20 ms at a time, on one thread.

    python tests/proofs/codec_speed.py AUDIO|MANIFEST.jsonl [--backend torch] [--limit 5]

What is counted is every push of the encoder and of the decoder, one frame each, one after the
other, and both finishes. The exit code is 1 if that is less than --min-speed times real time. The
speed by processor time is printed beside it: there, what other processes take away doesn't count.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from audiossm import AudioCodec
from audiossm.evaluate.machine import describe_machine, name_machine
from audiossm.evaluate.recording import read_recording
from audiossm.graphs import Backend
from audiossm.manifest import Utterance, read_manifest


def main() -> int:
    """Print the times and the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", type=Path, help="an audio file or a manifest")
    parser.add_argument("--model", metavar="NAME|DIR", help="default: the shipped one")
    parser.add_argument("--backend", choices=get_args(Backend), default="auto")
    parser.add_argument("--limit", type=int, default=5, help="utterances (default: %(default)s)")
    parser.add_argument("--min-speed", type=float, default=12.0, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="one object instead of the table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    codec = AudioCodec.load(args.model, backend=args.backend)
    rate = codec.config.sample_rate
    if args.source.suffix == ".jsonl":
        utterances = read_manifest(args.source)[: args.limit]
    else:
        utterances = [Utterance(key=args.source.name, text="", path=args.source)]
    signals = [read_recording(utterance).at_rate(rate) for utterance in utterances]
    if not sum(map(len, signals)):
        parser.error(f"{args.source}: there is no audio to measure with")
    # the first steps of a process allocate and choose kernels
    time_codec(codec, np.zeros(2 * rate, np.float32))
    times: dict[str, list[float]] = {"encoder": [], "decoder": []}
    total_s = 0.0
    profile = ""
    cpu_began = time.thread_time()
    for signal in signals:
        profile, encoder, decoder, finish_s = time_codec(codec, signal)
        times["encoder"] += encoder
        times["decoder"] += decoder
        total_s += sum(encoder) + sum(decoder) + finish_s
    cpu_s = time.thread_time() - cpu_began
    audio_s = sum(map(len, signals)) / rate
    speed = audio_s / total_s
    passed = speed >= args.min_speed
    machine = describe_machine()
    per_push = {
        name: {
            label: 1000 * float(value)
            for label, value in zip(
                ("median", "p95", "p99"), np.percentile(values, [50, 95, 99]), strict=True
            )
        }
        for name, values in times.items()
    }
    if args.json:
        report = {"model": codec.name, "profile": profile, "speed": speed, "push_ms": per_push}
        report["cpu_speed"] = audio_s / cpu_s
        report |= {"audio_s": audio_s, "passed": passed}
        print(json.dumps(report | {"machine": machine}))
        return 0 if passed else 1
    for name, values in per_push.items():
        shown = ", ".join(f"{label} {value:.2f}" for label, value in values.items())
        print(f"{name}: {len(times[name])} frames of 20 ms; ms a frame: {shown}")
    print(f"{name_machine(machine)}; {codec.name}, {profile}")
    print(
        f"{'pass' if passed else 'FAIL'}: {speed:.1f} times real time (limit {args.min_speed:g}), "
        f"{audio_s:.1f} s; by processor time {audio_s / cpu_s:.1f}"
    )
    return 0 if passed else 1


def time_codec(
    codec: AudioCodec, signal: np.ndarray
) -> tuple[str, list[float], list[float], float]:
    """Encode and decode frame by frame; returns the profiles and the seconds of each push."""
    encoder, decoder = codec.encoder_session(), codec.decoder_session()
    size = codec.config.frame_size
    encoding, decoding = [], []
    for at in range(0, len(signal) - size + 1, size):
        started = time.perf_counter()
        codes = encoder.push(signal[np.newaxis, at : at + size])
        between = time.perf_counter()
        decoder.push(codes)
        decoding.append(time.perf_counter() - between)
        encoding.append(between - started)
    started = time.perf_counter()
    decoder.push(encoder.finish())
    decoder.finish()
    finish_s = time.perf_counter() - started
    profiles = dict.fromkeys((encoder.profile, decoder.profile))
    return " / ".join(profiles), encoding, decoding, finish_s


if __name__ == "__main__":
    sys.exit(main())
