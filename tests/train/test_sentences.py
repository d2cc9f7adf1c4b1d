"""Sentences become arrays, and what is held out leaves nothing behind."""

import lzma
import random
from pathlib import Path

import numpy as np
import pytest

from audiossm.errors import ManifestError
from audiossm.evaluate.writing import read_lines
from audiossm.marks import MARKS, MarkedWord, read_marks
from audiossm.train.sentences import Sentences, hold_out, leave_out

LINES = read_lines(Path(__file__).parents[1] / "text" / "sentences.txt")


def test_arrays_hold_the_sentences(tmp_path):
    lines = ["Is it? No, it is not.", "no mark at its end", "It is."]
    sentences = Sentences.read(lines)
    assert sentences.words[:2] == ("is", "it")
    assert sentences.starts.tolist() == [0, 6, 8]
    words = [
        MarkedWord(sentences.words[number], *divmod(int(label), len(MARKS)))
        for number, label in zip(sentences.ids, sentences.labels, strict=True)
    ]
    assert words == read_marks(lines[0]) + read_marks(lines[2])
    sentences.save(tmp_path / "some.npz")
    loaded = Sentences.load(tmp_path / "some.npz")
    assert loaded.words == sentences.words
    for name in ("ids", "labels", "starts"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(sentences, name))


def test_held_out_sentences_depend_on_the_text_alone_and_leave_nothing():
    test, dev = hold_out(LINES, 30, 20)
    assert (len(test), len(dev)) == (30, 20) and not {*test} & {*dev}
    shuffled = random.Random(1).sample([*LINES, *LINES[:100]], len(LINES) + 100)
    again = hold_out(shuffled, 30, 20)
    assert [sorted({*lines}) for lines in again] == [sorted(test), sorted(dev)]
    kept = leave_out(LINES, test + dev)
    assert len(kept) <= len(LINES) - 50 and not {*kept} & {*test, *dev}


def test_the_same_words_and_eight_in_a_row_are_left_out():
    held = ["We went to the old house on the hill, and it was cold."]
    lines = [
        "we WENT to the old house on the hill and it was cold!",
        "They said we went to the old house on the hill.",
        "They came to the old house on the hill.",
        "It was cold.",
    ]
    assert leave_out(lines, held) == ["They came to the old house on the hill.", "It was cold."]


def test_fewer_sentences_than_asked_for_are_all_of_them():
    assert hold_out(LINES[:5], 10, 10) == [LINES[:5], []]


def test_packed_text_is_read_and_damaged_text_is_named(tmp_path):
    packed = tmp_path / "some.txt.xz"
    packed.write_bytes(lzma.compress(b"One.\nTwo.\n"))
    assert read_lines(packed) == ["One.", "Two."]
    packed.write_bytes(b"no")
    with pytest.raises(ManifestError, match="can't read these sentences"):
        read_lines(packed)
    with pytest.raises(ManifestError, match="can't read these sentences"):
        read_lines(tmp_path / "none.txt")
