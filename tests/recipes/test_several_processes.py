"""The recipes do on several processes what they do on one, and a worker that dies is no harm."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from audiossm.checkpoint import save_model
from audiossm.config import to_dict
from recipe_run import StepClock, load_recipe
from toy_codec import make_codec

ROOT = Path(__file__).parents[2]


@pytest.fixture
def proof() -> ModuleType:
    path = ROOT / "tests" / "proofs" / "several_gpus.py"
    spec = importlib.util.spec_from_file_location("several_gpus", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_same_losses(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for a, b in zip(ours, theirs, strict=True):
        losses = set(a) - {"minutes", "norm"}
        assert losses == set(b) - {"minutes", "norm"}
        for name in losses:
            assert a[name] == pytest.approx(b[name], abs=1e-4), (a["step"], name)


def run_alone(recipe: ModuleType, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    command = ["train.py", "--smoke", "--device", "cpu", "--workers", "1"]
    monkeypatch.setattr(sys, "argv", [*command, *options])
    recipe.main()


@pytest.mark.skipif(sys.platform != "linux", reason="a worker is found in /proc")
def test_a_killed_worker_starts_again_and_the_curve_is_that_of_one_process(
    tmp_path, monkeypatch, proof
):
    codec = make_codec()
    tables = {"codec": to_dict(codec.config)}
    save_model(tmp_path / "toy", "codec", "", tables, codec.state_dict())
    options = ["--codec", str(tmp_path / "toy"), "--set", "train.log_every=1"]
    options += ["--set", "train.steps=20", "--set", "train.dev_every=15"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    story = proof.kill_worker(tmp_path / "several", 2, "cpu", options)
    assert story["killed"] and story["ended"] and story["resumed"], story["output"]
    (again,) = story["resumed"]
    steps = [row["step"] for row in story["rows"]]
    # what the log had behind the last checkpoint comes once more
    begun = [i for i in range(1, len(steps)) if steps[i] <= steps[i - 1]]
    assert steps[begun[0] if begun else again] == again + 1 and steps[-1] == 20
    run_alone(load_recipe("generate"), monkeypatch, [*options, "--out", str(tmp_path / "one")])
    alone = read_log(tmp_path / "one")
    newest = {row["step"]: row for row in story["rows"]}
    assert_same_losses([newest[step] for step in sorted(newest)], alone)


def test_a_recogniser_goes_on_exactly_on_another_number_of_processes(tmp_path, monkeypatch, proof):
    recipe = load_recipe("transcribe")
    sets = {"data.rows": 4, "data.row_s": 6.0, "data.noise": '["manifest"]', "train.augment": 0.5}
    sets |= {
        "train.steps": 6,
        "train.log_every": 1,
        "train.consistency_from": 3,
        "train.carried_share": 0.7,
    }
    options = [part for name, value in sets.items() for part in ("--set", f"{name}={value}")]

    run_alone(recipe, monkeypatch, [*options, "--out", str(tmp_path / "straight")])
    with monkeypatch.context() as patch:
        StepClock(recipe, patch, steps=2)
        stopped = ["--out", str(tmp_path / "changing"), "--minutes", "5"]
        run_alone(recipe, monkeypatch, [*options, *stopped])
    # two go on, from before there are two views of each row till after
    script = ROOT / "recipes" / "transcribe" / "train.py"
    command = proof.torchrun(2, script, "--smoke", "--device", "cpu", "--workers", "1")
    command += [*options, "--out", str(tmp_path / "changing")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "resumed at step 2" in result.stdout
    assert_same_losses(read_log(tmp_path / "changing"), read_log(tmp_path / "straight"))
    straight, changing = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
        for name in ("straight", "changing")
    )
    # and whoever goes on from there, on however many, has the states of all rows; roundings grow
    for name, tensor in straight["lessons"].items():
        torch.testing.assert_close(changing["lessons"][name], tensor, rtol=0, atol=0.02)
