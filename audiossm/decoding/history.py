"""What the hypotheses of a search have heard: a tree of labels in arrays of fixed size, compiled.

An entry points to the one before it, which has a lower number. What all hypotheses share can be
told: it becomes final and leaves the tree.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiossm.decoding.compiled import compiled
from audiossm.decoding.knowledge import NOTHING

__all__ = ["NO_FRAME", "History", "Told", "find_agreed", "forget", "remember", "tell"]

NO_FRAME = -1  # of a word break that was not heard
BEFORE, LABEL, FRAME = 0, 1, 2  # columns

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


class History(NamedTuple):
    """The tree; only its first ``size[0]`` entries mean something."""

    size: Ints  # (1,)
    entries: Ints  # (capacity, 3): the entry before, label, frame
    scores: Floats  # (capacity,): the label's log-probability in its frame


class Told(NamedTuple):
    """Labels that became final, in order of time; only the first ``size[0]`` mean something."""

    size: Ints  # (1,)
    entries: Ints  # (capacity, 3): the first column is unused
    scores: Floats  # (capacity,)


@compiled
def remember(history: History, before: int, label: int, frame: int, score: np.float32) -> int:
    """Add an entry and return its number."""
    at = history.size[0]
    history.entries[at, BEFORE] = before
    history.entries[at, LABEL] = label
    history.entries[at, FRAME] = frame
    history.scores[at] = score
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
        told.scores[place] = history.scores[at]
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
        history.scores[new] = history.scores[old]
        new += 1
    history.size[0] = new
    for i in range(len(tails)):
        if tails[i] >= 0:
            tails[i] = place[tails[i]]
