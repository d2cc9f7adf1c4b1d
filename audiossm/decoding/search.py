"""CTC prefix beam search over a lexicon and an n-gram model, a frame at a time, compiled.

When hypotheses are compared, a node of the trie stands for the likeliest word below it
(look-ahead).
"""

import numpy as np
from numpy.typing import NDArray

from audiossm.compiled import compiled, entry
from audiossm.decoding.costs import (
    NONE,
    Endings,
    Weights,
    end_word_each,
    is_whole,
    look_ahead,
    look_ahead_in_phrase,
    spell_on,
    spelled_cost,
)
from audiossm.decoding.history import (
    BEFORE,
    FRAME,
    LABEL,
    NO_FRAME,
    History,
    Told,
    find_agreed,
    forget,
    remember,
    tell,
    weigh,
)
from audiossm.decoding.hypotheses import (
    ADDED,
    BLANK,
    CONTEXT,
    DEAD,
    ENDED,
    ENDING,
    IN_BLANK,
    IN_LABEL,
    JOINED,
    LAST,
    LENGTH,
    NODE,
    PHRASE,
    POOL_COLUMNS,
    POOL_FLOATS,
    ROOT,
    SCORE,
    SPELLED,
    SPELLING,
    TAIL,
    Beam,
    Pool,
    add_logs,
    begin_candidate,
    best_row,
    drop_stale,
    insist,
    keep_row,
    offer,
)
from audiossm.decoding.knowledge import NOTHING, Knowledge, find
from audiossm.decoding.phrases import Phrases, walk

__all__ = ["close_words", "match_words", "rank_endings", "search"]

FLOOR = np.float32(-30.0)  # nothing is less probable: a frame of junk can't end all hypotheses
CLEARLY_BLANK = np.float32(-0.01)
TIDY_FRAMES = 8  # how often it is looked for what all hypotheses share

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


@compiled
def make_endings(known: Knowledge) -> Endings:
    """Return room for all ways in which a word may end."""
    most = int(known.most_words)
    return Endings(
        np.empty((most, 4), np.int32), np.empty(most, np.int32), np.empty(most, np.float32)
    )


@compiled
def extend(
    known: Knowledge,
    phrases: Phrases,
    weights: Weights,
    beam: Beam,
    row: int,
    heard: Floats,
    endings: Endings,
    pool: Pool,
) -> None:
    """Offer all that a hypothesis may become in a frame with these log-probabilities."""
    node, last = beam.ints[row, NODE], beam.ints[row, LAST]
    is_open = beam.ints[row, LENGTH] > 0
    in_blank, in_label = beam.floats[row, IN_BLANK], beam.floats[row, IN_LABEL]
    either = add_logs(in_blank, in_label)
    still = np.float32(either + heard[BLANK])
    again = DEAD if last == BLANK else max(np.float32(in_label + heard[last]), DEAD)
    if is_open and weights.word_break < len(heard):
        split = np.float32(either + heard[weights.word_break] + weights.split)
        still = add_logs(still, split)
    ways = end_word_each(known, phrases, weights, beam, row, endings)
    joins = ways if ways and is_whole(known, phrases, beam.ints, row) else 0
    begin_candidate(pool, beam, row, endings.after[0], 0)
    offer(pool, still, again, NONE, NONE)
    paid = spelled_cost(weights, beam.ints, row) if node == SPELLED else NONE
    for label in range(1, len(heard)):
        from_ways = in_blank if label == last else either
        come = np.float32(from_ways + heard[label])
        if heard[label] < weights.least or from_ways <= DEAD:
            continue
        if label == weights.word_break:
            # a break after a break is the same one
            new = begin_candidate(pool, beam, row, endings.after[0], int(is_open))
            pool.ints[new, LAST] = label
            ending = NONE
            if is_open:
                pool.ints[new, ADDED], pool.ints[new, ENDED] = label, endings.words[0]
                ending = endings.worths[0]
            total = np.float32(come + ending)
            offer(pool, DEAD, total, heard[label], np.float32(ending + paid))
            continue
        for way in range(NOTHING, joins):
            offer_label(known, phrases, weights, beam, row, endings, way, label, heard, come, pool)


