"""Recipes learn on codes of transformers' codecs, and what they leave is used like every model."""

import sys
from pathlib import Path

import numpy as np
import pytest

from audiossm.errors import ManifestError
from audiossm.lexicon import MAIN_STRESS
from audiossm.streaming import Speaker, Transcriber
from audiossm.train.timed_scripts import TimedScript, fit_scripts
from audiossm.units import Unit
from foreign_codecs import save_foreign_codec
from recipe_run import load_recipe


def needs_transformers():
    pytest.importorskip("transformers", reason="the extra 'codecs' is not installed")


def train(monkeypatch, recipe: str, codec: Path, out: Path, steps: dict[str, int]) -> None:
    module = load_recipe(recipe)
    monkeypatch.setattr(module, "SMOKE_TRAIN", module.SMOKE_TRAIN | steps)
    command = ["train.py", "--smoke", "--device", "cpu", "--workers", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*command, "--codec", f"transformers:{codec}"])
    module.main()


def test_a_generator_of_encodec_s_codes_speaks(tmp_path, monkeypatch):
    needs_transformers()
    codec = save_foreign_codec(tmp_path / "encodec", "encodec")
    train(monkeypatch, "generate", codec, tmp_path / "out", {"steps": 3, "log_every": 1})
    speaker = Speaker.load(tmp_path / "out" / "model")
    assert speaker.codec.name == f"transformers:{codec}" and speaker.sample_rate == 24000
    speech = speaker.say("no", frames_per_step=20)
    assert speech.codes.shape[0] == 4 and speech.codes.shape[1] > 0
    assert len(speech.samples) == 320 * speech.codes.shape[1]
    assert np.isfinite(speech.samples).all() and speech.samples.std() > 0


def test_a_recogniser_learns_to_hear_what_mimi_keeps(tmp_path, monkeypatch):
    needs_transformers()
    codec = save_foreign_codec(tmp_path / "mimi", "mimi")
    train(monkeypatch, "transcribe", codec, tmp_path / "out", {"steps": 2, "log_every": 1})
    model = Transcriber.load(tmp_path / "out" / "model")
    assert "heard through transformers:" in (tmp_path / "out" / "model/config.toml").read_text()
    session = model.session()
    session.push(np.zeros(16000, np.float32))
    session.finish()
    # what was heard is the codec's sound, made once
    import torch

    plain = torch.load(tmp_path / "out" / "spoken.pt", weights_only=True)["audio"]
    coded = torch.load(tmp_path / "out" / "spoken-coded.pt", weights_only=True)["audio"]
    assert plain.shape == coded.shape and not torch.equal(plain, coded)


def test_timed_scripts_are_counted_in_a_codec_s_frames(capsys):
    units = (Unit("_", 0, 0, 0), Unit("n", 0, 1, 0), Unit("oʊ", len(MAIN_STRESS), 2, 0))
    scripts = {
        "a": TimedScript("a", units, (10, 4, 6)),
        "b": TimedScript("b", units, (10, 1, 9)),
        "c": TimedScript("c", units, (10, 4, 6)),
    }
    short = TimedScript("d", units, (8, 1, 11))
    # 0.4 s are 30 frames of EnCodec; c has no audio of this length
    fitted = fit_scripts(scripts, {"a": 30, "b": 29, "c": 60}, 320 / 24000)
    assert {key: script.frames for key, script in fitted.items()} == {
        "a": (15, 6, 9),
        "b": (14, 2, 13),
    }
    fitted = fit_scripts(scripts | {"d": short}, {"a": 5, "d": 5}, 0.08)
    assert fitted["a"].frames == (2, 2, 1) and "d" not in fitted
    assert "left out: 1 with phones shorter" in capsys.readouterr().out
    with pytest.raises(ManifestError, match="frames of 80 ms are longer than a phone"):
        fit_scripts({"d": short}, {"d": 5}, 0.08)
