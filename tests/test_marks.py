"""Written text is taken apart into plain words, cases and marks, and put together again."""

import pytest

from audiossm.marks import CAPITAL, LOWER, MARKS, UPPER, read_marks, spell
from audiossm.text import normalise_text


def again(text: str) -> str:
    return " ".join(spell(word, case) + MARKS[mark] for word, case, mark in read_marks(text))


@pytest.mark.parametrize(
    "text",
    [
        "Did Anna see the TV, or not? I don't know.",
        "Mr. Smith met Mrs. O'Brien in New York.",
        "I'm OK.",
    ],
)
def test_plain_sentences_come_back_as_they_were(text):
    assert again(text) == text


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("What! one of them -- oh no!", "What, one of them, oh no."),
        ("Stop! He said: wait; then go.", "Stop. He said, wait, then go."),
        ('"Yes," he (Tom) said.', "Yes, he Tom said."),
        ("By-and-by it's late...", "By and by it's late."),
        ("Well... maybe", "Well, maybe"),
        ("J. Smith, i.e. the boss, left.", "J Smith, i e the boss, left."),
        ("It was I. He knew.", "It was I. He knew."),
        ("I am sure.Maybe not.", "I am sure. Maybe not."),
        ("Dr. Who and the Col. met.", "Doctor Who and the Colonel met."),
        ("Café ’tis", "Cafe tis"),
        ("a - b", "a, b"),
        ("...", ""),
    ],
)
def test_other_signs_become_these(text, result):
    assert again(text) == result


def test_words_are_those_of_plain_text():
    text = "The 'ap'ny isn't Tom & Jerry's, O’Neill -- see?"
    assert " ".join(item.word for item in read_marks(text)) == normalise_text(text)


def test_cases_are_three():
    assert [item.case for item in read_marks("an Apple USA I I'm iPhone")] == [
        LOWER, CAPITAL, UPPER, CAPITAL, CAPITAL, LOWER,
    ]  # fmt: skip
