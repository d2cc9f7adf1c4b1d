"""How exact are word and phone times? The model's against espeak-ng's and PocketSphinx's.

    python tests/proofs/word_times.py [--model NAME|DIR] [--manifest FILE.jsonl]
    python tests/proofs/word_times.py --calibrate --model DIR     prints [alignment] for config.toml

espeak-ng (Debian: espeak-ng) says sentences and knows exactly when: the even lines of sentences.txt
calibrate, the odd ones measure. With --manifest and PocketSphinx (pip install pocketsphinx), the
first utterances all of whose words it knows are aligned by both: two opinions, neither the truth.
The exit code is 1 if the median error of word starts or ends by espeak-ng is over 40 ms.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from espeak import SpokenWord, Voice
from numpy.typing import NDArray

from audiossm import Transcriber
from audiossm.config import dump_toml
from audiossm.evaluate.recording import read_recording
from audiossm.manifest import read_manifest
from audiossm.streaming.aligner import find_spikes, split_text
from audiossm.streaming.listener import Listener
from audiossm.text import normalise_text

SENTENCES = Path(__file__).with_name("sentences.txt")
VOICES = ("en-us", "en-us+f2", "en-gb-scotland", "en-us+m3")
MAX_MEDIAN_S = 0.04


@dataclass(frozen=True)
class Case:
    """A recording whose word times somebody else knows."""

    text: str
    samples: NDArray[np.float32]
    sample_rate: int
    words: Sequence[SpokenWord]


@dataclass
class Errors:
    """Seconds by which edges are late."""

    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def add(self, found: tuple[float, float], start_s: float | None, end_s: float | None) -> None:
        """Compare the edges that are known."""
        if start_s is not None:
            self.starts.append(found[0] - start_s)
        if end_s is not None:
            self.ends.append(found[1] - end_s)


def main() -> int:
    """Calibrate, or print a line for each reference and the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", metavar="NAME|DIR", help="default: the shipped one")
    parser.add_argument("--lookahead-ms", type=int, default=320)
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--manifest", type=Path, help="utterances for PocketSphinx")
    parser.add_argument("--limit", type=int, default=20, help="of them (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transcriber = Transcriber.load(args.model)
    cases = list(speak_sentences())
    if args.calibrate:
        print(dump_toml({"alignment": calibrate(transcriber, cases[::2])}).strip())
        return 0
    print(f"{transcriber.name}, look-ahead {args.lookahead_ms} ms: median / mean absolute error")
    medians = report(transcriber, "espeak-ng", cases[1::2], args.lookahead_ms)
    if args.manifest is not None:
        cases = list(align_with_pocketsphinx(args.manifest, args.limit))
        if cases:
            report(transcriber, "PocketSphinx", cases, args.lookahead_ms)
    passed = max(medians) <= MAX_MEDIAN_S
    print(f"{'pass' if passed else 'FAIL'}: limit {1000 * MAX_MEDIAN_S:.0f} ms, espeak-ng, median")
    return 0 if passed else 1


def speak_sentences() -> Iterator[Case]:
    """Say each line of SENTENCES, in turns with each voice."""
    voice = Voice()
    for number, line in enumerate(SENTENCES.read_text(encoding="ascii").splitlines()):
        # pairs, so that every voice calibrates and measures
        samples, words = voice.speak(line, VOICES[number // 2 % len(VOICES)])
        yield Case(line, samples, voice.sample_rate, words)


def align_with_pocketsphinx(manifest: Path, limit: int) -> Iterator[Case]:
    """Align the first ``limit`` utterances of a manifest that PocketSphinx has all words of."""
    try:
        import pocketsphinx
    except ImportError:
        print("PocketSphinx isn't installed (pip install pocketsphinx): left out")
        return
    decoder = pocketsphinx.Decoder(samprate=16000, lm=None, loglevel="FATAL")
    for utterance in read_manifest(manifest):
        text = normalise_text(utterance.text)
        if not limit or any(decoder.lookup_word(word) is None for word in text.split()):
            continue
        samples = read_recording(utterance).at_rate(16000)
        decoder.set_align_text(text)
        decoder.start_utt()
        decoder.process_raw((samples.clip(-1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
        decoder.end_utt()
        words = [
            SpokenWord(part.start_frame / 100, (part.end_frame + 1) / 100)  # frames of 10 ms
            for part in decoder.seg() or []
            if part.word[0] not in "<["
        ]
        if len(words) == len(text.split()):
            limit -= 1
            yield Case(text, samples, 16000, words)


def report(
    transcriber: Transcriber, name: str, cases: Sequence[Case], lookahead_ms: int
) -> tuple[float, float]:
    """Print errors of words, and of phones if the model has them.

    Returns:
        the median errors of word starts and ends, in seconds.
    """
    by_letters, words, phones = Errors(), Errors(), Errors()
    for case in cases:
        for errors, with_phones in ((by_letters, False), (words, True)):
            found = transcriber.align(
                case.samples,
                case.text,
                sample_rate=case.sample_rate,
                lookahead_ms=lookahead_ms,
                phones=with_phones,
            )
            for word, known in zip(found.words, case.words, strict=True):
                errors.add((word.start_s, word.end_s), known.start_s, known.end_s)
                if word.phones is not None and len(word.phones) == len(known.phones):
                    # the first begins with its word
                    for phone, start_s in zip(word.phones[1:], known.phones[1:], strict=True):
                        phones.add((phone.start_s, phone.end_s), start_s, None)
            if not transcriber.config.phones:
                break
    show(f"{name}, words by letters", by_letters)
    if not transcriber.config.phones:
        return median(by_letters.starts), median(by_letters.ends)
    show(f"{name}, words by letters and phones", words)
    show(f"{name}, phones inside words", phones)
    return median(words.starts), median(words.ends)


def show(name: str, errors: Errors) -> None:
    """Print a line."""
    parts = [
        f"{kind} {1000 * median(late):.0f} / {1000 * statistics.fmean(map(abs, late)):.0f} ms "
        f"(median late {1000 * statistics.median(late):+.0f} ms, {len(late)})"
        for kind, late in (("starts", errors.starts), ("ends", errors.ends))
        if late
    ]
    print(f"{name}: {', '.join(parts) or 'none'}", flush=True)


def median(late: Sequence[float]) -> float:
    """Return the median absolute error."""
    return statistics.median(map(abs, late))


def calibrate(transcriber: Transcriber, cases: Sequence[Case]) -> dict[str, list[float]]:
    """Measure the offsets from spikes to edges, in label frames for each look-ahead."""
    table: dict[str, list[float]] = {}
    for lookahead_ms in transcriber.lookaheads_ms:
        letters, phones, inner = Errors(), Errors(), Errors()
        for case in cases:
            listener = Listener(transcriber, case.sample_rate, lookahead_ms)
            listener.push(case.samples)
            listener.finish()
            spikes = find_spikes(listener, split_text(case.text))
            frame_s = transcriber.label_frame_s
            for spelled, said, known in zip(spikes.letters, spikes.phones, case.words, strict=True):
                for errors, row in ((letters, spelled), (phones, said)):
                    if row:
                        edges = row[0].start * frame_s, row[-1].end * frame_s
                        errors.add(edges, known.start_s, known.end_s)
                if len(said) == len(known.phones):
                    for span, start_s in zip(said[1:], known.phones[1:], strict=True):
                        inner.starts.append(span.start * frame_s - start_s)
        for name, late in (
            ("letters_start", letters.starts),
            ("letters_end", letters.ends),
            ("phones_start", phones.starts),
            ("phones_end", phones.ends),
            ("phones_inner", inner.starts),
        ):
            if late:
                offset = round(-statistics.median(late) / frame_s, 2)
                table.setdefault(name, []).append(offset)
    return table


if __name__ == "__main__":
    sys.exit(main())