@compiled
def offer_label(
    known: Knowledge,
    phrases: Phrases,
    weights: Weights,
    beam: Beam,
    row: int,
    endings: Endings,
    way: int,
    label: int,
    heard: Floats,
    come: np.float32,
    pool: Pool,
) -> None:
    """Offer a hypothesis with one more label; with a ``way``, its word is ended before that."""
    ends = int(way >= 0)
    ending = endings.worths[way] if ends else NONE
    join = weights.join if ends else NONE
    worth = ending
    if ends and beam.ints[row, NODE] == SPELLED:
        worth = np.float32(ending + spelled_cost(weights, beam.ints, row))
    begins = ends or beam.ints[row, LENGTH] == 0
    for tree in range(2 if begins and known.other_root > ROOT else 1):
        new = begin_candidate(pool, beam, row, endings.after[max(way, 0)], ends)
        pool.ints[new, ADDED], pool.ints[new, JOINED] = label, ends
        if ends:
            pool.ints[new, ENDED] = endings.words[way]
        if tree:
            pool.ints[new, NODE] = known.other_root
        cost = spell_on(known, phrases, weights, pool.ints, new, label)
        offer(pool, DEAD, np.float32(come + cost + ending + join), heard[label], worth)


@compiled
def remember_end(
    known: Knowledge, weights: Weights, history: History, tail: int, word: int, worth: np.float32
) -> int:
    """Add a word break that was not heard; a word that no lexicon has is told by its letters."""
    at = word - known.num_words
    if at >= 0:
        for i in range(known.first_letter[at], known.first_letter[at + 1]):
            letter = known.letters[i]
            tail = remember(history, tail, letter, NO_FRAME, NOTHING, NONE, NONE, NONE)
        word = NOTHING
    return remember(history, tail, int(weights.word_break), NO_FRAME, word, NONE, NONE, worth)


@compiled
def select(
    known: Knowledge,
    phrases: Phrases,
    weights: Weights,
    beam: Beam,
    history: History,
    frame: int,
    pool: Pool,
    top: np.float32,
) -> None:
    """Make the best candidates the beam; the best one's log-probability is 0 afterwards."""
    width = len(beam.ints)
    chosen = np.empty(width + 1, np.int32)
    ranks = np.empty(width + 1, np.float32)
    size, best = 0, np.float32(2 * DEAD)
    for row in range(pool.size[0]):
        total = add_logs(pool.floats[row, IN_BLANK], pool.floats[row, IN_LABEL])
        worth = look_ahead(known, weights, pool.ints, row)
        best = max(best, np.float32(total + worth))
        worth = look_ahead_in_phrase(phrases, weights, pool.ints, row, worth)
        rank = np.float32(total + worth)
        place = size
        while place > 0 and ranks[place - 1] < rank:
            ranks[place], chosen[place] = ranks[place - 1], chosen[place - 1]
            place -= 1
        ranks[place], chosen[place] = rank, row
        size = min(size + 1, width)
    # what a phrase may be worth can save a hypothesis, but ends no other: it may still fail
    while ranks[size - 1] < best - weights.beam:
        size -= 1
    for to in range(size):
        row = chosen[to]
        for column in range(TAIL):
            beam.ints[to, column] = pool.ints[row, column]
        for column in (IN_BLANK, IN_LABEL):
            beam.floats[to, column] = max(np.float32(pool.floats[row, column] - ranks[0]), DEAD)
        tail = int(pool.ints[row, TAIL])
        if pool.ints[row, JOINED]:
            word, ending = int(pool.ints[row, ENDED]), pool.floats[row, ENDING]
            tail = remember_end(known, weights, history, tail, word, ending)
        if pool.ints[row, ADDED] != BLANK:
            score = pool.floats[row, SCORE]
            tail = remember(
                history,
                tail,
                pool.ints[row, ADDED],
                frame,
                NOTHING if pool.ints[row, JOINED] else int(pool.ints[row, ENDED]),
                score,
                np.float32(score - top),
                pool.floats[row, ENDING],
            )
        beam.ints[to, TAIL] = tail
    beam.size[0] = size


