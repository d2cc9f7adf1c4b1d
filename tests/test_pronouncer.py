"""Pronunciations: the lexicon's where it has a word, the model's elsewhere."""

import subprocess
import sys

import pytest

from audiossm.errors import ModelError, PronunciationError
from audiossm.lexicon import Lexicon
from audiossm.models import shipped_sounder
from audiossm.pronouncer import Pronouncer, Pronunciation, split_words
from tiny_sounder import make_sounder

LEXICON = Lexicon({"hello": "h ə l ˈoʊ", "a": "ɐ"})


@pytest.fixture
def pronouncer() -> Pronouncer:
    return Pronouncer(LEXICON, make_sounder())


def test_known_words_come_from_the_lexicon_and_others_from_the_model(pronouncer):
    said = pronouncer.pronounce("Hello, antonym! hello")
    assert said[0] == said[2] == Pronunciation("hello", ("h", "ə", "l", "ˈoʊ"), "lexicon")
    assert said[1] == Pronunciation("antonym", make_sounder().pronounce(["antonym"])[0], "model")


def test_known_words_need_no_model():
    code = (
        "import sys\n"
        "from audiossm import Pronouncer\n"
        "(word,) = Pronouncer.load().pronounce('hello')\n"
        "assert word.phones == ('h', 'ə', 'l', 'ˈoʊ'), word\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("naïve twenty-one", "naive twenty one"),
        ("Mr. O’Neill's 21st", "mister o'neill's twenty first"),
        ("the BBC in the U.S.A. in 1812", "the b b c in the u s a in eighteen twelve"),
        ("NATO is AN e.g.", "nato is an for example"),
    ],
)
def test_a_text_is_parted_into_the_words_that_are_said(text, words):
    assert " ".join(split_words(text)) == words


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there are no words"),
        ("—!", "there are no words"),
        ("так so", "'т' of .* is not one of the letters a to z"),
        ("1,000,000,000", "too large"),
        ("1" * 5000, r"1{40}\.\.\. is too large"),
        ("a" * 65, "65 letters: at most 64"),
    ],
)
def test_what_cannot_be_said_is_refused(pronouncer, text, message):
    with pytest.raises(PronunciationError, match=message) as caught:
        pronouncer.pronounce(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("word", ["", "Hello", "two words", "'tis", "3"])
def test_plain_words_must_be_plain(pronouncer, word):
    with pytest.raises(PronunciationError, match="is not one plain word"):
        pronouncer.pronounce_words([word])


def test_an_installation_without_a_model_still_has_the_lexicon(monkeypatch):
    monkeypatch.setattr("audiossm.checkpoint.model_names", lambda: [])
    pronouncer = Pronouncer(LEXICON)
    assert pronouncer.pronounce("hello")[0].source == "lexicon"
    with pytest.raises(ModelError, match="no sounder is shipped"):
        pronouncer.pronounce("hallo")


@pytest.mark.skipif(shipped_sounder() is None, reason="no sounder in assets/models yet")
@pytest.mark.parametrize(
    ("word", "phones"), [("blimbering", "b l ˈɪ m b ɚ ɹ ɪ ŋ"), ("zyzzyvas", "z ˈɪ z ɪ v ə z")]
)
def test_the_shipped_model_says_words_that_nobody_taught_it(word, phones):
    assert Pronouncer.load().pronounce(word) == (
        Pronunciation(word, tuple(phones.split()), "model"),
    )
