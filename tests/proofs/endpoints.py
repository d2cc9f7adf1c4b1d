"""Proof that a stream is cut between utterances, and not inside words.

    python tests/proofs/endpoints.py MANIFEST [--model NAME|DIR] [--gaps 300] [--live]

Utterances in random order (all of them, then all again) are joined by silences of 0.8 to 2 s, in
turns digital zero and white noise of -70 to -50 dB, and are one stream for one session. When each
word is said is known from each utterance's own text (forced alignment by the same model, which
knows nothing of the cuts). A gap is found if the stream is cut between the last word before it and
the first one after it; a cut is inside a word if it lies between the word's start and end. The exit
code is 1 if less than 95 % of the gaps are found, or more than 3 % of the cuts are inside words.
"""

import argparse
import json
import random
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from audiossm import Endpoint, EndpointRules, Transcriber
from audiossm.decoding import DECODERS
from audiossm.errors import AlignmentError
from audiossm.evaluate.machine import describe_machine, name_machine
from audiossm.evaluate.recording import read_recording
from audiossm.evaluate.wer import count_word_errors
from audiossm.manifest import read_manifest
from audiossm.streaming import Word

SAMPLE_RATE = 16000
GAP_S = (0.8, 2.0)
NOISE_DB = (-70.0, -50.0)


def main() -> int:
    """Print what was found and the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", metavar="NAME|DIR", help="default: the shipped one")
    parser.add_argument("--lookahead-ms", type=int, default=320, help="default: %(default)s")
    parser.add_argument("--decoder", choices=DECODERS, help="default: the model's best")
    parser.add_argument("--gaps", type=int, default=300, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--live", action="store_true", help="push 20 ms at a time, not 20 s")
    for name, value in vars(EndpointRules()).items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=float, default=value, help="default: %(default)s")
    parser.add_argument("--min-found", type=float, default=0.95, help="share of the gaps")
    parser.add_argument("--max-inside", type=float, default=0.03, help="share of the cuts")
    parser.add_argument("--json", action="store_true", help="one object instead of text")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transcriber = Transcriber.load(args.model, decoder=args.decoder)
    rules = EndpointRules(**{name: getattr(args, name) for name in vars(EndpointRules())})
    utterances = read_manifest(args.manifest)
    chance = random.Random(args.seed)
    order: list[int] = []
    while len(order) <= args.gaps:
        order += chance.sample(range(len(utterances)), len(utterances))
    order = order[: args.gaps + 1]
    signals, spans = {}, {}
    for number in sorted(set(order)):
        signal = read_recording(utterances[number]).at_rate(SAMPLE_RATE)
        signals[number] = signal
        try:
            found = transcriber.align(
                signal,
                utterances[number].text,
                sample_rate=SAMPLE_RATE,
                lookahead_ms=args.lookahead_ms,
            )
        except AlignmentError as exc:
            parser.error(f"{utterances[number].where}: {exc}")
        spans[number] = [(word.start_s, word.end_s) for word in found.words]

    generator = np.random.default_rng(args.seed)
    pieces, words, silences, gaps, at_s = [], [], [], [], 0.0
    for turn, number in enumerate(order):
        if turn:
            gap_s = chance.uniform(*GAP_S)
            level = 10 ** (chance.uniform(*NOISE_DB) / 20) if turn % 2 else 0.0
            gap = level * generator.standard_normal(round(gap_s * SAMPLE_RATE))
            pieces.append(gap.astype(np.float32))
            first_s = at_s + len(gap) / SAMPLE_RATE
            silences.append((words[-1][1], first_s + spans[number][0][0]))
            gaps.append((at_s, first_s))
            at_s = first_s
        words += [(at_s + start_s, at_s + end_s) for start_s, end_s in spans[number]]
        pieces.append(signals[number])
        at_s += len(signals[number]) / SAMPLE_RATE

    session = transcriber.session(SAMPLE_RATE, args.lookahead_ms, endpoints=rules)
    stream = np.concatenate(pieces)
    size = round((0.02 if args.live else 20) * SAMPLE_RATE)
    events = [e for at in range(0, len(stream), size) for e in session.push(stream[at : at + size])]
    events += session.finish()
    cuts = [e for e in events if isinstance(e, Endpoint) and e.rule != "end"]
    times = [cut.time_s for cut in cuts]
    is_found = [any(a <= time <= b for time in times) for a, b in silences]
    in_gap = sum(any(a <= time <= b for time in times) for a, b in gaps)
    inside = [cut for cut in cuts if any(a < cut.time_s < b for a, b in words)]
    errors = count_word_errors(
        " ".join(utterances[number].text for number in order),
        " ".join(e.word for e in events if isinstance(e, Word)),
    )
    found_share = sum(is_found) / len(is_found)
    inside_share = len(inside) / max(len(cuts), 1)
    passed = found_share >= args.min_found and inside_share <= args.max_inside
    report = {
        "minutes": at_s / 60,
        "gaps": len(gaps),
        "found": sum(is_found),
        "found_of_zero": sum(is_found[1::2]) / max(len(is_found[1::2]), 1),
        "found_of_noise": sum(is_found[::2]) / len(is_found[::2]),
        "cut_inside_the_gap_itself": in_gap,
        "cuts": dict(Counter(cut.rule for cut in cuts)),
        "inside_words": dict(Counter(cut.rule for cut in inside)),
        "inside_share": inside_share,
        "wer": errors.rate,
        "rules": vars(rules),
        "model": transcriber.name,
        "machine": describe_machine(),
        "passed": passed,
    }
    if args.json:
        print(json.dumps(report))
        return 0 if passed else 1
    print(f"{name_machine(describe_machine())}; {transcriber.name}, {at_s / 60:.1f} min, {rules}")
    print(
        f"gaps found: {sum(is_found)} of {len(gaps)}, of digital zero "
        f"{report['found_of_zero']:.1%}, of noise {report['found_of_noise']:.1%}; "
        f"cut inside the joined silence itself: {in_gap}"
    )
    print(f"cuts: {report['cuts']}, inside words: {report['inside_words']}; WER {errors.rate:.2%}")
    print(
        f"{'pass' if passed else 'FAIL'}: {found_share:.1%} of the gaps found (limit "
        f"{args.min_found:.0%}), {inside_share:.1%} of the cuts inside words (limit "
        f"{args.max_inside:.0%})"
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
