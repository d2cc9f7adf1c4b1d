"""Write a word n-gram language model, its lexicon inside, from texts.

python recipes/lm/make_ngrams.py FILE ... --out assets/lm/books/ngrams.safetensors

A FILE is a text with a sentence a line (.xz or plain) or a manifest (.jsonl).
"""

import argparse
import lzma
import random
import string
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

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


def main(argv: list[str] | None = None) -> None:
    """Choose words, count, estimate, prune, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
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
    args = parser.parse_args(argv)
    lines = [line for path in args.files for line in read_lines(path) if line]
    words = choose_words(lines, args.num_words, args.min_count)
    rng = random.Random(0)
    names = rng.sample(words, min(args.spelled, len(words)))
    ids = number_words([*lines, *(" ".join(name.replace("'", "")) for name in names)], words)
    num_ids = len(MARKS) + len(words)
    levels = prune(estimate(ids, args.order, num_ids), args.num_ngrams)
    data = pack_ngrams(words, levels)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(data)
    sizes = ", ".join(str(len(level.words)) for level in levels)
    unknown = np.mean(ids[ids != SENTENCE_START] == UNKNOWN)
    print(
        f"{args.out}: {len(lines)} sentences, {100 * unknown:.2f} % unknown words; n-grams of each "
        f"order: {sizes}; {len(data) / 1e6:.2f} MB"
    )


def read_lines(path: Path) -> Iterator[str]:
    """Yield a file's sentences as plain words."""
    if path.suffix == ".jsonl":
        yield from (normalise_text(utterance.text) for utterance in read_manifest(path))
        return
    with (lzma.open if path.suffix == ".xz" else open)(path, "rt", encoding="utf-8") as file:
        yield from (normalise_text(line) for line in file)


def choose_words(lines: Iterable[str], num_words: int, min_count: int) -> list[str]:
    """Return the commonest words, and each letter as the name that spells it, sorted."""
    counts = Counter(word for line in lines for word in line.split())
    for letter in string.ascii_lowercase:
        counts.pop(letter, None)
    common = [word for word, n in counts.most_common(num_words - 26) if n >= min_count]
    return sorted([*common, *string.ascii_lowercase])


def number_words(lines: Iterable[str], words: list[str]) -> NDArray[np.uint16]:
    """Turn sentences into word ids, each between its marks."""
    index = {word: i for i, word in enumerate(words, len(MARKS))}
    rows = (
        np.array(
            [SENTENCE_START, *(index.get(word, UNKNOWN) for word in line.split()), SENTENCE_END],
            np.uint16,
        )
        for line in lines
    )
    return np.concatenate(list(rows))


if __name__ == "__main__":
    main()
