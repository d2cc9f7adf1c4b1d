"""The recipe of the recogniser runs, learns, resumes exactly, and leaves a model that works."""

import json
import os
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch

from audiossm.checkpoint import ModelFolder, read_weights, save_model
from audiossm.codec import Codec, CodecConfig, LoadedCodec
from audiossm.config import to_dict
from audiossm.models import Recogniser, RecogniserConfig, save_recogniser
from audiossm.streaming import Transcriber
from recipe_run import StepClock, load_recipe

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "transcribe" / "train.py"
MODEL_FILES = {"config.toml", "model.safetensors"}


@pytest.fixture
def recipe() -> ModuleType:
    return load_recipe("transcribe")


def test_the_smoke_run_learns_and_exports_a_model_that_transcribes(tmp_path):
    command = [sys.executable, RECIPE, "--smoke", "--out", tmp_path, "--workers", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "step 30 of 30, dev WER " in result.stdout
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 10, 15, 20, 25, 30]
    losses = [row["ctc"] for row in rows]
    assert losses[-1] < 0.75 * losses[0]
    model = Transcriber.load(tmp_path / "model")
    assert model.name == "model"
    transcript = model.transcribe(ROOT / "tests" / "speech" / "river.flac")
    assert transcript.duration_s == pytest.approx(5.035, abs=0.01)
    assert transcript.text == " ".join(word.word for word in transcript.words)


def test_on_a_codec_the_encoder_stays_and_the_model_names_the_codec(tmp_path, monkeypatch, recipe):
    monkeypatch.setattr(recipe, "SMOKE_TRAIN", recipe.SMOKE_TRAIN | {"steps": 3})
    codec = Codec(CodecConfig.tiny())
    tables = {"codec": to_dict(codec.config)}
    save_model(tmp_path / "voice", "codec", "", tables, codec.state_dict())
    command = ["train.py", "--smoke", "--device", "cpu", "--workers", "1"]
    options = ["--out", str(tmp_path), "--codec", str(tmp_path / "voice")]
    monkeypatch.setattr(sys, "argv", [*command, *options])
    recipe.main()
    model = Transcriber.load(tmp_path / "model")
    before = LoadedCodec.load(tmp_path / "voice").network.encoder.state_dict()
    for name, weight in model.network.encoder.state_dict().items():
        assert torch.equal(weight, before[name]), name
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["trainee"]
    for name, weight in before.items():
        assert torch.equal(saved[f"recogniser.encoder.{name}"], weight), name


def test_a_run_that_was_stopped_goes_on_exactly(tmp_path, monkeypatch, recipe):
    small = {"steps": 6, "consistency_from": 2}
    monkeypatch.setattr(recipe, "SMOKE_TRAIN", recipe.SMOKE_TRAIN | small)

    def train(name: str, *options: str) -> None:
        out = str(tmp_path / name)
        command = ["train.py", "--smoke", "--device", "cpu", "--workers", "1", "--out", out]
        monkeypatch.setattr(sys, "argv", [*command, *options])
        torch.manual_seed(random.randrange(1000))  # what was before the run must not matter
        recipe.main()

    train("straight")
    with monkeypatch.context() as patch:
        StepClock(recipe, patch, steps=3)
        train("stopped", "--minutes", "5")
    early = (tmp_path / "stopped" / "model" / "model.safetensors").read_bytes()
    saved = torch.load(tmp_path / "stopped" / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 3
    train("stopped")
    for name in MODEL_FILES:
        straight = (tmp_path / "straight" / "model" / name).read_bytes()
        assert (tmp_path / "stopped" / "model" / name).read_bytes() == straight, name
        assert early != straight


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "OUT"], "has no manifest.jsonl: expected what 'audiossm prepare' makes"),
        (["--device", "nix"], "device 'nix' is not one of cpu, cuda"),
        (["--set", "train.lr='fast'"], "train.lr is 'fast', expected a number, as 0.001"),
        (["--set", "data.rows=3"], "data.rows is 3, but must be even"),
        (["--set", "data.rows=400"], "don't fill a batch of 400 rows of 20.48 s: take more speech"),
    ],
)
def test_what_a_run_cannot_do_is_told_in_one_line(options, message, recipe, patch_argv, capsys):
    patch_argv(options)
    assert recipe.run_recipe(recipe.main) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and message in told[0]


def test_only_a_card_compiles(recipe, patch_argv, capsys):
    patch_argv(["--compile"])
    with pytest.raises(SystemExit, match="2"):
        recipe.main()
    assert "need a CUDA device, but --device is cpu" in capsys.readouterr().err


@pytest.fixture
def patch_argv(tmp_path, monkeypatch):
    def patch(options: list[str]) -> None:
        command = ["train.py", "--smoke", "--workers", "1", "--out", tmp_path, "--device", "cpu"]
        options = [str(tmp_path) if option == "OUT" else option for option in options]
        monkeypatch.setattr(sys, "argv", [*map(str, command), *options])

    return patch


