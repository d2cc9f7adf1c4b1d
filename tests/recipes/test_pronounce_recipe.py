"""The recipe of the sounder runs, learns, resumes exactly, and leaves a model that speaks."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from audiossm.evaluate.pronounce import read_references
from audiossm.lexicon import PHONES, drop_stress
from audiossm.models import LoadedSounder
from recipe_run import StepClock, load_recipe

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "pronounce"


@pytest.fixture
def recipe() -> ModuleType:
    return load_recipe("pronounce")


def test_the_smoke_run_learns_and_exports_a_model(tmp_path):
    command = [sys.executable, RECIPE / "train.py", "--smoke", "--device", "cpu", "--out", tmp_path]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "step 60 of 60, {" in result.stdout
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(10, 70, 10))
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    model = LoadedSounder.load(tmp_path / "model")
    assert set(drop_stress(model.network.config.phones)) <= set(PHONES)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "Trained to step 60 on " in card and "dev_phone_errors" in card and "words." in card
    test, dev = (read_references(tmp_path / name) for name in ("held-out.txt", "dev.txt"))
    assert len(test) == len(dev) == 20 and not test.keys() & dev.keys()


def test_a_run_that_was_stopped_goes_on_exactly(tmp_path, monkeypatch, recipe):
    monkeypatch.setattr(recipe, "SMOKE_TRAIN", recipe.SMOKE_TRAIN | {"steps": 6})
    monkeypatch.setattr(recipe, "SMOKE_WORDS", 300)

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


def test_the_baseline_learns_a_table(tmp_path, monkeypatch, capsys):
    baseline = load_recipe("pronounce", "baseline")
    words = {"tan": "t æ n", "tin": "t ɪ n", "pan": "p æ n", "pin": "p ɪ n", "nip": "n ɪ p"}
    costs = baseline.learn_costs({word: row.split() for word, row in words.items()})
    assert baseline.lay("tip", "t ɪ p".split(), costs) == [("t",), ("ɪ",), ("p",)]
    assert baseline.lay("a", "t ɪ p".split(), costs) is None
    monkeypatch.setattr(baseline, "read_pronunciations", lambda path: words)
    held_out = tmp_path / "held-out.txt"
    held_out.write_text("nap\tn æ p\ntap\tt ˈæ p\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["baseline.py", "x", "--held-out", str(held_out)])
    baseline.main()
    found = capsys.readouterr().out.splitlines()
    assert "single letters, without stress: 0.00%" in found[-1]
    assert "with stress: 16.67% of the phones wrong, 50.00% of the words right" in found[-2]
