"""The codec's second stage leaves the encoder alone, resumes exactly and leaves a codec."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from audiossm.checkpoint import save_model
from audiossm.codec import Codec, CodecConfig, LoadedCodec
from audiossm.config import to_dict
from audiossm.errors import ConfigError, ManifestError
from audiossm.train.ranks import Ranks
from recipe_run import StepClock, load_recipe


@pytest.fixture
def recipe() -> ModuleType:
    return load_recipe("codec", "train_decoder")


@pytest.fixture
def first_stage(tmp_path) -> Path:
    codec = Codec(CodecConfig.tiny())
    tables = {"codec": to_dict(codec.config)}
    save_model(tmp_path / "voice", "codec", "", tables, codec.state_dict())
    return tmp_path / "voice"


@pytest.fixture
def train(tmp_path, monkeypatch, recipe, first_stage) -> Callable[..., LoadedCodec]:
    def run(name: str, *options: str) -> LoadedCodec:
        command = ["train_decoder.py", "--smoke", "--device", "cpu", "--workers", "1"]
        where = ["--out", str(tmp_path / name), "--init", str(first_stage)]
        monkeypatch.setattr(sys, "argv", [*command, *where, *options])
        recipe.main()
        return LoadedCodec.load(tmp_path / name / "codec")

    return run


def test_the_codec_learns_and_the_frames_stay(tmp_path, monkeypatch, recipe, first_stage, train):
    small = {"steps": 6, "head_start": 3, "dev_every": 3, "log_every": 3, "train_codes": True}
    monkeypatch.setattr(recipe, "SMOKE_TRAIN", recipe.SMOKE_TRAIN | small)
    straight, before = train("straight"), LoadedCodec.load(first_stage)
    rows = [json.loads(x) for x in (tmp_path / "straight" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    assert rows[1]["dev_mel_4"] < rows[0]["dev_mel_4"]
    assert {"telling", "fooling", "matching"} <= rows[1].keys() and "fooling" not in rows[0]
    assert {"peaks", "loudness", "hearing", "pitch", "consistency"} <= rows[0].keys()
    assert {"norm", "codes_norm", "judges_norm"} <= rows[0].keys()
    assert straight.frames_hash == before.frames_hash
    assert straight.codes_hash != before.codes_hash
    assert straight.config.detail is not None
    assert (tmp_path / "straight" / "sample.wav").exists()
    with monkeypatch.context() as patch:
        StepClock(recipe, patch, steps=4, of="Duel")
        train("stopped", "--minutes", "5")
    kept = torch.load(tmp_path / "stopped" / "decoder.pt", weights_only=True)
    assert [kept[side]["step"] for side in ("voice", "judges")] == [4, 4]
    assert train("stopped").hash == straight.hash


def test_without_training_codes_they_keep_their_meaning(monkeypatch, recipe, first_stage, train):
    monkeypatch.setattr(recipe, "SMOKE_TRAIN", recipe.SMOKE_TRAIN | {"steps": 1})
    after, before = train("a"), first_stage
    assert after.codes_hash == LoadedCodec.load(before).codes_hash
    assert after.hash != LoadedCodec.load(before).hash


def test_sets_have_the_names_that_the_folder_tells(monkeypatch, recipe, tmp_path):
    (tmp_path / "data.toml").write_text('[data]\ntrain = ["ours"]\ndev = ["mine"]\n')
    command = ["train_decoder.py", "--smoke", "--device", "cpu", "--data", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(tmp_path / "out")])
    with pytest.raises(ManifestError, match="has no mine.jsonl"):
        recipe.main()


def test_without_a_first_stage_there_is_no_second(capsys, monkeypatch, recipe, tmp_path):
    monkeypatch.setattr(sys, "argv", ["train_decoder.py", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        recipe.main()
    assert "needs --init: the codec of the first stage" in capsys.readouterr().err


def test_graphs_are_refused_where_there_are_none(capsys, monkeypatch, recipe, tmp_path):
    command = ["train_decoder.py", "--smoke", "--compile", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        recipe.main()
    assert "--compile captures CUDA graphs, but the device is cpu" in capsys.readouterr().err


def test_several_processes_are_told_that_they_have_no_graphs(monkeypatch, recipe, tmp_path):
    monkeypatch.setattr(recipe.Ranks, "join", lambda device: Ranks(0, 2, device))
    command = ["train_decoder.py", "--smoke", "--compile", "--device", "cuda"]
    command += ["--set", "second_stage.long_rows=2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(ConfigError, match="2 processes would exchange gradients: leave it out"):
        recipe.main()
