"""Proof that nothing is written where nobody speaks: words in an hour of silence, noise and music.

    python tests/proofs/invention.py [--sounds MANIFEST.jsonl] [--model NAME|DIR] [--minutes 60]
        [--only silence|hum|sounds]

The silence is digital zero. The hum is 50 Hz with harmonics at -50 dB below full scale, swelling
slowly, with pink noise of -60 dB. The sounds are the odd lines of the manifest (recordings without
speech, such as rain, engines and a piano), over and over. The exit code is 1 if there is a word in
the silence, or more than 20 an hour in the hum or the sounds.
"""

import argparse
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from audiossm import Transcriber
from audiossm.decoding import DECODERS
from audiossm.evaluate.machine import describe_machine, name_machine
from audiossm.evaluate.recording import read_recording
from audiossm.manifest import read_manifest
from audiossm.streaming import Word

SAMPLE_RATE = 16000
BLOCK_S = 20
LIMITS = {"silence": 0, "hum": 20, "sounds": 20}  # words in an hour

Samples = NDArray[np.float32]


def main() -> int:
    """Print a line for each kind of audio and the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sounds", type=Path, metavar="MANIFEST.jsonl", help="else left out")
    parser.add_argument("--model", metavar="NAME|DIR", help="default: the shipped one")
    parser.add_argument("--lookahead-ms", type=int, default=320, help="default: %(default)s")
    parser.add_argument("--decoder", choices=DECODERS, help="default: the model's best")
    parser.add_argument("--minutes", type=float, default=60, help="default: %(default)s")
    parser.add_argument("--only", choices=LIMITS, help="default: all")
    parser.add_argument("--json", action="store_true", help="one object instead of text")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transcriber = Transcriber.load(args.model, decoder=args.decoder)
    streams = {"silence": make_silence(), "hum": make_hum()}
    if args.sounds is not None:
        streams["sounds"] = loop_sounds(args.sounds)
    report = {}
    for kind, stream in streams.items():
        if args.only not in (None, kind):
            continue
        started = time.perf_counter()
        words = hear(transcriber, stream, args.minutes, args.lookahead_ms)
        per_hour = 60 * len(words) / args.minutes
        report[kind] = {
            "words": len(words),
            "per_hour": per_hour,
            "limit": LIMITS[kind],
            "passed": per_hour <= LIMITS[kind],
            "commonest": Counter(word.word for word in words).most_common(8),
            "seconds": round(time.perf_counter() - started, 1),
        }
        if not args.json:
            print(f"{args.minutes:g} minutes of {kind}: {report[kind]}", flush=True)
    passed = bool(report) and all(item["passed"] for item in report.values())
    if args.json:
        print(json.dumps(report | {"model": transcriber.name, "machine": describe_machine()}))
    else:
        print(f"{'pass' if passed else 'FAIL'}: {transcriber.name}")
        print(name_machine(describe_machine()))
    return 0 if passed else 1


def hear(
    transcriber: Transcriber, stream: Iterator[Samples], minutes: float, lookahead_ms: int
) -> list[Word]:
    """Push so many minutes of a stream and return the words."""
    session = transcriber.session(SAMPLE_RATE, lookahead_ms)
    left, events = round(minutes * 60 * SAMPLE_RATE), []
    while left:
        block = next(stream)[:left]
        events += [event for event in session.push(block) if isinstance(event, Word)]
        left -= len(block)
    return events + [event for event in session.finish() if isinstance(event, Word)]


def make_silence() -> Iterator[Samples]:
    """Yield blocks of digital zero."""
    return itertools.repeat(np.zeros(BLOCK_S * SAMPLE_RATE, np.float32))


def make_hum() -> Iterator[Samples]:
    """Yield blocks of a hum that swells slowly, with pink noise."""
    generator = np.random.default_rng(0)
    size = BLOCK_S * SAMPLE_RATE
    for block in itertools.count():
        at = np.arange(block * size, (block + 1) * size) / SAMPLE_RATE
        hum = sum(np.sin(2 * np.pi * 50 * n * at) / n for n in (1, 2, 3, 5))
        hum *= 1 + 0.5 * np.sin(2 * np.pi * 0.03 * at)
        spectrum = np.fft.rfft(generator.standard_normal(size))
        pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)))
        parts = ((hum, -50), (pink, -60))
        yield sum(
            10 ** (level / 20) * part / np.sqrt(np.mean(part**2)) for part, level in parts
        ).astype(np.float32)


def loop_sounds(manifest: Path) -> Iterator[Samples]:
    """Yield the odd lines of a manifest of recordings without speech, over and over."""
    utterances = read_manifest(manifest)[::2]
    while True:
        for utterance in utterances:
            yield read_recording(utterance).at_rate(SAMPLE_RATE)


if __name__ == "__main__":
    sys.exit(main())
