"""Pieces of words, learnt by joining what stands together most often (arXiv:1508.07909)."""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["BORDER", "Pieces"]

BORDER = 0  # the piece between two sentences
BEGIN = "_"  # how the first piece of a word begins


class Pieces:
    """Words as pieces; any word of the alphabet has some.

    Args:
        symbols: the pieces but ``BORDER``, whose ids begin at 1: first single letters, then what
            two earlier ones make, in the order in which they are joined.
    """

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = tuple(symbols)
        self.ids = {symbol: i for i, symbol in enumerate(symbols, 1)}
        self.known: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self.symbols) + 1

    @staticmethod
    def learn(counts: Mapping[str, int], number: int) -> "Pieces":
        """Choose ``number`` pieces for words that were seen so often; equal pairs by alphabet."""
        words = [(word, n) for word, n in sorted(counts.items()) if word]
        letters = sorted({letter for word, _ in words for letter in word})
        symbols = [BEGIN, *letters]
        rows = [[BEGIN, *word] for word, _ in words]
        pairs: dict[tuple[str, str], int] = defaultdict(int)
        where: dict[tuple[str, str], set[int]] = defaultdict(set)
        for at, (row, (_, n)) in enumerate(zip(rows, words, strict=True)):
            for pair in zip(row, row[1:], strict=False):
                pairs[pair] += n
                where[pair].add(at)
        heap = [(-n, pair) for pair, n in pairs.items()]
        heapq.heapify(heap)
        found = set(symbols)
        while heap and len(symbols) + 1 < number:
            n, pair = heapq.heappop(heap)
            if -n != pairs[pair]:  # it was counted anew since
                continue
            joined = "".join(pair)
            if joined not in found:
                found.add(joined)
                symbols.append(joined)
            changed = set()
            for at in where.pop(pair):
                old, count = rows[at], words[at][1]
                rows[at] = new = join(old, pair)
                for row, sign in ((old, -count), (new, count)):
                    for each in zip(row, row[1:], strict=False):
                        pairs[each] += sign
                        changed.add(each)
                        if sign > 0:
                            where[each].add(at)
            pairs[pair] = 0
            for each in changed:
                if pairs[each] > 0:
                    heapq.heappush(heap, (-pairs[each], each))
        return Pieces(symbols)

    def split(self, word: str) -> list[int]:
        """Return a word's pieces: of all neighbours the pair that was learnt first is joined first.

        Raises:
            KeyError: a letter that no word had.
        """
        if word not in self.known:
            row = [BEGIN, *word]
            while len(row) > 1:
                worth = [
                    (self.ids.get(a + b, len(self)), at)
                    for at, (a, b) in enumerate(zip(row, row[1:], strict=False))
                ]
                best, at = min(worth)
                if best == len(self):
                    break
                row = join(row, (row[at], row[at + 1]))
            self.known[word] = [self.ids[symbol] for symbol in row]
        return self.known[word]

    def encode(self, lines: Iterable[str]) -> NDArray[np.uint16]:
        """Turn sentences of plain words into ids, with a ``BORDER`` before each and at the end."""
        blocks, row = [], [BORDER]
        for line in lines:
            for word in line.split():
                row += self.known.get(word) or self.split(word)
            row.append(BORDER)
            if len(row) >= 1 << 20:
                blocks.append(np.array(row, np.uint16))
                row = []
        return np.concatenate([*blocks, np.array(row, np.uint16)])


def join(row: list[str], pair: tuple[str, str]) -> list[str]:
    """Return a row in which each such pair of neighbours is one."""
    joined, at = [], 0
    while at < len(row):
        if at + 1 < len(row) and (row[at], row[at + 1]) == pair:
            joined.append("".join(pair))
            at += 2
        else:
            joined.append(row[at])
            at += 1
    return joined
