"""What a table of letters gets right: the baseline of the sounder. No network.

    python recipes/pronounce/baseline.py PRONUNCIATIONS --held-out FILE [FILE ...]

Letters are laid over phones, none to two of a letter, by expectation maximisation; each letter then
gets the commonest phones that it had between the same neighbours: as many as three on either side,
fewer where these were never seen.
"""

import argparse
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from audiossm.evaluate.pronounce import read_references, score_pronunciations
from audiossm.lexicon import read_pronunciations
from audiossm.train.pronunciations import find_stem
from audiossm_apps.recipe import run_recipe

MOST = 2  # phones of a letter
SIDES = ((3, 3), (2, 2), (1, 2), (1, 1), (0, 1), (0, 0))  # neighbours before and after
PASSES, SAMPLE = 4, 20000  # words that costs are learnt from
UNSEEN = 12.0  # nats

Costs = Mapping[tuple[str, tuple[str, ...]], float]


def lay(word: str, phones: Sequence[str], costs: Costs) -> list[tuple[str, ...]] | None:
    """Return the phones of each letter at the lowest cost, None if there are too many."""
    best: list[dict[int, tuple[float, int]]] = [{0: (0.0, 0)}]
    for letter in word:
        row: dict[int, tuple[float, int]] = {}
        for at, (cost, _) in best[-1].items():
            for count in range(min(MOST, len(phones) - at) + 1):
                more = costs.get((letter, tuple(phones[at : at + count])), UNSEEN + (count != 1))
                if cost + more < row.get(at + count, (math.inf, 0))[0]:
                    row[at + count] = cost + more, at
        best.append(row)
    end, parts = len(phones), []
    if end not in best[-1]:
        return None
    for row in reversed(best[1:]):
        parts.append(tuple(phones[row[end][1] : end]))
        end = row[end][1]
    return parts[::-1]


def learn_costs(phones: Mapping[str, Sequence[str]]) -> Costs:
    """Return the cost of each letter's phones in nats."""
    costs: Costs = {}
    for _ in range(PASSES):
        counts: Counter[tuple[str, tuple[str, ...]]] = Counter()
        for word, row in phones.items():
            counts.update(zip(word, lay(word, row, costs) or (), strict=False))
        totals: Counter[str] = Counter()
        for (letter, _), count in counts.items():
            totals[letter] += count
        costs = {key: -math.log(count / totals[key[0]]) for key, count in counts.items()}
    return costs


def contexts(word: str) -> Iterator[list[tuple[int, str]]]:
    """Yield each letter with its neighbours, most of them first."""
    padded = f"###{word}###"
    for at in range(3, 3 + len(word)):
        yield [
            (number, padded[at - before : at + after + 1])
            for number, (before, after) in enumerate(SIDES)
        ]


def main() -> None:
    """Learn from all words that share no stem with a held-out one; score each file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pronunciations", type=Path)
    parser.add_argument("--held-out", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    sets = {path: read_references(path) for path in args.held_out}
    stems = {find_stem(word) for references in sets.values() for word in references}
    table = read_pronunciations(args.pronunciations)
    known = {w: tuple(row.split()) for w, row in table.items() if find_stem(w) not in stems}
    step = max(1, len(known) // SAMPLE)
    costs = learn_costs(dict(list(known.items())[::step]))
    seen: defaultdict[tuple[int, str], Counter[tuple[str, ...]]] = defaultdict(Counter)
    for word, row in known.items():
        if parts := lay(word, row, costs):
            for letter, part in zip(contexts(word), parts, strict=True):
                for context in letter:
                    seen[context][part] += 1
    commonest = {context: counts.most_common(1)[0][0] for context, counts in seen.items()}
    for path, references in sets.items():
        for name, first in (("neighbours", 0), ("single letters", len(SIDES) - 1)):
            found = {}
            for word in references:
                rows = (
                    next(commonest[c] for c in letter[first:] if c in commonest)
                    for letter in contexts(word)
                )
                found[word] = tuple(phone for row in rows for phone in row)
            score = score_pronunciations(found, references)
            for kind, item in (("with", score.stressed), ("without", score.plain)):
                print(
                    f"{path.name}, {name}, {kind} stress: {item.rate:.2%} of the phones wrong, "
                    f"{item.accuracy:.2%} of the words right"
                )


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
