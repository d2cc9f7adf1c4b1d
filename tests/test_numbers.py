"""Spoken numbers in digits: what is written, what stays in words, and what is waited for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiossm.marks import CAPITAL, COMMA, LOWER, STOP, MarkedWord
from audiossm.numbers import MAX_RUN, write_number

NUMBER_WORDS = (
    "zero one two three nine ten eleven fifteen nineteen twenty thirty ninety hundred thousand "
    "million and point oh first third tenth twentieth hundredth percent dollars per cent p m a at "
    "may cats o'clock eighties"
).split()


def marked(text: str) -> list[MarkedWord]:
    """``march five.`` as words: a comma or a full stop is a mark, a capital a case."""
    words = []
    for word in text.split():
        mark = {",": COMMA, ".": STOP}.get(word[-1], 0)
        plain = word.rstrip(",.")
        words.append(MarkedWord(plain.lower(), CAPITAL if plain[0].isupper() else LOWER, mark))
    return words


def write(text: str) -> str:
    """Write a whole text, one number after the other."""
    words, pieces, before = marked(text), [], None
    spelled = text.split()
    while words:
        found = write_number(words, before, ended=True)
        assert found is not None
        count = sum(piece.num_words for piece in found) or 1
        done = len(spelled) - len(words)
        pieces += [piece.text for piece in found] or [spelled[done]]
        before, words = words[count - 1], words[count:]
    return " ".join(pieces)


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("twenty three", "23"),
        ("ten", "10"),
        ("nineteen", "19"),
        ("one hundred", "100"),
        ("one hundred and one", "101"),
        ("two hundred thirty", "230"),
        ("two thousand", "2000"),
        ("two thousand and five", "2005"),
        ("two thousand nineteen", "2019"),
        ("twelve thousand three hundred and forty five", "12,345"),
        ("one hundred and two thousand", "102,000"),
        ("two million", "2 million"),
        ("two million five hundred thousand", "2,500,000"),
        ("three point five", "3.5"),
        ("three point one four", "3.14"),
        ("zero point oh five", "0.05"),
        ("six point twenty five", "6.25"),
        ("three point five million", "3.5 million"),
        ("nineteen eighty four", "1984"),
        ("nineteen oh five", "1905"),
        ("nineteen hundred", "1900"),
        ("twenty twenty", "2020"),
        ("twenty twenty four", "2024"),
        ("fourteen ninety two", "1492"),
        ("nineteen eighties", "1980s"),
        ("twenty first", "21st"),
        ("twelfth", "12th"),
        ("thirteenth", "13th"),
        ("twentieth", "20th"),
        ("one hundred and third", "103rd"),
        ("two hundredth", "200th"),
        ("five five five one two one two", "5551212"),
        ("four oh four", "404"),
        ("five dollars", "$5"),
        ("two million dollars", "$2 million"),
        ("fifty percent", "50%"),
        ("five per cent", "5%"),
        ("seven o'clock", "7 o'clock"),
        ("five degrees", "5 degrees"),
        ("five p m", "5 p.m."),
        ("five p m.", "5 p.m."),
        ("five thirty a m,", "5:30 a.m.,"),
        ("at five thirty", "at 5:30"),
        ("March third", "March 3rd"),
        ("May twenty first", "May 21st"),
        ("ten to fifteen", "10 to 15"),
        ("Twenty three.", "23."),
        ("room four twenty three", "room 4 23"),
    ],
)
def test_a_number_is_written_in_digits(said, written):
    assert write(said) == written


@pytest.mark.parametrize(
    "said",
    [
        "one",
        "nine cats",
        "one or two",
        "one two",
        "the first",
        "no one",
        "a hundred",
        "a hundred and fifty",
        "two thirds",
        "one third",
        "one tenth",
        "may first",
        "the eighties",
        "at one point",
        "Two, three, four,",
        "zero",
    ],
)
def test_what_is_no_plain_number_stays_in_words(said):
    assert write(said) == said


def test_an_and_between_two_numbers_parts_them():
    assert write("one hundred and two hundred") == "100 and 200"
    assert write("one thousand and two thousand") == "1000 and 2000"
    assert write("ten and") == "10 and"


def test_a_mark_ends_a_number():
    assert write("twenty, three") == "20, three"
    assert write("twenty. three") == "20. three"
    assert write("five, percent") == "five, percent"


@pytest.mark.parametrize(
    ("said", "waits"),
    [
        ("twenty", True),
        ("twenty cats", False),
        ("twenty.", False),
        ("one hundred and", True),
        ("three point", True),
        ("five p", True),
        ("five per", True),
        ("five p m", False),
        ("first", False),
        ("cats", False),
        ("one " * (MAX_RUN - 1), True),
        ("one " * MAX_RUN, False),
    ],
)
def test_a_number_waits_until_it_can_be_told(said, waits):
    assert (write_number(marked(said), None, ended=False) is None) == waits
    assert write_number(marked(said), None, ended=True) is not None


@given(st.lists(st.sampled_from(NUMBER_WORDS), min_size=1, max_size=30))
def test_pieces_cover_words_and_more_words_change_nothing_told(words):
    items = [MarkedWord(word, LOWER, 0) for word in words]
    told = write_number(items, None, ended=True)
    assert told is not None
    assert sum(piece.num_words for piece in told) <= len(items)
    for size in range(1, len(items) + 1):
        early = write_number(items[:size], None, ended=False)
        if early is not None:
            assert early == told
