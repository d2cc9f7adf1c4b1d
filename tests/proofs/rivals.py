"""Word error rate and speed beside PocketSphinx, on the same recordings.

    python tests/proofs/rivals.py MANIFEST [--model NAME|DIR] [--json]

PocketSphinx (pip install pocketsphinx) decodes whole utterances at 16 kHz with its default US
English model and language model. Both run on one thread; the texts are normalised and the errors
counted by the same code; loading and PocketSphinx's reading of files aren't timed. The exit code is
1 if our word error rate is over --max-wer times PocketSphinx's.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from audiossm import Transcriber
from audiossm.evaluate.machine import describe_machine, name_machine
from audiossm.evaluate.recording import read_recording
from audiossm.evaluate.transcribe import Group, evaluate_transcriber
from audiossm.evaluate.wer import count_word_errors
from audiossm.manifest import Utterance, read_manifest

SAMPLE_RATE = 16000


def main() -> int:
    """Print a line for each recogniser and the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", metavar="NAME|DIR", help="default: the shipped one")
    parser.add_argument("--lookahead-ms", type=int, default=320, help="default: %(default)s")
    parser.add_argument("--limit", type=int, help="utterances (default: all)")
    parser.add_argument("--max-wer", type=float, default=1.0, help="times (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one object instead of the table")
    args = parser.parse_args()
    try:
        import pocketsphinx  # noqa: F401  asked for its presence before the work
    except ImportError:
        print("PocketSphinx isn't installed: pip install pocketsphinx", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    utterances = read_manifest(args.manifest)[: args.limit]
    evaluation = evaluate_transcriber(
        Transcriber.load(args.model), utterances, lookahead_ms=args.lookahead_ms
    )
    rival = f"pocketsphinx {version('pocketsphinx')}"
    groups = {evaluation.model: evaluation.total, rival: decode_with_pocketsphinx(utterances)}
    ours, theirs = groups.values()
    ratio = ours.errors.rate / theirs.errors.rate if theirs.errors.rate else float("inf")
    passed = not evaluation.failures and ratio <= args.max_wer
    machine = describe_machine()
    if args.json:
        rows = {name: group.to_json() for name, group in groups.items()}
        print(json.dumps({"rows": rows, "ratio": ratio, "passed": passed, "machine": machine}))
        return 0 if passed else 1
    print(
        f"{'recogniser':<24} {'WER':>7} {'subst':>6} {'del':>6} {'ins':>6} {'words':>6} {'RTF':>7}"
    )
    for name, group in groups.items():
        errors = group.errors
        print(
            f"{name:<24} {errors.rate:>7.2%} {errors.substitutions:>6} {errors.deletions:>6} "
            f"{errors.insertions:>6} {errors.words:>6} {group.rtf:>7.4f}"
        )
    print(f"{name_machine(machine)}; {ours.num_utterances} utterances, {ours.audio_s:.0f} s")
    for score in evaluation.failures:
        print(f"{score.utterance.key}: {score.failure}")
    print(
        f"{'pass' if passed else 'FAIL'}: word error rate is {ratio:.3f} times PocketSphinx's "
        f"(limit {args.max_wer:g})"
    )
    return 0 if passed else 1


def decode_with_pocketsphinx(utterances: Sequence[Utterance]) -> Group:
    """Decode each utterance whole and count its errors."""
    import pocketsphinx

    decoder = pocketsphinx.Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")
    total = Group()
    for utterance in utterances:
        samples = read_recording(utterance).at_rate(SAMPLE_RATE)
        data = (samples.clip(-1, 1) * 32767).astype("<i2").tobytes()
        started = time.perf_counter()
        decoder.start_utt()
        decoder.process_raw(data, full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        total.processing_s += time.perf_counter() - started
        total.audio_s += len(samples) / SAMPLE_RATE
        total.num_utterances += 1
        total.errors += count_word_errors(utterance.text, found.hypstr if found else "")
    return total


if __name__ == "__main__":
    sys.exit(main())
