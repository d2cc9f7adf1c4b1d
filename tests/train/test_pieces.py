"""Pieces of words: what is common is one piece, and nothing has none."""

from collections import Counter

import numpy as np
import pytest

from audiossm.train.pieces import BORDER, Pieces

TEXT = ["low lower lowest", "new newer newest wide", "low low new"]


def learn(number: int) -> Pieces:
    return Pieces.learn(Counter(word for line in TEXT for word in line.split()), number)


def test_the_commonest_pairs_become_pieces_and_words_are_spelled_by_them():
    pieces = learn(24)
    assert len(pieces) == 24
    text = {word: [pieces.symbols[i - 1] for i in pieces.split(word)] for word in ("low", "newest")}
    assert text["low"] == ["_low"]
    assert "".join(text["newest"]) == "_newest"
    assert len(text["newest"]) < 7
    unseen = pieces.split("wed")
    assert "".join(pieces.symbols[i - 1] for i in unseen) == "_wed"
    with pytest.raises(KeyError):
        pieces.split("zoo")


def test_the_order_of_words_does_not_matter():
    counts = Counter(word for line in TEXT for word in line.split())
    other = Counter(dict(reversed(counts.items())))
    assert Pieces.learn(other, 20).symbols == Pieces.learn(counts, 20).symbols


def test_sentences_stand_between_borders():
    pieces = learn(24)
    ids = pieces.encode(TEXT)
    assert ids.dtype == np.uint16
    borders = np.flatnonzero(ids == BORDER)
    assert len(borders) == 4 and borders[0] == 0 and borders[-1] == len(ids) - 1
    first = [symbol for i in ids[1 : borders[1]] for symbol in pieces.symbols[i - 1]]
    assert "".join(first) == "_low_lower_lowest"
