"""LibriSpeech's folders become a manifest of the utterances that were asked for."""

import importlib.util
import sys
from pathlib import Path

import pytest

from audiossm.manifest import read_manifest

RECIPE = Path(__file__).parents[2] / "recipes" / "transcribe"
IDS = RECIPE / "eval-librispeech-clean-200.txt"


@pytest.fixture
def make(monkeypatch):
    spec = importlib.util.spec_from_file_location("make_manifest", RECIPE / "make_manifest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["make_manifest.py", *map(str, arguments)])
        module.main()

    return run


@pytest.fixture
def librispeech(tmp_path):
    chapter = tmp_path / "test-clean" / "1089" / "134686"
    chapter.mkdir(parents=True)
    lines = [f"1089-134686-000{i} TEXT NUMBER {word}\n" for i, word in enumerate(("ONE", "TWO"))]
    (chapter / "1089-134686.trans.txt").write_text("".join(lines))
    return tmp_path / "test-clean"


def test_the_utterances_asked_for_in_their_order(make, librispeech, tmp_path):
    ids = tmp_path / "ids.txt"
    ids.write_text("1089-134686-0001\n1089-134686-0000\n")
    make(librispeech, "--out", tmp_path / "a.jsonl", "--ids", ids)
    first, second = read_manifest(tmp_path / "a.jsonl")
    assert (first.key, first.text) == ("1089-134686-0001", "TEXT NUMBER TWO")
    assert first.path == librispeech / "1089" / "134686" / "1089-134686-0001.flac"
    assert (second.speaker, second.source) == ("libri_1089", "librispeech/test-clean")
    make(librispeech, "--out", tmp_path / "all.jsonl")
    assert len(read_manifest(tmp_path / "all.jsonl")) == 2


def test_what_is_missing_is_told(make, librispeech, tmp_path, capsys):
    with pytest.raises(SystemExit):
        make(librispeech, "--out", tmp_path / "a.jsonl", "--ids", IDS)
    assert "has 2 transcripts and lacks 200 of 200 utterances" in capsys.readouterr().err
    assert not (tmp_path / "a.jsonl").exists()


def test_the_evaluation_names_200_utterances_of_40_speakers():
    ids = IDS.read_text().split()
    assert len(set(ids)) == 200
    assert len({key.split("-")[0] for key in ids}) == 40
