"""The recipes do on several processes what they do on one, and a worker that dies is no harm."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from audiossm.checkpoint import save_model
from audiossm.config import to_dict
from audiossm.train.ranks import Ranks
from audiossm_apps.recipe import run_recipe
from recipe_run import StepClock, label_speech, load_recipe
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
            # roundings differ with the rows that are summed at once, and grow from step to step
            assert a[name] == pytest.approx(b[name], rel=5e-5, abs=1e-4), (a["step"], name)


def run_alone(recipe: ModuleType, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    command = ["train.py", "--smoke", "--device", "cpu", "--workers", "1"]
    monkeypatch.setattr(sys, "argv", [*command, *options])
    recipe.main()


def settings(**values: object) -> list[str]:
    pairs = [f"{name.replace('__', '.')}={value}" for name, value in values.items()]
    return [part for pair in pairs for part in ("--set", pair)]


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


def test_a_recogniser_goes_on_exactly_on_more_processes_and_on_fewer(
    tmp_path, monkeypatch, proof, capsys
):
    recipe = load_recipe("transcribe")
    sets = {"data.rows": 4, "data.row_s": 6.0, "data.noise": '["manifest"]', "train.augment": 0.5}
    sets |= {
        "train.steps": 6,
        "train.log_every": 1,
        "train.lr": 8e-3,
        "train.warmup": 40,  # so long that train.steps doesn't change the first four rates
        "train.consistency_from": 3,
        "train.carried_share": 0.7,
    }
    options = [part for name, value in sets.items() for part in ("--set", f"{name}={value}")]

    run_alone(recipe, monkeypatch, [*options, "--out", str(tmp_path / "straight")])
    with monkeypatch.context() as patch:
        StepClock(recipe, patch, steps=2)
        stopped = ["--out", str(tmp_path / "changing"), "--minutes", "5"]
        run_alone(recipe, monkeypatch, [*options, *stopped])
    # two go on, from before there are two views of each row till after, and then one again
    script = ROOT / "recipes" / "transcribe" / "train.py"
    command = proof.torchrun(2, script, "--smoke", "--device", "cpu", "--workers", "1")
    command += [*options, "--set", "train.steps=4", "--out", str(tmp_path / "changing")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "resumed at step 2" in result.stdout
    capsys.readouterr()
    run_alone(recipe, monkeypatch, [*options, "--out", str(tmp_path / "changing")])
    assert "resumed at step 4" in capsys.readouterr().out
    assert_same_losses(read_log(tmp_path / "changing"), read_log(tmp_path / "straight"))
    straight, changing = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
        for name in ("straight", "changing")
    )
    # and whoever goes on from there, on however many, has the states of all rows; roundings grow
    for name, tensor in straight["lessons"].items():
        torch.testing.assert_close(changing["lessons"][name], tensor, rtol=0, atol=0.02)


def assert_two_go_on_as_one(
    recipe: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    proof: ModuleType,
    tmp_path: Path,
    options: list[str],
    saver: str,
) -> list[dict[str, float]]:
    """Train with one process, then with two from its first step on; return the latter's log."""
    one, two, whose = tmp_path / "one", tmp_path / "two", getattr(recipe, saver)
    save = whose.save

    def save_and_copy(run: object, *args: object) -> None:
        save(run, *args)
        if run.step == 1:
            shutil.copytree(one, two)

    options = [*options, "--save-minutes", "0"]
    with monkeypatch.context() as patch:
        patch.setattr(whose, "save", save_and_copy)
        patch.setattr(recipe, "export", lambda *args: None)  # other tests look at that
        run_alone(recipe, patch, [*options, "--out", str(one)])
    command = proof.torchrun(2, recipe.__file__, "--smoke", "--device", "cpu", "--workers", "1")
    result = subprocess.run(
        [*command, *options, "--out", str(two)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("begins at step 1,") == 1
    assert (two / "codec" / "model.safetensors").exists()
    ours, theirs = read_log(two), read_log(one)
    assert_same_losses(ours, theirs)
    # what gradients are clipped by is the norm of their mean, not of each process's
    for a, b in zip(ours, theirs, strict=True):
        for name in set(a) & {"norm", "codes_norm", "judges_norm"}:
            assert a[name] == pytest.approx(b[name], rel=1e-3), (a["step"], name)
    return ours


def test_a_codec_and_a_recogniser_on_its_encoder_go_on_with_two_processes(
    tmp_path, monkeypatch, proof
):
    data = label_speech(tmp_path / "data")
    path = data / "phones.json"  # a recogniser wants an entry for each recording
    path.write_text(path.read_text().replace('"phones": {', '"phones": {"river": [], '))
    options = ["--data", str(data), "--recogniser", "new"]
    options += settings(data__sounds='["manifest"]', data__long_share=0.5, data__long_rows=2)
    options += settings(data__long_s=5.12, train__noise_share=0.5)
    options += settings(train__steps=3, train__log_every=1, train__dev_every=3)
    options += settings(data__dev_rows=1)
    recipe = load_recipe("codec")
    rows = assert_two_go_on_as_one(recipe, monkeypatch, proof, tmp_path, options, "Run")
    assert [row["step"] for row in rows] == [1, 2, 3]
    later = set().union(*rows[1:])
    assert {"mel", "magnitude", "group_phone", "ctc", "phone", "dev_mel_1", "dev_wer"} <= later


def test_a_decoder_and_its_judges_go_on_with_two_processes(tmp_path, monkeypatch, proof):
    options = settings(second_stage__long_rows=2, data__long_share=0.5, second_stage__steps=3)
    options += settings(second_stage__train_codes="true", second_stage__head_start=1)
    options += settings(second_stage__log_every=1, data__sounds='["manifest"]', data__dev_rows=1)
    options += settings(second_stage__crop_s=0.48, second_stage__long_s=0.64)
    # gradients of their last biases cancel, and AdamW goes as far by what roundings leave of them
    options += settings(second_stage__judges_lr=3e-5)
    recipe = load_recipe("codec", "train_decoder")
    rows = assert_two_go_on_as_one(recipe, monkeypatch, proof, tmp_path, options, "Duel")
    assert [row["step"] for row in rows] == [1, 2, 3]
    whole = {"peaks", "hearing", "consistency", "pitch", "fooling", "matching", "telling"}
    assert whole | {"norm", "codes_norm", "judges_norm"} <= rows[-1].keys()


@pytest.mark.parametrize("script", ["train", "train_decoder"])
def test_rows_that_two_processes_cannot_share_are_refused_in_one_line(
    tmp_path, monkeypatch, capsys, script
):
    recipe = load_recipe("codec", script)
    monkeypatch.setattr(recipe.Ranks, "join", lambda device: Ranks(1, 2, device))
    command = ["train.py", "--smoke", "--device", "cpu", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    assert run_recipe(recipe.main) == 1
    told = "2 processes can't share 1 long_rows evenly: it takes a multiple of 2"
    assert capsys.readouterr().err == f"audiossm: error: {told}\n"
