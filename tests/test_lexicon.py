"""The lexicon: words as they are said in sentences."""

import ctypes.util
import lzma
import subprocess
import sys
from pathlib import Path

import pytest

from audiossm import lexicon
from audiossm.checkpoint import ModelFolder, model_names
from audiossm.decoding.ngram import NgramModel
from audiossm.errors import ModelError
from audiossm.lexicon import PHONES, Lexicon, drop_stress, shipped_lexicon
from audiossm.text import normalise_text

TOOL = Path(__file__).parent.parent / "recipes" / "transcribe" / "make_lexicon.py"


@pytest.fixture
def damaged(tmp_path, monkeypatch):
    """Put a file of these bytes in the lexicon's place."""

    def write(data: bytes) -> None:
        path = tmp_path / "lexicon.txt.xz"
        path.write_bytes(data)
        monkeypatch.setattr(lexicon, "shipped_lexicon", lambda: path)

    Lexicon.load.cache_clear()
    yield write
    Lexicon.load.cache_clear()


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("hello", "h ə l ˈoʊ"),
        ("don't", "d ˈoʊ n t"),
        ("international", "ˌɪ n t ɚ n ˈæ ʃ ə n əl"),
        # as in sentences, not as the word alone, "eɪ" and "t uː"
        ("a", "ɐ"),
        ("to", "t ə"),
    ],
)
def test_a_word_is_pronounced(word, phones):
    assert Lexicon.load().pronounce(word) == tuple(phones.split())


@pytest.mark.parametrize("word", ["", "audiossm", "Hello", "#", "# Pronunciations"])
def test_what_is_no_word_of_it_has_no_phones(word):
    assert Lexicon.load().pronounce(word) is None


def test_every_line_is_a_plain_word_with_phones():
    lines = lzma.decompress(shipped_lexicon().read_bytes()).decode().splitlines()
    entries = [line.split("\t") for line in lines if not line.startswith("#")]
    assert len(entries) == len(Lexicon.load()) > 70000
    for word, phones in entries:
        assert normalise_text(word) == word
        assert phones and phones == " ".join(phones.split())
        assert set(drop_stress(phones.split())) <= set(PHONES), word


def test_every_word_of_the_language_model_but_a_few_foreign_ones_is_in_it():
    lexicon = Lexicon.load()
    missing = [word for word in NgramModel.load().lexicon if lexicon.pronounce(word) is None]
    assert len(missing) < 20, missing


def test_its_phones_are_those_that_the_recogniser_knows():
    folders = [ModelFolder.open(name) for name in model_names()]
    for folder in (folder for folder in folders if folder.kind == "recogniser"):
        assert set(folder.config["recogniser"]["phones"]) == set(PHONES)


def test_stress_can_be_left_out():
    assert drop_stress(["ˌɪ", "n", "ˈæ"]) == ("ɪ", "n", "æ")


def test_it_says_how_it_was_made_and_is_small():
    data = shipped_lexicon().read_bytes()
    assert len(data) < 1.5e6
    assert "make_lexicon.py" in lzma.decompress(data).decode().split("\na\t")[0]


def test_it_is_read_once():
    assert Lexicon.load() is Lexicon.load()


@pytest.mark.parametrize(
    "data", [b"", b"junk", lzma.compress(b"word without a tab\n"), lzma.compress(b"\xff\tn\n")]
)
def test_a_damaged_lexicon_is_refused(damaged, data):
    damaged(data)
    with pytest.raises(ModelError, match="can't read this lexicon"):
        Lexicon.load()


def test_a_missing_lexicon_is_refused(damaged, tmp_path):
    damaged(b"")
    (tmp_path / "lexicon.txt.xz").unlink()
    with pytest.raises(ModelError, match="can't read this lexicon"):
        Lexicon.load()


@pytest.mark.skipif(ctypes.util.find_library("espeak-ng") is None, reason="needs libespeak-ng")
def test_a_lexicon_is_made_of_what_is_said_in_sentences(tmp_path):
    text, manifest = tmp_path / "text.txt", tmp_path / "talk.jsonl"
    text.write_text("It is a hat.\nThis is a red hat!\nonce\n", encoding="utf-8")
    manifest.write_text('{"key": "a", "path": "a.wav", "text": "The kettle"}\n', encoding="utf-8")
    out = tmp_path / "made.txt.xz"
    command = [sys.executable, str(TOOL), str(text), str(manifest), "--out", str(out)]
    subprocess.run([*command, "--about", "of a test"], check=True, capture_output=True)
    lines = lzma.decompress(out.read_bytes()).decode().splitlines()
    assert lines[3].endswith("Words: of a test.")
    # "once" was seen once in a text, "kettle" once in a manifest; "a" alone would be "eɪ"
    assert dict(line.split("\t") for line in lines[4:]) == {
        "a": "ɐ",
        "hat": "h ˈæ t",
        "is": "ɪ z",
        "kettle": "k ˈɛ ɾ əl",
        "the": "ð ə",
    }
