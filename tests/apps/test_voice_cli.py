"""``audiossm voice add``: from recordings to a file, or to a word why not."""

import json

import numpy as np
import pytest

from audiossm.checkpoint import save_model
from audiossm.config import to_dict
from audiossm.models import Voice, save_generator
from audiossm.streaming import Speaker, Transcriber
from audiossm.train import voice_tuner
from audiossm.train.voice_tuner import TunedVoice
from audiossm_apps.cli import main
from tiny_model import SPEECH, make_transcriber
from tiny_speaker import make_generator
from toy_codec import make_audio_codec, make_codec

WHOSE = ["--origin", "the test recordings", "--licence", "CC0-1.0"]


@pytest.fixture
def folder(tmp_path):
    codec = make_codec()
    save_model(tmp_path / "toy", "codec", "", {"codec": to_dict(codec.config)}, codec.state_dict())
    save_generator(tmp_path / "tiny", "says", make_generator(), make_audio_codec())
    return tmp_path / "tiny"


@pytest.fixture
def add(folder):
    def call(*argv):
        return main(["voice", "add", "anna", *map(str, argv), "--model", str(folder)])

    return call


def list_texts():
    lines = (SPEECH / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_a_manifest_becomes_a_voice(add, folder, capsys):
    """With the shipped recogniser: its alignment is what the rest stands on."""
    assert add(SPEECH / "manifest.jsonl", *WHOSE, "--epochs", "2") == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(folder / "voices" / "anna.safetensors")
    assert "held-out loss" in err and "s of speech" in err
    speaker = Speaker.load(folder)
    voice = speaker.voice("anna")
    assert (voice.origin, voice.licence) == ("the test recordings", "CC0-1.0")
    assert voice.vector.any() and voice.state is not None
    assert speaker.say("Hello.", voice="anna").codes.shape[1] > 0


@pytest.fixture
def stub(monkeypatch):
    """A recogniser and a tuner that take no time; returns what the tuner got."""
    monkeypatch.setattr(Transcriber, "load", lambda name=None, decoder=None: make_transcriber())
    monkeypatch.setattr(voice_tuner, "time_units", lambda alignment, reader, frames: ((), ()))
    got = {}

    def cut(units, frames, codes):
        got.setdefault("codes", []).append(codes)
        return iter([codes])

    def tune(speaker, phrases, *, on_epoch, num_epochs, **fields):
        got.update(fields, phrases=phrases)
        vector = np.ones(speaker.config.d_voice, np.float32)
        voice = Voice(vector=vector, **fields)
        return TunedVoice(voice=voice, before=2.0, after=got.get("after", 1.0), seconds=3.0)

    monkeypatch.setattr(voice_tuner, "cut_phrases", cut)
    monkeypatch.setattr(voice_tuner, "tune_voice", tune)
    monkeypatch.setattr("audiossm.streaming.aligner.MAX_MISFIT", 1e9)
    return got


def test_recordings_come_with_a_text_each(add, stub, folder, tmp_path, capsys):
    path = tmp_path / "own.safetensors"
    files = [SPEECH / "river.flac", SPEECH / "stereo-44100.flac"]
    texts = ["--text", "the river", "--text", "a word"]
    assert add(*files, *texts, *WHOSE, "--output", path) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(path) and path.exists()
    assert "3 s are few: many words will be lost" in err
    codec = make_audio_codec()
    expected = codec.encode(files[0], num_groups=2).codes[0].T[: 80560 // 320]
    np.testing.assert_array_equal(stub["codes"][0], expected)
    assert len(stub["codes"][1]) == 62720 // 320


def test_a_voice_that_there_is_stays_unless_asked(add, stub, folder, capsys):
    argv = [SPEECH / "river.flac", "--text", "the river", *WHOSE]
    assert add(*argv) == 0
    (written,) = (folder / "voices").iterdir()  # nothing half written beside it
    before = written.read_bytes()
    capsys.readouterr()
    stub.pop("phrases")
    assert add(*argv[:-1], "CC-BY-4.0") == 1
    assert "there is one already: another name, or --overwrite" in capsys.readouterr().err
    assert "phrases" not in stub  # it was said before the work
    assert written.read_bytes() == before
    assert add(*argv[:-1], "CC-BY-4.0", "--overwrite") == 0
    assert Speaker.load(folder).voice("anna").licence == "CC-BY-4.0"


def test_a_voice_that_is_no_better_is_not_written(add, stub, folder, capsys):
    stub["after"] = 2.0
    assert add(SPEECH / "river.flac", "--text", "the river", *WHOSE) == 1
    assert "isn't written" in capsys.readouterr().err
    assert not (folder / "voices").exists()


def test_what_cant_be_read_is_left_out_with_a_line(add, stub, tmp_path, capsys):
    argv = [tmp_path / "none.wav", SPEECH / "river.flac", "--text", "a", "--text", "the river"]
    assert add(*argv, *WHOSE) == 0
    assert "none.wav is left out: " in capsys.readouterr().err
    assert len(stub["phrases"]) == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a.wav", "b.wav", "--text", "a", *WHOSE], "2 recordings, but 1 texts"),
        (["a.jsonl", "--text", "a", *WHOSE], "leave --text out"),
        (["a.wav", "--text", "a", "--origin", "me"], "--licence"),
        (["a.wav", "--text", "a", "--licence", "CC0"], "--origin"),
    ],
)
def test_wrong_usage(add, capsys, argv, message):
    with pytest.raises(SystemExit) as found:
        add(*argv)
    assert found.value.code == 2 and message in capsys.readouterr().err


def test_a_line_that_says_nothing_is_refused_before_the_work(add, capsys):
    argv = [SPEECH / "river.flac", "--text", "a", "--origin", " ", "--licence", "CC0-1.0"]
    assert add(*argv) == 1
    assert "says its origin in one line" in capsys.readouterr().err
