"""Written words as they are read aloud: a sentence a case."""

import pytest

from audiossm.lexicon import Lexicon
from audiossm.pronouncer import Pronouncer
from audiossm.script import ScriptReader, say
from audiossm.spoken import say_word, waits


def read(text):
    """What is said for a text, whose words all see their neighbours."""
    words = text.split()
    spoken = [
        say_word(word, before, after if waits(word) else "")
        for word, before, after in zip(words, ["", *words], [*words[1:], ""], strict=False)
    ]
    return " ".join(plain for word in spoken for plain in say(word)[0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It costs $3.50, or £20.", "it costs three dollars and fifty cents or twenty pounds"),
        ("$1 and $0.99 and £2.01", "one dollar and ninety nine cents and two pounds and one penny"),
        ("about $5 million", "about five million dollars"),
        ("$.50, 50¢ or 5$", "fifty cents fifty cents or five dollars"),
        ("Dec 25 or Sept 11, in Mar", "december twenty fifth or september eleventh in mar"),
        ("31.12.2023", "december thirty first twenty twenty three"),
        ("on p. 12 and pp. 3-5", "on page twelve and pages three to five"),
        (
            "St. James St. in St. Louis, Main St.",
            "saint james street in saint louis main street",
        ),
        (
            "(800) 555-0199 (800) times",
            "eight zero zero five five five zero one nine nine eight hundred times",
        ),
        ("30 m² of x² y³ (5²)", "thirty square meters of x squared y cubed five squared"),
        ("$2.5bn, 5 € and ¥500", "two point five billion dollars five euros and five hundred yen"),
        ("at 3:45 pm or 7:05", "at three forty five p m or seven o five"),
        ("10:00, 5pm, 10:00 am", "ten o'clock five p m ten a m"),
        ("I am here", "i am here"),
        ("the 15:30 train", "the fifteen thirty train"),
        ("Jan. 5, 2024", "january fifth twenty twenty four"),
        ("January 21 and May I go", "january twenty first and may i go"),
        ("I met Jan. She left.", "i met jan she left"),
        ("12/25/2024", "december twenty fifth twenty twenty four"),
        ("1999-03-01", "march first nineteen ninety nine"),
        (
            "in 2023 we had 2023 guests",
            "in twenty twenty three we had two thousand twenty three guests",
        ),
        ("the 1990s and '80s", "the nineteen nineties and eighties"),
        ("1914-1918, pages 10-15", "nineteen fourteen to nineteen eighteen pages ten to fifteen"),
        ("a score of 2-1", "a score of two to one"),
        ("25% and 3.5 %", "twenty five percent and three point five percent"),
        ("3.14159", "three point one four one five nine"),
        (
            "1,234.5 or -5 or 0.05",
            "one thousand two hundred thirty four point five or minus five or zero point zero five",
        ),
        ("10 km, 1 kg and 5ml", "ten kilometers one kilogram and five milliliters"),
        (
            "72°F, -5°C, 60 mph",
            "seventy two degrees fahrenheit minus five degrees celsius sixty miles an hour",
        ),
        ("6'2\" or 5 ft", "six foot two or five feet"),
        ("16GB at 3.2GHz", "sixteen gigabytes at three point two gigahertz"),
        ("a 10-year plan for 5G", "a ten year plan for five g"),
        ("10M users", "ten million users"),
        ("1/2 cup, 3/4 full", "one half cup three quarters full"),
        ("2½ hours, ¾ full", "two and a half hours three quarters full"),
        ("24/7 since 9/11", "twenty four seven since nine eleven"),
        ("the 21st, 22nd and 103rd", "the twenty first twenty second and one hundred third"),
        ("Henry VIII in World War II", "henry the eighth in world war two"),
        ("Chapter IV, I said", "chapter four i said"),
        (
            "555-1234, 800-555-0199",
            "five five five one two three four eight zero zero five five five zero one nine nine",
        ),
        ("agent 007", "agent zero zero seven"),
        ("3,000,000,000 and 1.5 trillion", "three billion and one point five trillion"),
        ("version 1.2.3", "version one point two point three"),
        ("anna.smith42@example.com", "anna dot smith forty two at example dot com"),
        ("https://www.example.org/help.", "w w w dot example dot org slash help"),
        ("see example.co.uk", "see example dot co dot uk"),
        ("AT&T & co", "at and t and co"),
        ("#1 and #music", "number one and hashtag music"),
        ("No. 5 is alive. No. I know.", "number five is alive no i know"),
        ("Mr. Jones vs. Ms. Smith, Ph.D.", "mister jones versus miz smith p h d"),
        ("Acme Inc. and Co.", "acme incorporated and company"),
        ("2+2=4, 3 × 4", "two plus two equals four three times four"),
        ("(about 5%)", "about five percent"),
        ("well-known don't 'quoted'", "well known don't quoted"),
        ("a 1920x1080 screen", "a nineteen twenty by one thousand eighty screen"),
    ],
)
def test_sentences_are_read_as_people_read_them(text, said):
    assert read(text) == said


@pytest.mark.parametrize("word", ["!" * 100_000 + "a", "$" + "9" * 5000, "1," * 3000, "a" * 5000])
def test_what_nobody_reads_aloud_is_left_as_it_is(word):
    assert say_word(word) == word


def test_a_text_is_read_the_same_however_it_is_cut():
    letters = {char: "ə" for char in "abcdefghijklmnopqrstuvwxyz"}
    words = "it costs five million dollars number no january fifth i know ten a m o'clock".split()
    pronouncer = Pronouncer(Lexicon(letters | dict.fromkeys(words, "ə")))
    text = "It costs $5 million. No. 5 I know Jan. 5 10:00 am 10:00"

    def run(size):
        reader = ScriptReader(pronouncer)
        scripts = [reader.push(text[at : at + size]) for at in range(0, len(text), size)]
        scripts.append(reader.finish())
        assert not any(script.skipped for script in scripts)
        return (
            [word for script in scripts for word in script.words],
            [unit for script in scripts for unit in script.units],
        )

    whole = run(len(text))
    assert whole[0] == text.split()
    for size in (1, 2, 3, 7):
        assert run(size) == whole
    marks = [unit.symbol for unit in whole[1] if unit.is_pause]
    assert marks == ["_", ".", "."]  # "No. 5" has none
