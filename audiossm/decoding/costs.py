"""What words and letters are worth to a search, or cost it, beside what is heard, compiled."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiossm.decoding.compiled import compiled
from audiossm.decoding.hypotheses import (
    CONTEXT,
    LAST,
    LENGTH,
    NODE,
    PHRASE,
    ROOT,
    SPELLED,
    SPELLING,
    Beam,
)
from audiossm.decoding.knowledge import Knowledge, find, predict
from audiossm.decoding.phrases import Phrases, walk

__all__ = [
    "NONE",
    "Weights",
    "end_word",
    "look_ahead",
    "look_ahead_in_phrase",
    "spell_on",
    "spelled_cost",
]

NONE = np.float32(0.0)

Ints = NDArray[np.int32]


class Weights(NamedTuple):
    """What counts beside the labels' probabilities; floats are log-probabilities."""

    lm: np.float32  # times the language model's
    word: np.float32  # for each word
    spelled: np.float32  # for a word that isn't in the lexicon
    letter: np.float32  # for each of its letters
    new_word: np.float32  # for a phrase's word that isn't in the lexicon, instead of these two
    blank: np.float32  # for each frame without a label, where one could be
    join: np.float32  # for a word that begins without a break
    split: np.float32  # for a break inside a word, which is not one
    beam: np.float32  # worse than the best by more, a hypothesis is given up
    least: np.float32  # labels below this are not tried
    word_break: np.int32
    unknown: np.int32  # the word that the language model takes a spelled one for
    pause: np.int32  # frames without a label after which words are final
    longest_wait: np.int32  # frames after which words are final in any case


@compiled
def spelled_cost(weights: Weights, ints: Ints, row: int) -> np.float32:
    """Return what a row's word costs outside of the lexicon."""
    return np.float32(weights.spelled + weights.letter * np.float32(ints[row, LENGTH]))


@compiled
def end_word(
    known: Knowledge, phrases: Phrases, weights: Weights, beam: Beam, row: int, after: Ints
) -> np.float32:
    """Return what ending the word is worth; write what is remembered after it."""
    node, phrase = beam.ints[row, NODE], beam.ints[row, PHRASE]
    word_break = int(weights.word_break)
    after[PHRASE - CONTEXT] = walk(phrases, int(phrase), word_break, word_break)
    worth = weights.word
    if phrase > ROOT:
        worth = np.float32(worth + phrases.gain[phrase])
    if node > ROOT and known.words[node] >= 0:
        word = int(known.words[node])
        score = predict(known, beam.ints[row, CONTEXT:PHRASE], word, after)
        return np.float32(weights.lm * score + worth)
    predict(known, beam.ints[row, CONTEXT:PHRASE], int(weights.unknown), after)
    if phrase > ROOT and phrases.is_new[phrase]:
        paid = spelled_cost(weights, beam.ints, row) if node == SPELLED else NONE
        return np.float32(worth + weights.new_word - paid)
    if node == SPELLED:
        return worth
    # the first letters of some word, but no word
    return np.float32(worth + spelled_cost(weights, beam.ints, row))


@compiled
def spell_on(
    known: Knowledge, phrases: Phrases, weights: Weights, ints: Ints, row: int, label: int
) -> np.float32:
    """Add a letter to a row's word; return what it costs to leave, or be outside of, the lexicon.

    A row's node and its digest together tell all its letters.
    """
    node = ints[row, NODE]
    ints[row, LAST] = label
    ints[row, LENGTH] += 1
    ints[row, PHRASE] = walk(phrases, int(ints[row, PHRASE]), label, int(weights.word_break))
    if node != SPELLED:
        child = find(known.labels, known.first_child[node], known.first_child[node + 1], label)
        if child >= 0:
            ints[row, NODE] = child
            return NONE
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