@compiled
def weigh_all(known: Knowledge, weights: Weights, beam: Beam, history: History) -> None:
    """Note the share that each entry of the history has of the probability of all hypotheses."""
    ranks = np.empty(beam.size[0], np.float32)
    for row in range(beam.size[0]):
        rank = add_logs(beam.floats[row, IN_BLANK], beam.floats[row, IN_LABEL])
        ranks[row] = rank + look_ahead(known, weights, beam.ints, row)
    weigh(history, beam.ints[: beam.size[0], TAIL], ranks)


@entry
def close_words(
    known: Knowledge, phrases: Phrases, weights: Weights, beam: Beam, history: History, told: Told
) -> None:
    """End all words where they stand, and go on from the best hypothesis alone."""
    endings, context = make_endings(known), np.empty(4, np.int32)
    best, found, worth, word = np.float32(2 * DEAD), 0, NONE, NOTHING
    weigh_all(known, weights, beam, history)
    for row in range(beam.size[0]):
        rank = add_logs(beam.floats[row, IN_BLANK], beam.floats[row, IN_LABEL])
        ways = end_word_each(known, phrases, weights, beam, row, endings)
        if not ways and rank > best:
            best, found, worth, word = rank, row, NONE, NOTHING
            for i in range(4):
                context[i] = beam.ints[row, CONTEXT + i]
        for way in range(ways):
            total = np.float32(rank + endings.worths[way])
            if total > best:
                best, found, worth = total, row, endings.worths[way]
                word = endings.words[way]
                for i in range(4):
                    context[i] = endings.after[way, i]
    ints, floats = beam.ints, beam.floats
    top = max(floats[found, IN_BLANK], floats[found, IN_LABEL])
    for column in (IN_BLANK, IN_LABEL):
        floats[0, column] = max(np.float32(floats[found, column] - top), DEAD)
    is_open = ints[found, LENGTH] > 0
    if ints[found, NODE] == SPELLED:
        worth = np.float32(worth + spelled_cost(weights, ints, found))
    ints[0, LAST], ints[0, TAIL] = ints[found, LAST], ints[found, TAIL]
    ints[0, NODE], ints[0, SPELLING], ints[0, LENGTH] = ROOT, 0, 0
    for i in range(4):
        ints[0, CONTEXT + i] = context[i]
    beam.size[0] = 1
    tails = ints[:1, TAIL]
    forget(history, tails, NOTHING)
    if is_open:
        tails[0] = remember_end(known, weights, history, int(tails[0]), int(word), worth)
    tell(history, tails, int(tails[0]), told)


@entry
def rank_endings(
    known: Knowledge,
    phrases: Phrases,
    weights: Weights,
    beam: Beam,
    ranks: NDArray[np.float64],
    words: Ints,
) -> None:
    """Write the log-probability that each hypothesis has if its word ends where it stands.

    Both ``ranks`` and ``words`` are (hypotheses, ways): minus infinity where there is no such way,
    and the word's number, or ``NOTHING`` if its letters tell it.
    """
    endings = make_endings(known)
    for row in range(beam.size[0]):
        rank = add_logs(beam.floats[row, IN_BLANK], beam.floats[row, IN_LABEL])
        ways = end_word_each(known, phrases, weights, beam, row, endings)
        ranks[row], words[row] = -np.inf, NOTHING
        if not ways:
            ranks[row, 0] = rank
        for way in range(ways):
            ranks[row, way] = np.float32(rank + endings.worths[way])
            words[row, way] = endings.words[way]


