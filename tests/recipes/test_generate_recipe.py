"""The recipe of the generator runs, learns, resumes exactly, and leaves a model and its voices."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors import safe_open

from audiossm.checkpoint import ModelFolder, save_model
from audiossm.config import to_dict
from audiossm.errors import ManifestError
from audiossm.manifest import read_manifest
from audiossm.train.timed_scripts import TimedScript, write_timed_scripts
from audiossm.units import Unit
from recipe_run import StepClock, load_recipe
from toy_codec import make_codec

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "generate" / "train.py"
SPEECH = ROOT / "tests" / "speech"


@pytest.fixture
def recipe() -> ModuleType:
    return load_recipe("generate")


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A codec's folder: the shipped one takes longer."""
    codec = make_codec()
    tables = {"codec": to_dict(codec.config)}
    save_model(tmp_path / "toy", "codec", "", tables, codec.state_dict())
    return tmp_path / "toy"


def read_log(folder: Path) -> list[str]:
    return (folder / "log.jsonl").read_text().splitlines()


def test_the_smoke_run_learns_and_exports_a_model_and_voices(tmp_path):
    command = [sys.executable, RECIPE, "--smoke", "--device", "cpu", "--out", tmp_path]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run([*command, "--workers", "1"], capture_output=True, env=environment)
    assert result.returncode == 0, result.stderr.decode()
    assert "step 60 of 60, {" in result.stdout.decode()
    rows = [json.loads(line) for line in read_log(tmp_path)]
    assert [row["step"] for row in rows] == list(range(10, 70, 10))
    assert rows[-1]["nats_0"] < 0.85 * rows[0]["nats_0"]
    assert rows[-1]["dev_bits_0"] < rows[2]["dev_bits_0"] < 9.9
    folder = ModelFolder.open(tmp_path / "model")
    assert folder.kind == "generator" and folder.config["codec"]["name"] == "first-frames"
    card = (tmp_path / "model" / "README.md").read_text()
    assert "Trained to step 60 on " in card and "dev_bits_0" in card and "To be added" in card
    with safe_open(tmp_path / "voices.safetensors", "pt") as file:
        names = json.loads(file.metadata()["names"])
        assert names and {*names} <= {u.speaker for u in read_manifest(SPEECH / "manifest.jsonl")}
        assert file.get_tensor("voices").shape == (len(names), 8)
        assert file.get_tensor("paces").shape == (len(names),)


def test_a_run_that_was_stopped_goes_on_exactly(tmp_path, monkeypatch, recipe, toy):
    steps = {"steps": 6, "log_every": 1}
    monkeypatch.setattr(recipe, "SMOKE_TRAIN", recipe.SMOKE_TRAIN | steps)

    def train(name: str, *options: str) -> None:
        command = ["train.py", "--smoke", "--device", "cpu", "--workers", "1", "--codec", str(toy)]
        command += ["--out", str(tmp_path / name)]
        monkeypatch.setattr(sys, "argv", [*command, *options])
        torch.manual_seed(random.randrange(1000))  # what was before the run must not matter
        recipe.main()

    train("straight")
    with monkeypatch.context() as patch:
        StepClock(recipe, patch, steps=3)
        train("stopped", "--minutes", "5")
    saved = torch.load(tmp_path / "stopped" / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 3
    files = ("model/model.safetensors", "voices.safetensors")
    early = [(tmp_path / "stopped" / name).read_bytes() for name in files]
    train("stopped")
    straight, stopped = (
        [(tmp_path / run / name).read_bytes() for name in files] for run in ("straight", "stopped")
    )
    assert stopped == straight != early
    first, second = (
        [row["nats_0"] for row in map(json.loads, read_log(tmp_path / run))]
        for run in ("straight", "stopped")
    )
    assert first == second

    # another run begins where this one ended
    train("later", "--init", str(tmp_path / "straight" / "model"), "--set", "train.steps=1")
    later = json.loads(read_log(tmp_path / "later")[0])
    assert later["nats_0"] < first[0] - 0.1


def test_scripts_are_read_where_there_are_any(tmp_path, monkeypatch, recipe, toy):
    lines = (SPEECH / "manifest.jsonl").read_text().replace('"path": "', f'"path": "{SPEECH}/')
    (tmp_path / "manifest.jsonl").write_text(lines)
    command = ["train.py", "--smoke", "--device", "cpu", "--workers", "1", "--codec", str(toy)]
    command += ["--out", str(tmp_path / "out"), "--data", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*command, "--set", "train.steps=0"])
    recipe.main()
    saved = torch.load(tmp_path / "out" / "codes.pt", weights_only=True)
    wrong = [
        TimedScript(key, (Unit("_", 0, 0, 0),), (size + 1,))
        for key, size in zip(saved["keys"], saved["sizes"].tolist(), strict=True)
    ]
    write_timed_scripts(tmp_path / "said.jsonl", wrong)
    with pytest.raises(ManifestError, match="no recording has a timed script of its length"):
        recipe.main()
