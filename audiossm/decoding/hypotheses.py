"""Hypotheses of a search: what each one stands for, in rows of arrays, compiled.

A hypothesis is a node of the trie (a word's first letters or phones, or ``SPELLED``: letters that
no word begins with), what the language model remembers, how far a phrase has come, and its newest
label. Those alike in all of these go on as one: their probabilities are added, and the likelier
one's history is kept.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiossm.compiled import compiled, entry
from audiossm.decoding.history import BEFORE, FRAME, History
from audiossm.decoding.knowledge import NOTHING

__all__ = [
    "BLANK",
    "DEAD",
    "ROOT",
    "SPELLED",
    "Beam",
    "Pool",
    "add_logs",
    "begin_candidate",
    "best_row",
    "drop_stale",
    "insist",
    "keep_row",
    "offer",
]

BLANK = 0
ROOT, SPELLED = 0, -1  # nodes
# columns of a beam's ints; CONTEXT and the two after it are the n-grams of the last one, two and
# three words, or NOTHING; SPELLING is a digest of the letters if the node is SPELLED; LENGTH counts
# the letters of the word in progress; PHRASE is a node of the phrases, or NOTHING; TAIL is the
# newest entry of the history
NODE, LAST, SPELLING, LENGTH, CONTEXT, PHRASE, TAIL, BEAM_COLUMNS = 0, 1, 2, 3, 4, 7, 8, 9
# and of a pool's: the history's next label, if any; whether a break that was not heard stands
# before it; and the number of the word that ends, or NOTHING
ADDED, JOINED, ENDED, POOL_COLUMNS = 9, 10, 11, 12
# columns of floats: log-probability of all ways that end in a blank, and in the newest label; of a
# pool's: of the likeliest way, of the next label itself, and what the word that ends is worth
IN_BLANK, IN_LABEL, LIKELIEST, SCORE, ENDING, POOL_FLOATS = 0, 1, 2, 3, 4, 5

DEAD = np.float32(-1e30)

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


class Beam(NamedTuple):
    """The hypotheses, of which the first ``size[0]`` rows mean something."""

    size: Ints  # (1,)
    ints: Ints  # (width, BEAM_COLUMNS)
    floats: Floats  # (width, 2)


class Pool(NamedTuple):
    """What the hypotheses of a frame may become."""

    size: Ints  # (1,)
    ints: Ints  # (capacity, POOL_COLUMNS)
    floats: Floats  # (capacity, POOL_FLOATS)
    table: Ints  # (a power of two,): 1 + the row that a digest leads to, or 0


@compiled
def add_logs(a: np.float32, b: np.float32) -> np.float32:
    """Return log(exp(a) + exp(b))."""
    if a < b:
        a, b = b, a
    if b <= DEAD:
        return a
    return np.float32(a + np.log1p(np.exp(np.float32(b - a))))


@entry
def best_row(beam: Beam) -> int:
    """Return the most probable hypothesis; what its word in progress may cost isn't counted."""
    best, found = DEAD, 0
    for row in range(beam.size[0]):
        rank = add_logs(beam.floats[row, IN_BLANK], beam.floats[row, IN_LABEL])
        if rank > best:
            best, found = rank, row
    return found


@compiled
def keep_row(beam: Beam, to: int, row: int) -> None:
    """Move a hypothesis to where those that stay are."""
    for column in range(BEAM_COLUMNS):
        beam.ints[to, column] = beam.ints[row, column]
    for column in (IN_BLANK, IN_LABEL):
        beam.floats[to, column] = beam.floats[row, column]


@compiled
def insist(beam: Beam, history: History, entry: int) -> None:
    """Give up the hypotheses that don't go on from ``entry``."""
    size = 0
    for row in range(beam.size[0]):
        at = beam.ints[row, TAIL]
        while at > entry:
            at = history.entries[at, BEFORE]
        if at == entry:
            keep_row(beam, size, row)
            size += 1
    beam.size[0] = size


@compiled
def drop_stale(beam: Beam, history: History, frame: int) -> None:
    """Give up the hypotheses whose newest label is of ``frame`` or before, if that isn't told.

    Each has all ways to have said it in any of the frames, and so becomes ever more probable.
    """
    size = 0
    for row in range(beam.size[0]):
        at = beam.ints[row, TAIL]
        if at < 0 or history.entries[at, FRAME] > frame:
            keep_row(beam, size, row)
            size += 1
    beam.size[0] = size


@compiled
def begin_candidate(pool: Pool, beam: Beam, row: int, after: Ints, is_ended: int) -> int:
    """Copy a hypothesis, perhaps with its word ended, to the row after the pool's last."""
    new = pool.size[0]
    for column in range(BEAM_COLUMNS):
        pool.ints[new, column] = beam.ints[row, column]
    pool.ints[new, ADDED] = BLANK
    pool.ints[new, JOINED] = 0
    pool.ints[new, ENDED] = NOTHING
    if is_ended:
        pool.ints[new, NODE], pool.ints[new, SPELLING], pool.ints[new, LENGTH] = ROOT, 0, 0
        for i in range(len(after)):
            pool.ints[new, CONTEXT + i] = after[i]
    return int(new)


@compiled
def offer(
    pool: Pool, in_blank: np.float32, in_label: np.float32, score: np.float32, ending: np.float32
) -> None:
    """Take the row after the last as a candidate, or add its probability to the one like it."""
    likeliest = max(in_blank, in_label)
    # there is room for all but what no lexicon has: words that all sound alike
    if likeliest <= DEAD or pool.size[0] >= len(pool.floats) - 1:
        return
    ints, floats, new = pool.ints, pool.floats, pool.size[0]
    digest = np.int64(0)
    for column in range(TAIL):
        digest = (digest * 1000003 + ints[new, column]) & 0x7FFFFFFFFFFF
    mask = len(pool.table) - 1
    at = (digest ^ (digest >> 20)) & mask
    while pool.table[at]:
        old = pool.table[at] - 1
        is_like = True
        for column in range(TAIL):
            is_like = is_like and ints[old, column] == ints[new, column]
        if is_like:
            floats[old, IN_BLANK] = add_logs(floats[old, IN_BLANK], in_blank)
            floats[old, IN_LABEL] = add_logs(floats[old, IN_LABEL], in_label)
            if likeliest > floats[old, LIKELIEST]:
                floats[old, LIKELIEST], floats[old, SCORE] = likeliest, score
                floats[old, ENDING] = ending
                for column in range(TAIL, POOL_COLUMNS):
                    ints[old, column] = ints[new, column]
            return
        at = (at + 1) & mask
    pool.table[at] = new + 1
    floats[new, IN_BLANK], floats[new, IN_LABEL] = in_blank, in_label
    floats[new, LIKELIEST], floats[new, SCORE] = likeliest, score
    floats[new, ENDING] = ending
    pool.size[0] = new + 1
