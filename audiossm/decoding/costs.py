"""What words and their labels are worth to a search, or cost it, beside what is heard, compiled."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiossm.compiled import compiled
from audiossm.decoding.hypotheses import (
    CONTEXT,
    DEAD,
    LAST,
    LENGTH,
    NODE,
    PHRASE,
    ROOT,
    SPELLED,
    SPELLING,
    Beam,
)
from audiossm.decoding.knowledge import NOTHING, Knowledge, find, likeliest_word, predict
from audiossm.decoding.phrases import Phrases, walk

__all__ = [
    "NONE",
    "Endings",
    "Weights",
    "count_ways",
    "end_word",
    "end_word_each",
    "is_whole",
    "look_ahead",
    "look_ahead_in_phrase",
    "spell_on",
    "spelled_cost",
]

NONE = np.float32(0.0)

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


class Weights(NamedTuple):
    """What counts beside the labels' probabilities; floats are log-probabilities."""

    lm: np.float32  # times the language model's
    word: np.float32  # for each word
    spelled: np.float32  # for a word that isn't in the lexicon
    letter: np.float32  # for each of its letters or phones
    new_word: np.float32  # for a phrase's word that isn't in the lexicon, instead of these two
    blank: np.float32  # for each frame without a label, where one could be
    join: np.float32  # for a word that begins without a break
    split: np.float32  # for a break inside a word, which is not one
    beam: np.float32  # worse than the best by more, a hypothesis is given up
    least: np.float32  # labels below this are not tried
    word_break: np.int32  # the label between words; one beyond those that are heard if none is
    unknown: np.int32  # the word that the language model takes a spelled one for
    spells: np.int32  # labels are letters: they tell the word, whatever it is; else its number does
    pause: np.int32  # frames without a label after which words are final
    longest_wait: np.int32  # frames after which words are final in any case


@compiled
def spelled_cost(weights: Weights, ints: Ints, row: int) -> np.float32:
    """Return what a row's word costs outside of the lexicon."""
    return np.float32(weights.spelled + weights.letter * np.float32(ints[row, LENGTH]))


class Endings(NamedTuple):
    """The ways in which a hypothesis's word may end."""

    after: Ints  # (ways, 4): what is remembered after it, of columns CONTEXT to PHRASE
    words: Ints  # (ways,): numbers, or ``NOTHING`` if the letters tell the word
    worths: Floats  # (ways,)


@compiled
def count_ways(known: Knowledge, ints: Ints, row: int) -> int:
    """Return in how many ways a row's word may end: as each that sounds alike, or as it stands."""
    node = ints[row, NODE]
    if ints[row, LENGTH] == 0:
        return 0
    num = known.first_word[node + 1] - known.first_word[node] if node > ROOT else 0
    return max(1, int(num))


@compiled
def is_whole(known: Knowledge, phrases: Phrases, ints: Ints, row: int) -> bool:
    """Whether a row's word is one, not the beginning of one."""
    node, phrase = ints[row, NODE], ints[row, PHRASE]
    if node > ROOT and known.first_word[node + 1] > known.first_word[node]:
        return True
    return bool(phrase > ROOT and phrases.is_new[phrase] > 0)


@compiled
def end_word(
    known: Knowledge,
    phrases: Phrases,
    weights: Weights,
    beam: Beam,
    row: int,
    way: int,
    endings: Endings,
) -> None:
    """Write what ending the word in one way is worth, and what is remembered after it."""
    node, phrase = beam.ints[row, NODE], beam.ints[row, PHRASE]
    context, after = beam.ints[row, CONTEXT:PHRASE], endings.after[way]
    entry, word = NOTHING, NOTHING
    if node > ROOT and known.first_word[node + 1] > known.first_word[node]:
        entry = known.first_word[node] + way
        word = int(known.words[entry])
    elif not weights.spells:
        word = int(likeliest_word(known, node))
    endings.words[way] = word
    ender = int(weights.word_break) if weights.spells else int(weights.word_break) + word
    done = walk(phrases, int(phrase), ender, True)
    worth = weights.word
    if phrase > ROOT:
        worth = np.float32(worth + phrases.gain[phrase])
    if done > ROOT:
        worth = np.float32(worth + phrases.gain[done])
        while done > ROOT and phrases.first_child[done] == phrases.first_child[done + 1]:
            done = int(phrases.fallback[done])  # nothing goes on from here
    after[PHRASE - CONTEXT] = done
    if entry >= 0:
        worth = np.float32(worth + known.worths[entry])
        if word < known.num_words:
            score = predict(known, context, word, after)
            worth = np.float32(weights.lm * score + worth)
        else:
            predict(known, context, int(weights.unknown), after)
        endings.worths[way] = worth
        return
    predict(known, context, int(weights.unknown), after)
    if phrase > ROOT and phrases.is_new[phrase]:
        paid = spelled_cost(weights, beam.ints, row) if node == SPELLED else NONE
        worth = np.float32(worth + weights.new_word - paid)
    elif node != SPELLED:
        # the first letters of some word, but no word
        worth = np.float32(worth + spelled_cost(weights, beam.ints, row))
    endings.worths[way] = worth


@compiled
def end_word_each(
    known: Knowledge, phrases: Phrases, weights: Weights, beam: Beam, row: int, endings: Endings
) -> int:
    """Do what ``end_word`` does in each way; return how many there are."""
    ways = count_ways(known, beam.ints, row)
    for way in range(ways):
        end_word(known, phrases, weights, beam, row, way, endings)
    return ways


@compiled
def spell_on(
    known: Knowledge, phrases: Phrases, weights: Weights, ints: Ints, row: int, label: int
) -> np.float32:
    """Add a label to a row's word; return what it costs to leave, or be outside of, the lexicon.

    A row's node and its digest together tell all its letters. Phones don't leave the lexicon.
    """
    node = ints[row, NODE]
    ints[row, LAST] = label
    ints[row, LENGTH] += 1
    ints[row, PHRASE] = walk(phrases, int(ints[row, PHRASE]), label, False)
    if node != SPELLED:
        child = find(known.labels, known.first_child[node], known.first_child[node + 1], label)
        if child >= 0:
            ints[row, NODE] = child
            return NONE
    if not weights.spells:
        return DEAD
    seed = ints[row, SPELLING] if node == SPELLED else node
    ints[row, SPELLING] = (np.int64(seed) * 31 + label) & 0x3FFFFFFF
    ints[row, NODE] = SPELLED
    if node == SPELLED:
        return weights.letter
    return spelled_cost(weights, ints, row)


@compiled
def look_ahead(known: Knowledge, weights: Weights, ints: Ints, row: int) -> np.float32:
    """Return what a row's word in progress may be worth in the end."""
    node = ints[row, NODE]
    return np.float32(weights.lm * known.best[node]) if node > ROOT else NONE


@compiled
def look_ahead_in_phrase(
    phrases: Phrases, weights: Weights, ints: Ints, row: int, worth: np.float32
) -> np.float32:
    """Return what it may be worth with its phrase, if that is more than ``worth``."""
    node, phrase = ints[row, NODE], ints[row, PHRASE]
    if phrase <= ROOT:
        return worth
    ahead = phrases.ahead[phrase]
    if node == SPELLED:
        ahead = np.float32(ahead - spelled_cost(weights, ints, row))  # that is paid
    return max(worth, ahead)
