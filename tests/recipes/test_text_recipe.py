"""The recipe of the writer runs, learns, resumes exactly, and leaves a model that writes."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from audiossm.evaluate.writing import read_lines
from audiossm.models import LoadedWriter
from audiossm.train.sentences import Sentences, leave_out
from recipe_run import StepClock, load_recipe

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "text" / "train.py"


@pytest.fixture
def recipe() -> ModuleType:
    return load_recipe("text")


def test_the_smoke_run_learns_and_exports_a_model(tmp_path):
    command = [sys.executable, RECIPE, "--smoke", "--device", "cpu", "--out", tmp_path]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "step 80 of 80, {" in result.stdout
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(10, 90, 10))
    assert rows[-1]["case"] < 0.8 * rows[0]["case"]
    model = LoadedWriter.load(tmp_path / "model")
    assert model.lookahead == 3
    card = (tmp_path / "model" / "README.md").read_text()
    assert "0.05 M parameters. Trained to step 80 on " in card
    assert "dev_capitals" in card and "To be added" in card
    test, dev = (read_lines(tmp_path / name) for name in ("held-out.txt", "dev.txt"))
    assert (len(test), len(dev)) == (20, 20)
    kept = Sentences.load(tmp_path / "sentences.npz")
    lines = read_lines(ROOT / "tests" / "text" / "sentences.txt")
    assert kept.words == Sentences.read(leave_out(lines, test + dev)).words


def test_a_run_that_was_stopped_goes_on_exactly(tmp_path, monkeypatch, recipe):
    monkeypatch.setattr(recipe, "SMOKE_TRAIN", recipe.SMOKE_TRAIN | {"steps": 6})

    def train(name: str, *options: str) -> None:
        command = ["train.py", "--smoke", "--device", "cpu", "--out", str(tmp_path / name)]
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
    straight = (tmp_path / "straight" / "model" / "model.safetensors").read_bytes()
    assert (tmp_path / "stopped" / "model" / "model.safetensors").read_bytes() == straight != early
