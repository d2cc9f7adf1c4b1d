"""Plain words, and the pieces that spell them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.errors import ConfigError
from audiossm.text import BLANK, CHARACTERS, WORD_BREAK, Vocabulary, normalise_text

LETTERS = Vocabulary(CHARACTERS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, World!", "hello world"),
        ("It's Tom’s", "it's tom's"),
        ("'quoted' ''", "quoted"),
        ("naïve café ÆON", "naive cafe on"),
        ("well-known — dash", "well known dash"),
        ("salt & pepper", "salt and pepper"),
        ("ﬁne", "fine"),
        ("  spaces\t\nand lines ", "spaces and lines"),
        ("room 101", "room"),
        ("...", ""),
        ("", ""),
    ],
)
def test_a_transcript_becomes_plain_words(text, words):
    assert normalise_text(text) == words


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=st.text(max_size=40))
def test_plain_words_can_be_spelled_and_stay_plain(text):
    words = normalise_text(text)
    assert normalise_text(words) == words
    assert LETTERS.decode(LETTERS.encode(words)) == words


def test_words_are_spelled_in_pieces():
    ids = LETTERS.encode("it's on")
    assert [CHARACTERS[i] for i in ids] == ["i", "t", "'", "s", WORD_BREAK, "o", "n"]


def test_pieces_longer_than_a_letter_join_to_words():
    vocabulary = Vocabulary((BLANK, WORD_BREAK, "the", "re", f"{WORD_BREAK}is"))
    assert vocabulary.decode([2, 3, 4, 1, 2]) == "there is the"
    assert vocabulary.decode([1, 2, 1]) == "the"
    assert vocabulary.decode([]) == ""


def test_the_word_break_is_found_where_it_stands():
    assert LETTERS.word_break == 1
    assert Vocabulary((BLANK, "a", WORD_BREAK)).word_break == 2
    assert len(LETTERS) == 29


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ((), "must begin with '<blank>'"),
        (("a", BLANK, WORD_BREAK), "must begin with '<blank>'"),
        ((BLANK, "a"), "lacks the word break '▁'"),
        ((BLANK, WORD_BREAK, "a", "a"), "has the same piece twice"),
    ],
)
def test_wrong_pieces_are_refused(pieces, message):
    with pytest.raises(ConfigError, match=message):
        Vocabulary(pieces)
