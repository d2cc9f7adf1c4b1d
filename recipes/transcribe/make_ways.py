"""Write assets/lexicon/ways.txt.xz: words that are said in several ways, by espeak-ng (a tool).

python recipes/transcribe/make_ways.py MANIFEST.jsonl ... --out assets/lexicon/ways.txt.xz

Beside others, espeak-ng says many words otherwise than the lexicon has them ("the apple", "far
away"), and some words as one ("for a"). Such ones are parted where their phones are most like how
the words are said elsewhere.
"""

import argparse
import lzma
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from make_lexicon import PRESET, is_english, read_lines
from make_phones import pronounce_words

from audiossm.lexicon import Lexicon, drop_stress
from audiossm_apps.recipe import run_recipe

MOST_JOINED = 4  # words that are said as one
RARE = 0.02  # a way so much rarer than the word's commonest is left out
MOST_AMISS = 2.0  # phones of a line, and a quarter for each of its words
VOWELS = set("aeiouæɐɑɔəɚɛɜɪʊʌᵻ")  # what they begin with

Phones = tuple[str, ...]
Ways = Mapping[str, Mapping[Phones, int]]


def main(argv: list[str] | None = None) -> None:
    """Count how each word of the manifests is said, and write what the lexicon lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifests", type=Path, nargs="+", metavar="MANIFEST.jsonl")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--least", type=int, default=2, help="count of a way (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    lexicon = Lexicon.load()
    lines = [line for path in args.manifests for line in read_lines(path)]
    said = count_ways(lines, lexicon)
    rows = []
    for word, counts in sorted(said.items()):
        phones = lexicon.pronounce(word)
        least = max(args.least, RARE * max(counts.values()))
        kept = {way: count for way, count in counts.items() if count >= least}
        if phones is not None and kept.keys() - {drop_stress(phones)}:
            ways = sorted(kept.items(), key=lambda item: (-item[1], item[0]))
            rows.append("\t".join([word, *(f"{count} {' '.join(way)}" for way, count in ways)]))
    args.out.write_bytes(lzma.compress("".join(f"{row}\n" for row in rows).encode(), preset=PRESET))
    print(f"{args.out}: {len(rows)} words, {args.out.stat().st_size} bytes")


def count_ways(lines: Sequence[str], lexicon: Lexicon) -> dict[str, Counter[Phones]]:
    """Count how words are said in lines of plain words."""
    apart: defaultdict[str, Counter[Phones]] = defaultdict(Counter)
    joined: list[tuple[list[str], list[list[str]]]] = []
    for line, groups in zip(lines, pronounce_words(list(lines)), strict=True):
        words = line.split()
        if len(words) != len(groups):
            joined.append((words, groups))
            continue
        for word, phones in zip(words, groups, strict=True):
            if is_english(phones):
                apart[word][tuple(phones)] += 1
    parting = Parting(apart, lexicon)
    found = defaultdict(Counter, {word: Counter(counts) for word, counts in apart.items()})
    for words, groups in joined:
        for word, way in zip(words, parting.part_line(words, groups), strict=False):
            if is_english(way):
                found[word][way] += 1
    return dict(found)


class Parting:
    """Parts phones among words, by how these are said elsewhere."""

    def __init__(self, said: Ways, lexicon: Lexicon) -> None:
        self.said, self.lexicon = said, lexicon
        self.cost = cache(self._cost)

    def part_line(self, words: Sequence[str], groups: Sequence[Sequence[str]]) -> list[Phones]:
        """Return each word's phones; nothing, if they are said otherwise than anywhere else."""
        best: dict[tuple[int, int], tuple[float, list[Phones]]] = {(0, 0): (0.0, [])}
        more_words = len(words) - len(groups)
        for number, group in enumerate(groups):
            for start in range(number, number + more_words + 1):
                if (start, number) not in best:
                    continue
                cost, parts = best[start, number]
                for end in range(start + 1, min(start + MOST_JOINED, number + more_words + 1) + 1):
                    more, new = self.part_group(words[start:end], tuple(group))
                    old = best.get((end, number + 1))
                    if old is None or cost + more < old[0]:
                        best[end, number + 1] = cost + more, parts + new
        cost, parts = best.get((len(words), len(groups)), (float("inf"), []))
        return parts if cost <= MOST_AMISS + 0.25 * len(words) else []

    def part_group(self, words: Sequence[str], phones: Phones) -> tuple[float, list[Phones]]:
        """Return the phones of each of these words that are said as one, and what is amiss."""
        if len(words) == 1:
            return self.cost(words[0], phones), [phones]
        best: tuple[float, list[Phones]] = float("inf"), []
        for end in range(1, len(phones) - len(words) + 2):
            cost = self.cost(words[0], phones[:end])
            more, parts = self.part_group(words[1:], phones[end:])
            best = min(best, (cost + more, [phones[:end], *parts]))
        return best

    def _cost(self, word: str, phones: Phones) -> float:
        ways = set(self.said.get(word, ()))
        if (known := self.lexicon.pronounce(word)) is not None:
            ways.add(drop_stress(known))
        return min((compare(way, phones) for way in ways), default=float(len(phones)))


def compare(a: Phones, b: Phones) -> float:
    """Return the edit distance; vowels are like vowels."""
    row = [float(i) for i in range(len(b) + 1)]
    for i, x in enumerate(a, 1):
        corner, row[0] = row[0], float(i)
        for j, y in enumerate(b, 1):
            alike = (x[0] in VOWELS) == (y[0] in VOWELS)
            change = 0.0 if x == y else 0.6 if alike else 1.5
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + change)
    return row[-1]


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
