"""Write assets/lexicon/english.txt.xz: words and their phones, by espeak-ng (a training tool).

python recipes/transcribe/make_lexicon.py FILE ... --about "..." --out assets/lexicon/english.txt.xz

A FILE is a text with a sentence a line (.xz or plain), of which the words seen twice or more are
taken, or a manifest (.jsonl), of which all are; ``--lm`` adds those of a language model. espeak-ng
says a word otherwise alone than in a sentence ("a", "to"), so each word gets the commonest of its
pronunciations in the sentences.
"""

import argparse
import lzma
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from make_phones import pronounce_words

from audiossm.decoding.ngram import NgramModel
from audiossm.lexicon import PHONES, drop_stress
from audiossm.manifest import read_manifest
from audiossm.text import normalise_text
from audiossm_apps.recipe import run_recipe

HEADER = """\
# Pronunciations of English words in IPA: word, tab, phones parted by spaces; stressed vowels begin
# with ˈ (the main one) or ˌ. Made by recipes/transcribe/make_lexicon.py with espeak-ng's voice
# en-us; a word that stood in a sentence apart from its neighbours has the commonest of its
# pronunciations there, any other one that of the word alone. Words: {about}.
"""
BATCH = 20000  # sentences pronounced at a time
PRESET = 9 | lzma.PRESET_EXTREME


def main(argv: list[str] | None = None) -> None:
    """Count words, pronounce sentences, write the lexicon."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--about", required=True, help="which words these are, for the header")
    parser.add_argument("--min-count", type=int, default=2, help="in a text (default: %(default)s)")
    parser.add_argument("--lm", help="a language model whose words are all taken, such as books")
    args = parser.parse_args(argv)
    words = set(NgramModel.load(args.lm).lexicon) if args.lm else set()
    for path in args.files:
        counts = Counter(word for line in read_lines(path) for word in line.split())
        least = 1 if path.suffix == ".jsonl" else args.min_count
        words |= {word for word, count in counts.items() if count >= least}
    said = count_pronunciations((line for path in args.files for line in read_lines(path)), words)
    alone = sorted(words - said.keys())
    for word, row in zip(alone, pronounce_words(alone, stress=True), strict=True):
        phones = tuple(symbol for part in row for symbol in part)
        if is_english(phones):
            said[word][phones] += 1
    lines = [f"{word}\t{' '.join(choose_commonest(said[word]))}\n" for word in sorted(said)]
    text = HEADER.format(about=args.about) + "".join(lines)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(lzma.compress(text.encode(), preset=PRESET))
    print(
        f"{args.out}: {len(lines)} words, {len(alone)} of them by themselves, "
        f"{args.out.stat().st_size / 1e6:.2f} MB"
    )


def read_lines(path: Path) -> Iterator[str]:
    """Yield a file's sentences as plain words."""
    if path.suffix == ".jsonl":
        yield from (normalise_text(utterance.text) for utterance in read_manifest(path))
        return
    with (lzma.open if path.suffix == ".xz" else open)(path, "rt", encoding="utf-8") as file:
        yield from (normalise_text(line) for line in file)


def count_pronunciations(
    lines: Iterable[str], words: set[str]
) -> defaultdict[str, Counter[tuple[str, ...]]]:
    """Count how each word is said in sentences none of whose words are joined."""
    said: defaultdict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    lines = iter(lines)
    while batch := list(islice(lines, BATCH)):
        for line, rows in zip(batch, pronounce_words(batch, stress=True), strict=True):
            spelled = line.split()
            if len(spelled) != len(rows):
                continue
            for word, row in zip(spelled, rows, strict=True):
                if word in words and is_english(row):
                    said[word][tuple(row)] += 1
    return said


def choose_commonest(rows: Counter[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the commonest phones of a word and, of the ways to stress these, the commonest."""
    plain: Counter[tuple[str, ...]] = Counter()
    for row, count in rows.items():
        plain[drop_stress(row)] += count
    phones = plain.most_common(1)[0][0]
    return max((row for row in rows if drop_stress(row) == phones), key=lambda row: rows[row])


def is_english(phones: Iterable[str]) -> bool:
    """Refuse nothing at all, and what has another language's mark, such as "(fr)", or phones."""
    plain = drop_stress(phones)
    return bool(plain) and set(plain) <= set(PHONES)


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
