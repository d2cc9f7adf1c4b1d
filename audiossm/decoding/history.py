"""What the hypotheses of a search have heard: a tree of labels in arrays of fixed size, compiled.

An entry points to the one before it, which has a lower number. What all hypotheses share can be
told: it becomes final and leaves the tree.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiossm.compiled import compiled
from audiossm.decoding.knowledge import NOTHING

__all__ = [
    "HISTORY_COLUMNS",
    "HISTORY_SCORES",
    "MARGIN",
    "NO_FRAME",
    "SCORE",
    "SHARE",
    "WORD",
    "WORTH",
    "History",
    "Told",
    "find_agreed",
    "forget",
    "remember",
    "tell",
    "weigh",
]

NO_FRAME = -1  # of a word break, or a letter, that was not heard
# columns; WORD is the number of the word that a break ends, or ``NOTHING`` if its letters tell it
BEFORE, LABEL, FRAME, WORD, HISTORY_COLUMNS = 0, 1, 2, 3, 4
# columns of scores: the label's log-probability in its frame; by how much it is below the frame's
# likeliest label; what the word before a break is worth to the language model; and the smallest
# share that the hypotheses which go on from the entry had of the probability of all
SCORE, MARGIN, WORTH, SHARE, HISTORY_SCORES = 0, 1, 2, 3, 4

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


class History(NamedTuple):
    """The tree; only its first ``size[0]`` entries mean something."""

    size: Ints  # (1,)
    entries: Ints  # (capacity, HISTORY_COLUMNS)
    scores: Floats  # (capacity, HISTORY_SCORES)


class Told(NamedTuple):
    """Labels that became final, in order of time; only the first ``size[0]`` mean something."""

    size: Ints  # (1,)
    entries: Ints  # (capacity, HISTORY_COLUMNS): the first column is unused
    scores: Floats  # (capacity, HISTORY_SCORES)


@compiled
def remember(
    history: History,
    before: int,
    label: int,
    frame: int,
    word: int,
    score: np.float32,
    margin: np.float32,
    worth: np.float32,
) -> int:
    """Add an entry and return its number."""
    at = history.size[0]
    history.entries[at, BEFORE] = before
    history.entries[at, LABEL] = label
    history.entries[at, FRAME] = frame
    history.entries[at, WORD] = word
    history.scores[at, SCORE], history.scores[at, MARGIN] = score, margin
    history.scores[at, WORTH], history.scores[at, SHARE] = worth, np.float32(1.0)
    history.size[0] = at + 1
    return int(at)


@compiled
def find_agreed(history: History, tails: Ints, label: int) -> int:
    """Return the newest entry with a label that is before all ``tails``, or ``NOTHING``."""
    shared = tails[0]
    for i in range(1, len(tails)):
        other = tails[i]
        while shared != other:
            if shared > other:
                shared = history.entries[shared, BEFORE]
            else:
                other = history.entries[other, BEFORE]
    while shared >= 0 and history.entries[shared, LABEL] != label:
        shared = history.entries[shared, BEFORE]
    return int(shared)


@compiled
def weigh(history: History, tails: Ints, ranks: Floats) -> None:
    """Note the share that each entry has of the probability of all hypotheses.

    Args:
        history: the tree.
        tails: of the hypotheses.
        ranks: their log-probabilities.
    """
    size = history.size[0]
    mass = np.zeros(size, np.float32)
    top, total = ranks.max(), np.float32(0.0)
    for row in range(len(tails)):
        likely = np.exp(np.float32(ranks[row] - top))
        total += likely
        if tails[row] >= 0:
            mass[tails[row]] += likely
    for at in range(size - 1, -1, -1):
        if mass[at] <= 0:
            continue
        share = np.float32(mass[at] / total)
        history.scores[at, SHARE] = min(history.scores[at, SHARE], share)
        before = history.entries[at, BEFORE]
        if before >= 0:
            mass[before] += mass[at]


@compiled
def tell(history: History, tails: Ints, entry: int, told: Told) -> None:
    """Make final what is before ``entry``, and itself, which all ``tails`` go on from."""
    num, at = 0, entry
    while at >= 0:
        num += 1
        at = history.entries[at, BEFORE]
    place, at = told.size[0] + num, entry
    while at >= 0:
        place -= 1
        told.entries[place, LABEL] = history.entries[at, LABEL]
        told.entries[place, FRAME] = history.entries[at, FRAME]
        told.entries[place, WORD] = history.entries[at, WORD]
        for column in range(HISTORY_SCORES):
            told.scores[place, column] = history.scores[at, column]
        at = history.entries[at, BEFORE]
    told.size[0] += num
    forget(history, tails, entry)


@compiled
def forget(history: History, tails: Ints, told: int) -> None:
    """Keep the entries that ``tails`` go on from, after ``told``, and close the gaps."""
    size = history.size[0]
    place = np.full(size, NOTHING, np.int32)
    for i in range(len(tails)):
        at = tails[i]
        while at >= 0 and at != told and place[at] < 0:
            place[at] = 0
            at = history.entries[at, BEFORE]
    new = 0
    for old in range(size):
        if place[old] < 0:
            continue
        place[old] = new
        before = history.entries[old, BEFORE]
        history.entries[new, BEFORE] = place[before] if before >= 0 else NOTHING
        history.entries[new, LABEL] = history.entries[old, LABEL]
        history.entries[new, FRAME] = history.entries[old, FRAME]
        history.entries[new, WORD] = history.entries[old, WORD]
        for column in range(HISTORY_SCORES):
            history.scores[new, column] = history.scores[old, column]
        new += 1
    history.size[0] = new
    for i in range(len(tails)):
        if tails[i] >= 0:
            tails[i] = place[tails[i]]
