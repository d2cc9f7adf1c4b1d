"""Proof that a long stream is recognised as well as short ones, and its end as well as its start.

    python tests/proofs/long_form.py MANIFEST [--model NAME|DIR] [--orders 3] [--noise-db -60]

All utterances are joined in random orders, with silences of 0.3 to 1 s between them, and each order
is one stream for one session. The silence is digital zero, or with --noise-db white noise of that
root mean square (dB below full scale). The whole text is aligned with the joined reference. A third
is a third of the utterances; it is also compared with the same utterances each on its own, as some
are harder. An inserted word between two thirds counts for the later one. The exit code is 1 if a
ratio of word error rates, over all orders, is above its limit.
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import jiwer
import numpy as np
import torch
from numpy.typing import NDArray

from audiossm import Transcriber
from audiossm.decoding import DECODERS
from audiossm.evaluate.machine import describe_machine, name_machine
from audiossm.evaluate.recording import read_recording
from audiossm.evaluate.wer import WordErrors
from audiossm.manifest import read_manifest
from audiossm.streaming import Word
from audiossm.text import normalise_text

SAMPLE_RATE = 16000
GAP_S = (0.3, 1.0)
PUSH_S = 20

Samples = NDArray[np.float32]


def main() -> int:
    """Print a line for each order and the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", metavar="NAME|DIR", help="default: the shipped one")
    parser.add_argument("--lookahead-ms", type=int, default=320, help="default: %(default)s")
    parser.add_argument("--decoder", choices=DECODERS, help="default: the model's best")
    parser.add_argument("--limit", type=int, help="utterances (default: all)")
    parser.add_argument("--orders", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--noise-db", type=float, help="default: digital zero")
    parser.add_argument("--max-ratio", type=float, default=1.10, help="joined / single utterances")
    parser.add_argument("--max-drift", type=float, default=1.05, help="last third / first third")
    parser.add_argument("--json", action="store_true", help="one object instead of the table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transcriber = Transcriber.load(args.model, decoder=args.decoder)
    utterances = read_manifest(args.manifest)[: args.limit]
    if len(utterances) < 3 or args.orders < 1:
        parser.error("thirds need 3 utterances or more, and an order")
    signals = [read_recording(utterance).at_rate(SAMPLE_RATE) for utterance in utterances]
    texts = [normalise_text(utterance.text).split() for utterance in utterances]
    alone = [
        sum_errors(cut_errors([text], words_of(transcriber, [signal], args.lookahead_ms)))
        for text, signal in zip(texts, signals, strict=True)
    ]
    single = sum_errors(alone)
    rows = []
    whole, thirds, thirds_alone = [], [[], [], []], [[], [], []]
    silence = "digital zero" if args.noise_db is None else f"noise of {args.noise_db:g} dB"
    if not args.json:
        print(f"single utterances: {show(single)}", flush=True)
    for number in range(args.orders):
        chance = random.Random(args.seed + number)
        order = chance.sample(range(len(texts)), len(texts))
        stream = join([signals[i] for i in order], chance, args.noise_db)
        found = words_of(transcriber, stream, args.lookahead_ms)
        errors = cut_errors([texts[i] for i in order], found)
        whole.append(sum_errors(errors))
        for third, (start, end) in enumerate(split_thirds(len(order))):
            thirds[third].append(sum_errors(errors[start:end]))
            thirds_alone[third].append(sum_errors([alone[i] for i in order[start:end]]))
        rates = [
            (row[-1].rate, own[-1].rate) for row, own in zip(thirds, thirds_alone, strict=True)
        ]
        minutes = sum(map(len, stream)) / SAMPLE_RATE / 60
        rows.append({"seed": args.seed + number, "minutes": minutes, "wer": whole[-1].rate})
        rows[-1] |= {
            "substitutions": whole[-1].substitutions,
            "deletions": whole[-1].deletions,
            "insertions": whole[-1].insertions,
            "thirds": [rate for rate, _ in rates],
            "thirds_alone": [rate for _, rate in rates],
        }
        if not args.json:
            parts = ", ".join(f"{rate:.2%} (alone {own:.2%})" for rate, own in rates)
            print(f"order {number + 1}, {minutes:.1f} min: {show(whole[-1])}; thirds {parts}")
            sys.stdout.flush()
    ratio = divide(sum_errors(whole).rate, single.rate)
    drift = divide(sum_errors(thirds[2]).rate, sum_errors(thirds[0]).rate)
    expected = divide(sum_errors(thirds_alone[2]).rate, sum_errors(thirds_alone[0]).rate)
    passed = ratio <= args.max_ratio and drift <= args.max_drift
    machine = describe_machine()
    if args.json:
        report = {"single": single.rate, "orders": rows, "ratio": ratio, "drift": drift}
        report |= {"drift_alone": expected, "silence": silence, "passed": passed}
        print(json.dumps(report | {"model": transcriber.name, "machine": machine}))
        return 0 if passed else 1
    print(f"{name_machine(machine)}; {transcriber.name}, silence: {silence}")
    print(
        f"{'pass' if passed else 'FAIL'}: joined / single {ratio:.3f} (limit {args.max_ratio:g}), "
        f"last / first third {drift:.3f} (limit {args.max_drift:g}; each alone {expected:.3f})"
    )
    return 0 if passed else 1


def join(
    signals: Sequence[Samples], chance: random.Random, noise_db: float | None
) -> list[Samples]:
    """Put a silence of random length after each signal; returns the pieces of the stream."""
    generator = np.random.default_rng(chance.getrandbits(32))
    level = 0.0 if noise_db is None else 10 ** (noise_db / 20)
    pieces = []
    for signal in signals:
        gap = generator.standard_normal(round(chance.uniform(*GAP_S) * SAMPLE_RATE))
        pieces += [signal, (level * gap).astype(np.float32)]
    return pieces


def words_of(transcriber: Transcriber, pieces: Sequence[Samples], lookahead_ms: int) -> list[str]:
    """Feed a stream to one session and return the plain words."""
    session = transcriber.session(SAMPLE_RATE, lookahead_ms)
    stream, size = np.concatenate(pieces), PUSH_S * SAMPLE_RATE
    events = [e for at in range(0, len(stream), size) for e in session.push(stream[at : at + size])]
    events += session.finish()
    return normalise_text(" ".join(e.word for e in events if isinstance(e, Word))).split()


def cut_errors(texts: Sequence[Sequence[str]], found: Sequence[str]) -> list[WordErrors]:
    """Align the joined texts with what was found and count the errors of each text."""
    ends = list(accumulate(map(len, texts)))
    owners = [number for number, text in enumerate(texts) for _ in text]
    counts = [{"substitute": 0, "delete": 0, "insert": 0} for _ in texts]
    if ends[-1]:
        words = [word for text in texts for word in text]
        chunks = jiwer.process_words(" ".join(words), " ".join(found)).alignments[0]
        for chunk in chunks:
            if chunk.type == "insert":
                at = min(chunk.ref_start_idx, len(owners) - 1)
                counts[owners[at]]["insert"] += chunk.hyp_end_idx - chunk.hyp_start_idx
            elif chunk.type != "equal":
                for at in range(chunk.ref_start_idx, chunk.ref_end_idx):
                    counts[owners[at]][chunk.type] += 1
    else:
        counts[-1]["insert"] = len(found)
    return [
        WordErrors(count["substitute"], count["delete"], count["insert"], len(text))
        for count, text in zip(counts, texts, strict=True)
    ]


def split_thirds(count: int) -> list[tuple[int, int]]:
    """Return the first and the end of each third of ``count`` things."""
    edges = [round(count * part / 3) for part in range(4)]
    return list(zip(edges, edges[1:], strict=False))


def sum_errors(errors: Sequence[WordErrors]) -> WordErrors:
    """Add up."""
    return sum(errors, WordErrors())


def divide(rate: float, by: float) -> float:
    """Return a ratio of rates; two rates of 0 are the same."""
    return rate / by if by else (1.0 if rate == 0 else float("inf"))


def show(errors: WordErrors) -> str:
    """Write a rate with its counts."""
    return (
        f"{errors.rate:.2%} ({errors.substitutions} substituted, {errors.deletions} deleted, "
        f"{errors.insertions} inserted of {errors.words})"
    )


if __name__ == "__main__":
    sys.exit(main())
