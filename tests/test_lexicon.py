"""The lexicon: words as they are said in sentences."""

import ctypes.util
import json
import lzma
import subprocess
import sys
from pathlib import Path

import pytest

from audiossm import lexicon
from audiossm.checkpoint import ModelFolder, model_names
from audiossm.decoding.ngram import NgramModel
from audiossm.errors import ModelError
from audiossm.lexicon import PHONES, WAYS_FILE, Lexicon, drop_stress, shipped_lexicon
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


def test_a_word_may_be_said_in_several_ways():
    ways = dict(Lexicon.load().ways("the"))
    assert list(ways) == [("ð", "ə"), ("ð", "ɪ")]
    assert sum(ways.values()) == pytest.approx(1) and ways["ð", "ə"] > ways["ð", "ɪ"] > 0.1
    assert Lexicon.load().ways("hello") == ((("h", "ə", "l", "oʊ"), 1.0),)
    assert Lexicon.load().ways("audiossm") == ()


def test_its_hash_tells_any_other_pronunciation_apart():
    lexicons = [Lexicon({"a": "ɐ"}, ways) for ways in ({}, {"a": "3 eɪ"}, {"a": "4 eɪ"})]
    lexicons += [Lexicon({"a": "eɪ"}), Lexicon({"b": "ɐ"})]
    assert len({lexicon.hash for lexicon in lexicons}) == 5
    assert Lexicon({"a": "ɐ"}).hash == lexicons[0].hash


def test_all_ways_are_of_its_words_in_its_phones():
    data = shipped_lexicon().with_name(WAYS_FILE).read_bytes()
    lines = lzma.decompress(data).decode().splitlines()
    assert len(lines) > 200 and len(data) < 1e5
    for line in lines:
        word = line.split("\t")[0]
        assert Lexicon.load().pronounce(word) is not None
        assert {phone for way, _ in Lexicon.load().ways(word) for phone in way} <= set(PHONES)


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


@pytest.mark.skipif(ctypes.util.find_library("espeak-ng") is None, reason="needs libespeak-ng")
def test_ways_are_counted_also_of_words_that_are_said_as_one(tmp_path):
    manifest, out = tmp_path / "talk.jsonl", tmp_path / "ways.txt.xz"
    texts = ["it is far away", "far be it", "it is far", "wait for me", "wait for a day", "a day"]
    rows = ({"key": str(i), "text": text, "path": "x.wav"} for i, text in enumerate(texts))
    manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    command = [sys.executable, TOOL.with_name("make_ways.py"), manifest, "--out", out]
    subprocess.run([*command, "--least", "1"], check=True)
    lines = dict(line.split("\t", 1) for line in lzma.open(out, "rt", encoding="utf-8"))
    assert lines["far"] == "2 f ɑːɹ\t1 f ɑː ɹ\n"
    assert "1 f ɚ" in lines["for"]
