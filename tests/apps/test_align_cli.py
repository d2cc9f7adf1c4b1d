"""``audiossm align`` as a person meets it: formats, warnings, bad input."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from audiossm.lexicon import Lexicon
from audiossm.models import SpikeOffsets
from audiossm.streaming import Transcriber
from audiossm_apps.cli import main
from tiny_model import make_transcriber, read_speech

TEXT = "Ant, tan!"


@pytest.fixture
def model(monkeypatch) -> Transcriber:
    """A random model with the phones a, n, t: nothing fits it, but everything can be aligned."""
    monkeypatch.setattr(Lexicon, "load", lambda: Lexicon({"ant": "a n t", "tan": "t a n"}))
    tiny = make_transcriber()
    zeros = (0.0, 0.0, 0.0)
    offsets = SpikeOffsets(
        letters_start=zeros,
        letters_end=zeros,
        phones_start=zeros,
        phones_end=zeros,
        phones_inner=zeros,
    )
    model = Transcriber(tiny.network, name="tiny", model_hash=tiny.hash, offsets=offsets)
    monkeypatch.setattr(Transcriber, "load", lambda name=None, **options: model)
    monkeypatch.setattr("audiossm.streaming.aligner.MAX_MISFIT", np.inf)
    return model


@pytest.fixture
def talk(tmp_path) -> str:
    soundfile.write(tmp_path / "talk.wav", read_speech(), 16000)
    return str(tmp_path / "talk.wav")


@pytest.fixture
def text(tmp_path) -> str:
    (tmp_path / "talk.txt").write_text(f"{TEXT}\n", encoding="utf-8")
    return str(tmp_path / "talk.txt")


def test_json_has_words_and_phones(model, talk, text, capsys):
    assert main(["align", talk, text]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert err == ""
    assert list(result) == ["text", "duration_s", "model", "misfit", "phones", "words"]
    assert (result["text"], result["model"], result["phones"]) == (f"{TEXT}\n", "tiny", "ipa")
    assert result["duration_s"] == round(len(read_speech()) / 16000, 3)
    expected = model.align(read_speech(), TEXT)
    for word, found in zip(expected.words, result["words"], strict=True):
        assert list(found) == ["word", "start_s", "end_s", "confidence", "phones"]
        assert found["word"] == word.word
        assert found["start_s"] == pytest.approx(word.start_s, abs=6e-4)
        assert found["end_s"] == pytest.approx(word.end_s, abs=6e-4)
        assert found["confidence"] == pytest.approx(word.confidence, abs=6e-5)
        assert [phone["phone"] for phone in found["phones"]] == list(word.word.lower()[:3])
        assert list(found["phones"][0]) == ["phone", "start_s", "end_s", "confidence"]
        assert found["phones"][-1]["end_s"] == found["end_s"]


def test_a_model_without_phones_says_so(model, talk, capsys, monkeypatch):
    plain = model.align(talk, TEXT, phones=False)
    monkeypatch.setattr(model, "align", lambda *args, **kwargs: plain)
    assert main(["align", talk, "--text", TEXT]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["phones"] is None
    assert [word["phones"] for word in result["words"]] == [None, None]
    assert main(["align", talk, "--text", TEXT, "--format", "textgrid"]) == 0
    assert "size = 1\nitem []" in capsys.readouterr().out


def test_tsv_is_a_line_for_each_word_and_phone(model, talk, text, capsys):
    assert main(["align", talk, text, "--format", "tsv"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["kind", "start_s", "end_s", "text", "confidence"]
    assert [(line[0], line[3]) for line in lines[1:]] == [
        *[("word", "Ant,"), ("phone", "a"), ("phone", "n"), ("phone", "t")],
        *[("word", "tan!"), ("phone", "t"), ("phone", "a"), ("phone", "n")],
    ]
    expected = model.align(read_speech(), TEXT).words[1]
    assert lines[5][1:3] == [f"{expected.start_s:.3f}", f"{expected.end_s:.3f}"]


def test_textgrid_has_a_tier_of_words_and_one_of_phones(model, talk, text, tmp_path, capsys):
    output = tmp_path / "talk.TextGrid"
    assert main(["align", talk, text, "--format", "textgrid", "--output", str(output)]) == 0
    assert capsys.readouterr() == ("", "")
    written = output.read_text(encoding="utf-8")
    assert written.startswith('File type = "ooTextFile"\n')
    assert 'name = "words"' in written and 'name = "phones"' in written
    assert 'text = "Ant,"' in written and 'text = "a"' in written


def test_the_text_or_the_audio_may_come_from_standard_input(model, talk, text, capsys, monkeypatch):
    outputs = []
    for command, data in (
        (["align", talk, text], b""),
        (["align", talk, "-"], f"\ufeff{TEXT}\n".encode()),
        (["align", "-", text], Path(talk).read_bytes()),
    ):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
        assert main(command) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] == outputs[2]


def test_the_options_reach_the_model(model, talk, capsys, monkeypatch):
    asked = []
    align = model.align

    def record(source, text, **options):
        asked.append((source, text, options))
        return align(source, text, **options)

    monkeypatch.setattr(model, "align", record)
    assert main(["align", talk, "--text", TEXT, "--lookahead-ms", "160"]) == 0
    assert asked == [(talk, TEXT, {"lookahead_ms": 160})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text is empty: there is nothing to align"),
        ("...", "the text is empty: there is nothing to align"),
        ("42", "the text has no words in letters a-z: there is nothing to align"),
        ("ant " * 400, "the audio is too short for its text: "),
    ],
)
def test_a_text_that_cannot_be_aligned_is_one_line(model, talk, text, message, capsys):
    assert main(["align", talk, "--text", text]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"audiossm: error: {talk}: {message}") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [(None, "No such file"), (b"\xff\xfe\x00", "isn't UTF-8: expected a plain text file")],
)
def test_a_text_file_that_cannot_be_read_is_one_line(model, talk, tmp_path, data, message, capsys):
    path = tmp_path / "bad.txt"
    if data is not None:
        path.write_bytes(data)
    assert main(["align", talk, str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith(f"audiossm: error: {path}: ") and message in err


def test_a_folder_is_no_text_file(model, talk, tmp_path, capsys):
    assert main(["align", talk, str(tmp_path)]) == 1
    assert f"{tmp_path}: can't read the text: Is a directory" in capsys.readouterr().err


def test_audio_that_cannot_be_read_is_one_line(model, text, tmp_path, capsys):
    (tmp_path / "bad.wav").write_bytes(b"junk")
    for name in ("bad.wav", "none.wav"):
        assert main(["align", str(tmp_path / name), text]) == 1
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and name in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["talk.wav"],
        ["talk.wav", "talk.txt", "--text", "both"],
        ["-", "-"],
        ["talk.wav", "talk.txt", "--output", "talk.wav"],
        ["talk.wav", "talk.txt", "--output", "./talk.txt"],
        ["talk.wav", "talk.txt", "--format", "srt"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["align", *arguments])
    assert caught.value.code == 2
    assert capsys.readouterr().out == ""


def test_an_output_that_cannot_be_written_is_one_line(model, talk, text, tmp_path, capsys):
    assert main(["align", talk, text, "--output", str(tmp_path / "no" / "talk.json")]) == 1
    assert "can't write there" in capsys.readouterr().err


def test_what_makes_times_doubtful_is_a_warning(model, talk, capsys, monkeypatch):
    monkeypatch.setattr("audiossm.streaming.aligner.MAX_MISFIT", 3.0)
    model.offsets = SpikeOffsets()
    assert main(["align", talk, "--text", "ant 42 natter 42 tan"]) == 0
    out, err = capsys.readouterr()
    assert [word["word"] for word in json.loads(out)["words"]][1:3] == ["42", "natter"]
    lines = err.splitlines()
    assert all(line.startswith("audiossm: warning: ") for line in lines) and len(lines) == 4
    assert "doesn't seem to be what is said" in lines[0]
    assert "how late model 'tiny' hears was never measured" in lines[1]
    assert lines[2].endswith(": 42 can't be spelled in letters: got what lies between neighbours")
    assert lines[3].endswith("'tiny' doesn't know, so without phones: natter")