@entry
def match_words(
    known: Knowledge, phrases: Phrases, weights: Weights, beam: Beam, history: History
) -> None:
    """Find the words in progress among other phrases, and words of the second tree, than before.

    A hypothesis whose word is there no more is given up, or this word of it if no other is left.
    """
    size = 0
    for row in range(beam.size[0]):
        length, at = beam.ints[row, LENGTH], beam.ints[row, TAIL]
        labels = np.empty(length, np.int32)
        for i in range(length):
            labels[length - 1 - i] = history.entries[at, LABEL]
            at = history.entries[at, BEFORE]
        is_other = beam.ints[row, NODE] >= known.num_nodes
        phrase, node = ROOT, int(known.other_root) if known.other_root > ROOT else NOTHING
        for label in labels:
            phrase = walk(phrases, phrase, label, False)
            if is_other and node >= 0:
                first, last = known.first_child[node], known.first_child[node + 1]
                node = find(known.labels, first, last, label)
        beam.ints[row, PHRASE] = phrase
        if is_other and node < 0 and (size or row + 1 < beam.size[0]):
            continue
        if is_other:
            beam.ints[row, NODE] = max(node, ROOT)
        if is_other and node < 0:
            beam.ints[row, LENGTH], beam.ints[row, PHRASE], beam.ints[row, TAIL] = 0, ROOT, at
        keep_row(beam, size, row)
        size += 1
    beam.size[0] = size


@compiled
def settle(
    known: Knowledge,
    phrases: Phrases,
    weights: Weights,
    beam: Beam,
    history: History,
    frame: int,
    told: Told,
) -> None:
    """Make final what has become so by ``frame``."""
    tail = beam.ints[best_row(beam), TAIL]
    if tail >= 0 and frame - history.entries[tail, FRAME] >= weights.pause:
        close_words(known, phrases, weights, beam, history, told)
        return
    weigh_all(known, weights, beam, history)
    drop_stale(beam, history, frame - int(weights.pause))
    tails = beam.ints[: beam.size[0], TAIL]
    agreed = find_agreed(history, tails, int(weights.word_break))
    if agreed >= 0:
        tell(history, tails, int(agreed), told)
    first, last_break, at = NOTHING, NOTHING, beam.ints[best_row(beam), TAIL]
    while at >= 0:
        first = at
        if history.entries[at, LABEL] == weights.word_break:
            last_break = at
        at = history.entries[at, BEFORE]
    if first == NOTHING or frame - history.entries[first, FRAME] < weights.longest_wait:
        return
    if last_break == NOTHING:
        close_words(known, phrases, weights, beam, history, told)
        return
    insist(beam, history, int(last_break))
    tell(history, beam.ints[: beam.size[0], TAIL], int(last_break), told)


@entry
def search(
    known: Knowledge,
    phrases: Phrases,
    weights: Weights,
    log_probs: Floats,
    frame: int,
    beam: Beam,
    history: History,
    told: Told,
) -> None:
    """Advance by (frames, symbols) log-probabilities, the first of frame number ``frame``."""
    width, num_symbols = len(beam.ints), log_probs.shape[1]
    capacity = 2 * width * num_symbols if weights.spells else 4 * width * num_symbols
    most_new = width * (2 + int(known.longest))  # entries of the history, in a frame
    slots = 1
    while slots < 2 * capacity:
        slots *= 2
    pool = Pool(
        np.zeros(1, np.int32),
        np.empty((capacity + 1, POOL_COLUMNS), np.int32),
        np.empty((capacity + 1, POOL_FLOATS), np.float32),
        np.empty(slots, np.int32),
    )
    heard, endings = np.empty(num_symbols, np.float32), make_endings(known)
    for t in range(len(log_probs)):
        for label in range(num_symbols):
            value = log_probs[t, label]
            # what is not a number is not above anything
            heard[label] = value if value > FLOOR else FLOOR
        if heard[BLANK] > CLEARLY_BLANK:
            for row in range(beam.size[0]):
                either = add_logs(beam.floats[row, IN_BLANK], beam.floats[row, IN_LABEL])
                beam.floats[row, IN_BLANK], beam.floats[row, IN_LABEL] = either, DEAD
        else:
            top = heard.max()
            heard[BLANK] += weights.blank
            pool.size[0] = 0
            pool.table[:] = 0
            for row in range(beam.size[0]):
                extend(known, phrases, weights, beam, row, heard, endings, pool)
            select(known, phrases, weights, beam, history, frame + t, pool, top)
        if history.size[0] + most_new > len(history.scores):
            forget(history, beam.ints[: beam.size[0], TAIL], NOTHING)
            if history.size[0] + most_new > len(history.scores):
                close_words(known, phrases, weights, beam, history, told)
        if (frame + t) % TIDY_FRAMES == 0:
            settle(known, phrases, weights, beam, history, frame + t, told)
