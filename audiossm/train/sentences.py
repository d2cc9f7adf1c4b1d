"""Written sentences as arrays of words, with some held out."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiossm.marks import MARKS, MarkedWord, read_marks

__all__ = ["Sentences", "hold_out", "leave_out"]

SHARED = 8  # as many words in a row are no accident


@dataclass(frozen=True)
class Sentences:
    """Sentences one after the other."""

    words: tuple[str, ...]  # each different one, the commonest first
    ids: NDArray[np.int32]  # (running words,) indices into ``words``
    labels: NDArray[np.uint8]  # (running words,) case * marks + mark
    starts: NDArray[np.int64]  # (sentences + 1,) of each, and the end of the last

    @staticmethod
    def read(lines: Iterable[str]) -> "Sentences":
        """Take written sentences apart; those that ``read_sentence`` refuses are left out."""
        found = [words for line in lines if (words := read_sentence(line))]
        items = [item for words in found for item in words]
        counts = Counter(item.word for item in items)
        order = sorted(counts, key=lambda word: (-counts[word], word))
        index = {word: at for at, word in enumerate(order)}
        return Sentences(
            tuple(order),
            np.array([index[item.word] for item in items], np.int32),
            np.array([item.case * len(MARKS) + item.mark for item in items], np.uint8),
            np.cumsum([0, *map(len, found)], dtype=np.int64),
        )

    def save(self, path: Path) -> None:
        """Write all arrays to an npz file."""
        words = np.array(" ".join(self.words))
        np.savez_compressed(path, words=words, ids=self.ids, labels=self.labels, starts=self.starts)

    @staticmethod
    def load(path: Path) -> "Sentences":
        """Read what ``save`` wrote."""
        with np.load(path) as file:
            words = tuple(str(file["words"]).split())
            return Sentences(words, file["ids"], file["labels"], file["starts"])


def read_sentence(line: str) -> list[MarkedWord]:
    """Take a written sentence apart; one without words or a mark at its end gives nothing."""
    words = read_marks(line)
    return words if words and words[-1].mark else []


def hold_out(lines: Sequence[str], *counts: int) -> list[list[str]]:
    """Choose sets of sentences to hold out, by a hash of their plain words.

    Which ones depends on the sentences alone. Sentences of the same words count once, and a later
    set has none that ``leave_out`` would leave out because of an earlier set.

    Returns:
        for each count as many lines, or fewer if there are no more, in the order of ``lines``.
    """
    ranked: dict[bytes, int] = {}
    for number, line in enumerate(lines):
        if plain := " ".join(item.word for item in read_sentence(line)):
            ranked.setdefault(hashlib.sha256(plain.encode()).digest(), number)
    order = [number for _, number in sorted(ranked.items())]
    sets: list[list[str]] = []
    for count in counts:
        # a shared run is rare: twice as many are more than enough
        some = leave_out([lines[number] for number in order[: 2 * count]], sum(sets, []))
        chosen = set(some[:count])
        sets.append([line for line in lines if line in chosen])
        order = [number for number in order if lines[number] not in chosen]
    return sets


def leave_out(lines: Iterable[str], held_out: Iterable[str]) -> list[str]:
    """Leave out what has the plain words of a held-out sentence, or ``SHARED`` of them in a row."""
    taken = {trace for line in held_out for trace in find_traces(line)}
    return [line for line in lines if taken.isdisjoint(find_traces(line))]


def find_traces(line: str) -> Iterator[tuple[str, ...]]:
    """Yield the plain words of a sentence, and each run of ``SHARED`` of them."""
    words = tuple(item.word for item in read_marks(line))
    yield words
    for at in range(len(words) - SHARED + 1):
        yield words[at : at + SHARED]
