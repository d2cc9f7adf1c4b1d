"""Text as it is read aloud: numbers and abbreviations in words."""

import pytest

from audiossm.aloud import say_numbers, spell_number, write_out


@pytest.mark.parametrize(
    ("digits", "ordinal", "words"),
    [
        ("0", False, "zero"),
        ("40", False, "forty"),
        ("1,812", False, "one thousand eight hundred twelve"),
        ("1812", False, "eighteen twelve"),
        ("1900", False, "nineteen hundred"),
        ("2000000", False, "two million"),
        ("12", True, "twelfth"),
        ("30", True, "thirtieth"),
        ("101", True, "one hundred first"),
        ("1000000000", False, ""),
    ],
)
def test_numbers_are_spelled(digits, ordinal, words):
    assert spell_number(digits, ordinal) == words


def test_numbers_and_abbreviations_in_a_text_are_replaced():
    text = say_numbers(write_out("Mr. Hale was 21st of 1,200, i.e. late."))
    assert (
        text.split()
        == "mister Hale was twenty first of one thousand two hundred , that is late.".split()
    )
