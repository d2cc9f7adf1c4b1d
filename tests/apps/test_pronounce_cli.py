"""``audiossm pronounce`` and ``audiossm evaluate pronounce``."""

import json

import pytest

from audiossm.lexicon import Lexicon
from audiossm.models import LoadedSounder
from audiossm_apps.cli import main
from tiny_sounder import make_sounder


@pytest.fixture(autouse=True)
def models(monkeypatch):
    """A lexicon of one word, and the tiny model."""
    monkeypatch.setattr(Lexicon, "load", lambda: Lexicon({"hello": "h ə l ˈoʊ"}))
    monkeypatch.setattr(LoadedSounder, "load", lambda name=None: make_sounder())


def test_a_line_for_each_word(capsys):
    assert main(["pronounce", "Hello", "tan hello"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == lines[2] == ["hello", "h ə l ˈoʊ", "lexicon"]
    assert lines[1] == ["tan", " ".join(make_sounder().pronounce(["tan"])[0]), "model"]


def test_json_lines(capsys):
    assert main(["pronounce", "hello", "--format", "jsonl"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "word": "hello",
        "phones": ["h", "ə", "l", "ˈoʊ"],
        "source": "lexicon",
    }


def test_bad_input_is_one_line(capsys):
    assert main(["pronounce", "hello", "ж"]) == 1
    done = capsys.readouterr()
    assert not done.out and done.err.count("\n") == 1
    assert done.err.startswith("audiossm: error: 'ж' of 'hello ж' is not one of the letters")


def test_an_evaluation_counts_the_models_errors(tmp_path, capsys):
    words = ["tan", "nat", "ant"]
    said = make_sounder().pronounce(words)
    said[2] = (*said[2], "x")
    lines = [f"{word}\t{' '.join(row)}\n" for word, row in zip(words, said, strict=True)]
    path = tmp_path / "words.txt"
    path.write_text("".join(lines), encoding="utf-8")
    assert main(["evaluate", "pronounce", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "tiny-sounder"
    assert found["stressed"]["errors"] == 1 and found["stressed"]["right"] == 2
    assert found["plain"]["phones"] == sum(map(len, said))
    assert main(["evaluate", "pronounce", str(path)]) == 0
    assert "66.7" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no pronunciations in it"),
        ("tan\tt æ n\nTan\tt æ n\n", ":2: not a plain word"),
        ("tan\n", ":1: not a plain word"),
        (None, "can't read these pronunciations"),
    ],
)
def test_a_bad_file_of_pronunciations_is_refused(tmp_path, capsys, text, message):
    path = tmp_path / "words.txt"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert main(["evaluate", "pronounce", str(path)]) == 1
    assert message in capsys.readouterr().err
