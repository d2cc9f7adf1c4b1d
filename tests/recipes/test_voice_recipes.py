"""Voices of a training become files, and recordings that it held out a manifest."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from audiossm.checkpoint import save_model
from audiossm.config import to_dict
from audiossm.models import save_generator, save_voice
from audiossm.streaming import Speaker
from audiossm.train.takes import is_held_out
from recipe_run import RECIPES, load_recipe
from tiny_speaker import make_generator
from toy_codec import make_audio_codec, make_codec


@pytest.fixture
def folder(tmp_path):
    codec = make_codec()
    save_model(tmp_path / "toy", "codec", "", {"codec": to_dict(codec.config)}, codec.state_dict())
    save_generator(tmp_path / "model", "says", make_generator(), make_audio_codec())
    return tmp_path / "model"


def save_table(folder, names, width):
    voices = torch.linspace(-1, 1, len(names) * width).view(len(names), width)
    table = {"voices": voices, "paces": torch.linspace(0.25, 0.5, len(names))}
    path = folder.parent / "voices.safetensors"
    save_file(table, path, {"names": json.dumps(names)})
    return voices


def test_each_voice_gets_its_row(folder, monkeypatch, capsys):
    recipe = load_recipe("generate", "make_voices")
    voices = save_table(folder, ["somebody", "arctic_bdl", "lj"], 8)
    monkeypatch.setattr("sys.argv", ["make_voices.py", str(folder)])
    recipe.main()
    assert "kathleen wasn't in the training" in capsys.readouterr().out
    speaker = Speaker.load(folder)
    assert speaker.voices == ["bdl", "lj"]
    voice = speaker.voice("bdl")
    assert torch.from_numpy(voice.vector).allclose(voices[1], atol=1e-3)
    assert voice.pace == pytest.approx(0.375) and "2003 Carnegie" in voice.licence


def test_voices_are_levelled_anew(folder, monkeypatch, capsys):
    recipe = load_recipe("generate", "make_voices")
    save_table(folder, ["lj"], 8)
    monkeypatch.setattr("sys.argv", ["make_voices.py", str(folder)])
    recipe.main()
    voice = Speaker.load(folder).voice("lj")
    assert voice.gain_db
    save_voice(Speaker.load(folder), replace(voice, gain_db=1.5))
    monkeypatch.setattr("sys.argv", ["make_voices.py", str(folder), "--level"])
    recipe.main()
    again = Speaker.load(folder).voice("lj")
    assert again.gain_db == voice.gain_db and (again.vector == voice.vector).all()
    assert f"{voice.gain_db:+.1f} dB" in capsys.readouterr().out


def test_a_table_of_another_model_is_refused(folder, monkeypatch):
    recipe = load_recipe("generate", "make_voices")
    save_table(folder, ["lj"], 5)
    monkeypatch.setattr("sys.argv", ["make_voices.py", str(folder)])
    with pytest.raises(recipe.ModelError, match="aren't of"):
        recipe.main()


def test_held_out_recordings_are_those_of_the_training(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(RECIPES / "generate")
    recipe = load_recipe("generate", "hold_out")
    rows = [
        {"key": f"k{i}", "text": "a", "path": "a.wav", "speaker": "arctic_slt" if i % 2 else "x"}
        for i in range(40)
    ]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (tmp_path / "set.jsonl").write_text(lines)
    out = tmp_path / "held-out.jsonl"
    options = ["--set", 'data.train=["set"]', "--set", "data.dev_share=0.5"]
    argv = ["hold_out.py", "--data", str(tmp_path), "--out", str(out), *options]
    monkeypatch.setattr("sys.argv", argv)
    recipe.main()
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["key"] for row in found] == [
        f"k{i}" for i in range(1, 40, 2) if is_held_out(f"k{i}", 0.5)
    ]
    assert found and {row["speaker"] for row in found} == {"slt"}
