"""``audiossm transcribe`` writes as people do, and plain words with ``--raw``."""

import json
import re

import pytest

from audiossm.models import save_recogniser, save_writer
from audiossm.streaming import Session, Transcriber, Word, WrittenWord
from audiossm_apps import transcribe
from audiossm_apps.cli import main
from tiny_model import SPEECH, make_transcriber
from tiny_writer import make_writer

RIVER = str(SPEECH / "river.flac")


@pytest.fixture(autouse=True)
def model(monkeypatch):
    """The tiny models in the place of the shipped ones."""
    fake = make_transcriber()

    def load(name=None, *, readable=False, **options):
        monkeypatch.setattr(fake, "writer", make_writer() if readable else None)
        return fake

    monkeypatch.setattr(Transcriber, "load", load)
    return fake


def run(capsys, *options: str) -> str:
    assert main(["transcribe", RIVER, *options]) == 0
    return capsys.readouterr().out


def test_json_has_both_forms_of_each_word(capsys):
    raw = json.loads(run(capsys, "--format", "json", "--raw"))
    found = json.loads(run(capsys, "--format", "json"))
    assert found["text"] != raw["text"]
    assert found["text"] == " ".join(word["text"] for word in found["words"])
    assert raw["text"] == " ".join(word["word"] for word in found["words"])
    assert list(found["words"][0]) == ["word", "text", "start_s", "end_s", "confidence"]
    assert list(raw["words"][0]) == ["word", "start_s", "end_s", "confidence"]
    assert found["words"][-1]["end_s"] == raw["words"][-1]["end_s"]


def test_text_and_subtitles_are_readable_and_live_is_the_same(capsys):
    text = json.loads(run(capsys, "--format", "json"))["text"]
    assert run(capsys) == run(capsys, "--live") == f"{text}\n"
    subtitles = run(capsys, "--format", "srt").split("\n\n")
    lines = [line for cue in subtitles for line in cue.strip().split("\n")[2:]]
    assert " ".join(lines) == text


def test_ctrl_c_keeps_words_that_nobody_wrote_yet(monkeypatch, capsys):
    whole = json.loads(run(capsys, "--format", "json"))["words"]
    push, seen = Session.push, [0]

    def press(session, samples):
        seen[0] += len(samples)
        if seen[0] > 40000:
            raise KeyboardInterrupt
        return push(session, samples)

    monkeypatch.setattr(Session, "push", press)
    told = []
    monkeypatch.setattr(transcribe, "make_writer", lambda *a, **k: Collect(told))
    assert main(["transcribe", RIVER, "--live"]) == 130
    words = " ".join(item.word for item in told)
    assert isinstance(told[0], WrittenWord) and isinstance(told[-1], Word)
    assert " ".join(word["word"] for word in whole).startswith(words)


class Collect:
    """A writer of transcripts that keeps their words."""

    def __init__(self, told: list[Word | WrittenWord]) -> None:
        self.told = told
        self.word = told.append

    def token(self, token) -> None:
        pass

    def done(self, name, transcript) -> None:
        assert [*transcript.words] == self.told

    def close(self) -> None:
        pass


def test_on_a_terminal_words_appear_plain_first(monkeypatch, capsys):
    text = run(capsys)
    monkeypatch.setattr(transcribe.sys.stdout, "isatty", lambda: True)
    out = run(capsys, "--live")
    # what doesn't fit on the line any more begins another one
    words, plain = text.split(), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", " ", out)
    assert plain.split()[-1] == words[-1] and " ".join(words[-3:-1]) in plain
    raw = run(capsys, "--raw", "--format", "json")
    assert any(word["word"] in out for word in json.loads(raw)["words"])


def test_a_transcriber_is_readable_if_asked(tmp_path, monkeypatch):
    monkeypatch.undo()
    save_recogniser(tmp_path / "ear", "", make_transcriber().network)
    save_writer(tmp_path / "hand", "", make_writer().network)
    ear = tmp_path / "ear"
    plain = Transcriber.load(ear)
    assert plain.writer is None
    readable = Transcriber.load(ear, readable=tmp_path / "hand")
    transcript = readable.transcribe(RIVER)
    assert all(isinstance(word, WrittenWord) for word in transcript.words)
    assert transcript.text == " ".join(word.text for word in transcript.words)
    raw = plain.transcribe(RIVER)
    assert raw.text == " ".join(word.word for word in transcript.words) != transcript.text
    monkeypatch.setattr("audiossm.streaming.transcriber.shipped_writer", lambda: None)
    assert Transcriber.load(ear, readable=True).writer is None
    monkeypatch.setattr(
        "audiossm.streaming.transcriber.shipped_writer", lambda: str(tmp_path / "hand")
    )
    loaded = Transcriber.load(ear, readable=True).writer
    assert loaded is not None and loaded.name == "hand"