def test_a_run_goes_on_with_as_many_rows_only(recipe, patch_argv, monkeypatch, capsys):
    monkeypatch.setattr(recipe, "SMOKE_TRAIN", recipe.SMOKE_TRAIN | {"steps": 1})
    patch_argv([])
    assert recipe.run_recipe(recipe.main) == 0
    patch_argv(["--set", "data.rows=4"])
    assert recipe.run_recipe(recipe.main) == 1
    assert "began with 2 rows a batch, but data.rows says 4" in capsys.readouterr().err


def test_a_transducer_learns_beside_ctc_and_the_model_is_a_recogniser(
    tmp_path, monkeypatch, recipe, capsys
):
    monkeypatch.setattr(recipe, "SMOKE_TRAIN", recipe.SMOKE_TRAIN | {"steps": 10})
    command = ["train.py", "--smoke", "--device", "cpu", "--workers", "1", "--out", str(tmp_path)]
    command += ["--set", "train.transducer_weight=1.0", "--anneal", "--minutes", "60"]
    command += ["--set", "data.row_s=7.0"]  # its lattice is as long as rows times their letters
    monkeypatch.setattr(sys, "argv", command)
    recipe.main()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["transducer"] < rows[0]["transducer"]
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    last = json.loads(told[-1])
    assert set(last) == {"dev_wer", "dev_wer_transducer"}
    assert Transcriber.load(tmp_path / "model").name == "model"


def test_models_of_several_seeds_are_averaged_and_a_stopped_run_makes_the_rest(
    tmp_path, monkeypatch, recipe, capsys
):
    monkeypatch.setattr(recipe, "SMOKE_TRAIN", recipe.SMOKE_TRAIN | {"steps": 3, "log_every": 1})
    torch.manual_seed(0)
    save_recogniser(tmp_path / "begun", "a line", Recogniser(RecogniserConfig.tiny()))

    def train(name: str, *options: str) -> Path:
        command = ["train.py", "--smoke", "--device", "cpu", "--workers", "1", "--models", "2"]
        command += ["--init", str(tmp_path / "begun"), "--out", str(tmp_path / name), *options]
        monkeypatch.setattr(sys, "argv", command)
        recipe.main()
        return tmp_path / name

    out = train("straight")
    zero, one, mean = (
        read_weights(ModelFolder.open(out / place / "model"))
        for place in ("models/0", "models/1", ".")
    )
    assert any(not torch.equal(zero[name], one[name]) for name in zero)
    for name, value in mean.items():
        torch.testing.assert_close(value, (zero[name] + one[name]) / 2, rtol=1e-3, atol=1e-4)
    assert "Trained to step 3" in (out / "model" / "README.md").read_text()
    drawn = find_spec("matplotlib") is not None
    assert all((out / "models" / n / "curves.png").exists() == drawn for n in "01")

    with monkeypatch.context() as patch:
        StepClock(recipe, patch, steps=4)
        stopped = train("stopped", "--minutes", "5")
    assert "1 of 2 models are made: the same command goes on" in capsys.readouterr().out
    assert not (stopped / "model").exists()
    train("stopped")
    for name in MODEL_FILES:
        assert (stopped / "model" / name).read_bytes() == (out / "model" / name).read_bytes(), name


def test_what_helps_on_a_manifest_is_chosen_from_several_models(tmp_path, monkeypatch, recipe):
    monkeypatch.setattr(recipe, "SMOKE_TRAIN", recipe.SMOKE_TRAIN | {"steps": 1})
    network = Recogniser(RecogniserConfig.tiny())
    save_recogniser(tmp_path / "begun", "a line", network)
    seen = {}

    def blend(models, base, heard_by, part, corpus, workers):
        seen.update(models=set(models), base=base, texts=len(corpus.texts))
        return base

    monkeypatch.setattr(recipe, "blend", blend)
    manifest = ROOT / "tests" / "speech" / "manifest.jsonl"
    command = ["train.py", "--smoke", "--device", "cpu", "--workers", "1", "--out", str(tmp_path)]
    command += ["--init", str(tmp_path / "begun"), "--models", "2", "--choose", str(manifest)]
    monkeypatch.setattr(sys, "argv", command)
    recipe.main()
    assert seen["models"] == {str(tmp_path / "models" / n) for n in "01"}
    assert seen["texts"] == len(manifest.read_text().splitlines())
    before, after = (read_weights(ModelFolder.open(tmp_path / name)) for name in ("begun", "model"))
    assert all(torch.equal(before[name], value) for name, value in after.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "0"], "--models is 0, expected 1 or more"),
        (["--models", "2"], "--models needs --init: only what began alike can be averaged"),
        (["--models", "2", "--init", "x", "--anneal"], "each model takes train.steps steps"),
        (["--choose", "x.jsonl"], "--choose needs --models"),
    ],
)
def test_what_several_models_need_is_told(options, message, recipe, patch_argv, capsys):
    patch_argv(options)
    with pytest.raises(SystemExit, match="2"):
        recipe.main()
    assert message in capsys.readouterr().err
