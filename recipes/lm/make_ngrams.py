"""Write a word n-gram language model, its lexicon inside, from texts.

python recipes/lm/make_ngrams.py FILE ... --out assets/lm/books/ngrams.safetensors

A FILE is a text with a sentence a line (.xz or plain) or a manifest (.jsonl); ``FILE*3`` counts
each of its sentences three times.
"""

import argparse
import lzma
import random
import re
import string
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from audiossm.decoding.ngram import (
    MARKS,
    MAX_ORDER,
    MAX_WORDS,
    SENTENCE_END,
    SENTENCE_START,
    UNKNOWN,
    pack_ngrams,
)
from audiossm.manifest import read_manifest
from audiossm.text import normalise_text
from audiossm.train.kneser_ney import estimate, prune
from audiossm_apps.recipe import run_recipe

PLAIN = re.compile(r"[a-z]+(?:'[a-z]+)*(?: [a-z]+(?:'[a-z]+)*)*")  # what needs no normalising
BLOCK = 1 << 20  # ids that are turned into an array at once


def main(argv: list[str] | None = None) -> None:
    """Choose words, count, estimate, prune, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="FILE[*TIMES]")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--order", type=int, choices=range(2, MAX_ORDER + 1), default=MAX_ORDER)
    parser.add_argument("--num-words", type=int, default=MAX_WORDS - len(MARKS))
    parser.add_argument("--min-count", type=int, default=2, help="of a word (default: %(default)s)")
    parser.add_argument(
        "--spelled",
        type=int,
        default=20_000,
        help="words that are sentences, too, letter by letter, as people spell names (%(default)s)",
    )
    parser.add_argument(
        "--num-ngrams", type=int, default=2_000_000, help="longer than a word, kept (%(default)s)"
    )
    parser.add_argument(
        "--least",
        type=int,
        default=1,
        help="drop n-grams of three and four words that were seen less often (%(default)s)",
    )
    args = parser.parse_args(argv)
    texts = [Text.read(name) for name in args.files]
    words = choose_words(texts, args.num_words, args.min_count)
    rng = random.Random(0)
    names = rng.sample(words, min(args.spelled, len(words)))
    spelled = [" ".join(name.replace("'", "")) for name in names]
    texts.append(Text(spelled, max(text.times for text in texts)))
    parts = [number_words(text.lines, words) for text in texts]
    ids = np.concatenate(
        [part for part, text in zip(parts, texts, strict=True) for _ in range(text.times)]
    )
    del parts
    num_lines = sum(len(text.lines) for text in texts[:-1])
    num_ids = len(MARKS) + len(words)
    levels = prune(estimate(ids, args.order, num_ids, least=args.least), args.num_ngrams)
    data = pack_ngrams(words, levels)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(data)
    sizes = ", ".join(str(len(level.words)) for level in levels)
    unknown = np.mean(ids[ids != SENTENCE_START] == UNKNOWN)
    print(
        f"{args.out}: {num_lines} sentences, {100 * unknown:.2f} % unknown words; n-grams of each "
        f"order: {sizes}; {len(data) / 1e6:.2f} MB"
    )


class Text(NamedTuple):
    """Sentences, and how often each of them counts."""

    lines: list[str]
    times: int

    @classmethod
    def read(cls, name: str) -> Self:
        """Read ``FILE`` or ``FILE*TIMES``."""
        path, _, times = name.partition("*")
        return cls([line for line in read_lines(Path(path)) if line], int(times or 1))


def read_lines(path: Path) -> Iterator[str]:
    """Yield a file's sentences as plain words."""
    if path.suffix == ".jsonl":
        yield from (normalise_text(utterance.text) for utterance in read_manifest(path))
        return
    with (lzma.open if path.suffix == ".xz" else open)(path, "rt", encoding="utf-8") as file:
        for row in file:
            line = row.rstrip()
            yield line if PLAIN.fullmatch(line) else normalise_text(line)


def choose_words(texts: Iterable[Text], num_words: int, min_count: int) -> list[str]:
    """Return the commonest words, and each letter as the name that spells it, sorted."""
    counts: Counter[str] = Counter()
    for text in texts:
        own = Counter(word for line in text.lines for word in line.split())
        counts.update({word: n * text.times for word, n in own.items()})
    for letter in string.ascii_lowercase:
        counts.pop(letter, None)
    common = [word for word, n in counts.most_common(num_words - 26) if n >= min_count]
    return sorted([*common, *string.ascii_lowercase])


def number_words(lines: Iterable[str], words: list[str]) -> NDArray[np.uint16]:
    """Turn sentences into word ids, each between its marks."""
    index = {word: i for i, word in enumerate(words, len(MARKS))}
    blocks: list[NDArray[np.uint16]] = []
    row: list[int] = []
    for line in lines:
        row.append(SENTENCE_START)
        row.extend([index.get(word, UNKNOWN) for word in line.split()])
        row.append(SENTENCE_END)
        if len(row) >= BLOCK:
            blocks.append(np.array(row, np.uint16))
            row = []
    return np.concatenate([*blocks, np.array(row, np.uint16)])


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
