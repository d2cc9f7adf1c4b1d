"""CTC forced alignment: which frames of a recording say which label of a known text."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiossm.decoding.greedy import BLANK_ID
from audiossm.errors import AlignmentError, ShapeError

__all__ = ["LabelSpans", "align_labels"]

BLOCK_FRAMES = 2048
MAX_BYTES = 512 * 2**20
STAY, FROM_BLANK, FROM_LABEL = 0, 1, 2

Floats = NDArray[np.float32]


class LabelSpans(NamedTuple):
    """Where the labels of a text lie on the best path."""

    first: NDArray[np.int64]  # (labels,): frame in which the label begins
    last: NDArray[np.int64]  # (labels,): its last frame
    scores: NDArray[np.float64]  # (labels,): mean log-probability of its frames
    total: float  # log-probability of the path, blanks included


class Front(NamedTuple):
    """Best log-probability of each way to have said the first ``j`` labels, for a range of ``j``.

    ``label[i]`` ends in label ``j`` itself, ``blank[i]`` in a blank after it.
    """

    label: Floats
    blank: Floats


def align_labels(log_probs: Floats, ids: NDArray[np.int64]) -> LabelSpans:
    """Find the most probable path that says ``ids`` (Graves et al., 2006; Viterbi).

    Blanks between labels may be left out, but not between two equal ones. The first pass keeps one
    frame in ``BLOCK_FRAMES``; the second repeats each block from its end backwards, and only the
    labels that can still be reached: memory is flat, and the result is that of the whole lattice.

    Args:
        log_probs: (frames, symbols) float32; symbol 0 is the blank.
        ids: (labels,), at least one, none of them the blank.

    Raises:
        AlignmentError: more labels than the frames have room for, a path of probability 0, or more
            of both than memory is granted for (about three hours of speech).
        ShapeError: other shapes or ids.
    """
    if log_probs.ndim != 2 or ids.ndim != 1 or not len(ids):
        raise ShapeError(
            f"align_labels takes (frames, symbols) and one label or more, got {log_probs.shape} "
            f"and {ids.shape}"
        )
    if ids.min() <= BLANK_ID or ids.max() >= log_probs.shape[1]:
        raise ShapeError(f"labels are 1 to {log_probs.shape[1] - 1}, got {ids.min()}..{ids.max()}")
    num_frames = len(log_probs)
    same = np.concatenate([[False], ids[1:] == ids[:-1]])
    if num_frames < len(ids) + same.sum():
        raise AlignmentError(
            f"the audio is too short for its text: {num_frames} frames, but its {len(ids)} labels "
            f"need {len(ids) + same.sum()}"
        )
    num_blocks = -(-num_frames // BLOCK_FRAMES)
    if num_blocks * 8 * (len(ids) + 1) > MAX_BYTES:
        raise AlignmentError(
            f"{num_frames} frames and {len(ids)} labels are too much at once (about three hours of "
            "speech can be aligned): cut the recording and its text at a pause"
        )
    skip = np.where(same, -np.inf, 0.0).astype(np.float32)
    fronts = [_begin(len(ids))]
    for at in range(0, num_frames, BLOCK_FRAMES):
        front = fronts[-1]
        for row in log_probs[at : at + BLOCK_FRAMES]:
            front = _advance(row, ids, skip, front)
        # only differences matter, and near 0 they are the most exact
        top = max(front.label.max(), front.blank.max())
        if not np.isfinite(top):
            raise AlignmentError("the text has probability 0 in this audio")
        fronts.append(Front(front.label - top, front.blank - top))
    end = fronts.pop()
    path = np.zeros(num_frames, np.int64)  # 1 + the label a frame says, 0 for a blank
    place, in_label = len(ids), bool(end.label[-1] > end.blank[-1])
    if not np.isfinite(max(end.label[-1], end.blank[-1])):
        raise AlignmentError("the text has probability 0 in this audio")
    for block in reversed(range(num_blocks)):
        rows = log_probs[block * BLOCK_FRAMES : (block + 1) * BLOCK_FRAMES]
        place, in_label, said = _trace(rows, ids, skip, fronts.pop(), place, in_label)
        path[block * BLOCK_FRAMES : block * BLOCK_FRAMES + len(rows)] = said
    return _measure(log_probs, ids, path)


def _begin(num_labels: int) -> Front:
    """Return the front before the first frame: nothing has been said."""
    front = Front(*(np.full(num_labels + 1, -np.inf, np.float32) for _ in range(2)))
    front.blank[0] = 0.0
    return front


def _advance(row: Floats, ids: NDArray[np.int64], skip: Floats, front: Front) -> Front:
    """Take one frame (symbols,); ``ids`` and ``skip`` are of the labels after the front's first."""
    label, blank = np.empty_like(front.label), np.maximum(front.label, front.blank)
    blank += row[BLANK_ID]
    label[0] = -np.inf
    np.add(front.label[:-1], skip, out=label[1:])
    np.maximum(label[1:], front.blank[:-1], out=label[1:])
    np.maximum(label[1:], front.label[1:], out=label[1:])
    label[1:] += row[ids]
    return Front(label, blank)


def _trace(
    rows: Floats, ids: NDArray[np.int64], skip: Floats, front: Front, place: int, in_label: bool
) -> tuple[int, bool, list[int]]:
    """Repeat a block from the front before it and go back from its end.

    Returns:
        where the path stands before the block, as ``place`` and ``in_label`` say where it stands
        after it; and for each frame 1 + its label, or 0.
    """
    low = max(0, place - len(rows))  # a frame says one new label at most
    ids, skip = ids[low:place], skip[low:place]
    front = Front(front.label[low : place + 1], front.blank[low : place + 1])
    moves = np.zeros((len(rows), place - low + 1), np.uint8)  # into a label
    said_it = np.zeros((len(rows), place - low + 1), bool)  # into a blank, from its label
    for row, move, said in zip(rows, moves, said_it, strict=True):
        np.greater(front.label, front.blank, out=said)
        stay, from_blank, from_label = front.label[1:], front.blank[:-1], front.label[:-1] + skip
        move[1:][from_blank > stay] = FROM_BLANK
        move[1:][from_label > np.maximum(stay, from_blank)] = FROM_LABEL
        front = _advance(row, ids, skip, front)
    path = []
    for frame in reversed(range(len(rows))):
        path.append(place if in_label else 0)
        at = place - low
        if not in_label:
            in_label = bool(said_it[frame, at])
        elif moves[frame, at] != STAY:
            place -= 1
            in_label = bool(moves[frame, at] == FROM_LABEL)
    return place, in_label, path[::-1]


def _measure(log_probs: Floats, ids: NDArray[np.int64], path: NDArray[np.int64]) -> LabelSpans:
    """Turn a path, 1 + label or 0 for each frame, into spans."""
    symbols = np.concatenate([[BLANK_ID], ids])[path]
    gains = log_probs[np.arange(len(path)), symbols].astype(np.float64)
    frames = np.flatnonzero(path)
    labels = path[frames] - 1
    starts = np.searchsorted(labels, np.arange(len(ids)))
    ends = np.append(starts[1:], len(frames))
    sums = np.add.reduceat(gains[frames], starts)
    return LabelSpans(frames[starts], frames[ends - 1], sums / (ends - starts), float(gains.sum()))
