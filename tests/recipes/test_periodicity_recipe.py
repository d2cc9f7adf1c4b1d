"""The recipe of turning states runs on a CPU, leaves out what is done, and makes its table."""

import itertools
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from audiossm.nn import Mamba3Config
from audiossm.train.journal import read_rows
from recipe_run import load_recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "periodicity"
RESULTS = json.loads((RECIPE / "results.json").read_text())
TINY = ("layer.d_model=8", "layer.d_state=8", "layer.head_dim=8", "train.warmup=5")
TINY += ("train.fills=2", "train.test_rows=32")


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(RECIPE)
        yield patch


def run(patch: pytest.MonkeyPatch, script: str, *arguments: object) -> None:
    patch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
    load_recipe("periodicity", script).main()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Path:
    out = tmp_path_factory.mktemp("periodicity")
    sizes = {"rows": 16, "frames": 20, "steps": 80, "pool": 128, "lr": 0.01}
    changes = [f"tasks.parity.{name}={value}" for name, value in sizes.items()]
    changes = [part for change in (*changes, *TINY) for part in ("--set", change)]
    arguments = ["--out", out, "--tasks", "parity", "--arms", "bank25", "lstm", "--device", "cpu"]
    for _ in range(2):  # the second time there is nothing left to do
        run(patch, "train", *arguments, *changes, "--seeds", 0, 1)
    return out


def test_each_seed_learns_and_has_a_row(folder):
    for arm in ("bank25", "lstm"):
        lines = (folder / f"parity-{arm}.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert [row["seed"] for row in rows] == [0, 1]
        for row in rows:
            assert (row["task"], row["arm"], row["steps"], row["of"]) == ("parity", arm, 80, 80)
            assert row["losses"][-1] < 0.8 * row["losses"][0]
            assert row["scaled_256"] == pytest.approx(2 * row["accuracy_256"] - 1, abs=1e-3)
        assert rows[0]["losses"] != rows[1]["losses"]
        kept = [load_file(folder / f"parity-{arm}-{seed}.safetensors") for seed in (0, 1)]
        assert kept[0]["head.weight"].shape == (5, 8)
        assert not kept[0]["head.weight"].equal(kept[1]["head.weight"])


def test_noise_and_smoothing_are_felt_while_it_learns_alone(patch):
    recipe, tasks = (load_recipe("periodicity", name) for name in ("train", "tasks"))
    setting = tasks.Setting(torch.device("cpu"), None, None)
    config = Mamba3Config(d_model=8, d_state=8, head_dim=8)
    losses = []
    for noise, smoothing in ((0.0, 0.0), (0.5, 0.0), (0.0, 0.2)):
        hp = {"noise": noise, "smoothing": smoothing, "length": 12}
        task = tasks.make_task("parity", setting, hp)
        torch.manual_seed(0)
        network = recipe.Network(task, config, 1, lstm=False)
        x, y = task.draw(4, 10)
        torch.manual_seed(1)
        losses.append(task.loss(network, x, y, torch.tensor(10)).item())
        with torch.no_grad():
            assert network(x).equal(network(x))
        assert {"scaled_9", "scaled_12"} <= task.score(network, 10, 4).keys()
    assert len(set(losses)) == 3


def test_a_seed_whose_line_was_broken_off_is_learnt_again(folder, tmp_path, patch, monkeypatch):
    path = tmp_path / "parity-lstm.jsonl"
    first, second = (folder / path.name).read_text().splitlines()
    path.write_text(f"{first}\n{second[:40]}")
    recipe = load_recipe("periodicity", "train")

    def learn(trainer, *_, **__):
        return [{"seed": seed, "steps": 9} for seed in trainer.seeds]

    monkeypatch.setattr(recipe.Trainer, "run", learn)
    command = ["train.py", "--out", tmp_path, "--tasks", "parity", "--arms", "lstm"]
    monkeypatch.setattr(sys, "argv", [*map(str, command), "--seeds", "0", "1", "--device", "cpu"])
    recipe.main()
    assert [(r["seed"], r["steps"]) for r in read_rows(path)] == [(0, 80), (1, 9)]


def test_the_table_has_best_and_median(folder, patch, capsys):
    pytest.importorskip("matplotlib")
    run(patch, "make_table", folder)
    assert capsys.readouterr().out == (folder / "table.md").read_text()
    cell = json.loads((folder / "table.json").read_text())["parity"]["lstm"]
    rows = [json.loads(r) for r in (folder / "parity-lstm.jsonl").read_text().splitlines()]
    found = [row["scaled_256"] for row in rows]
    assert cell["scaled_256"] == {"best": max(found), "median": sum(found) / 2}
    assert (folder / "picture.png").stat().st_size > 1000


def test_the_picture_is_drawn_anew_from_the_table(folder, tmp_path, patch, capsys):
    pytest.importorskip("matplotlib")
    run(patch, "make_table", folder)
    shutil.copy(folder / "table.json", tmp_path / "results.json")
    run(patch, "make_table", tmp_path / "results.json")
    text = (folder / "table.md").read_text()
    assert capsys.readouterr().out == 2 * text
    assert (tmp_path / "picture.png").read_bytes() == (folder / "picture.png").read_bytes()


def test_no_two_labels_of_the_picture_overlap():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure = load_recipe("periodicity", "make_table").draw(RESULTS)
    figure.draw_without_rendering()
    assert len(figure.axes) == 10
    for panel in figure.axes:
        boxes = [label.get_window_extent() for label in panel.get_xticklabels()]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    pyplot.close(figure)


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train", ["--out", "OUT", "--tasks", "singing"], "singing: there are tasks ['parity',"),
        (
            "train",
            ["--out", "OUT", "--tasks", "published"],
            "published: there are tasks ['parity',",
        ),
        ("train", ["--smoke", "--out", "OUT", "--arms", "parity"], "parity: there are arms ['pub"),
        ("train", ["--out", "OUT", "--device", "nix"], "train.py: error: device 'nix' is not one"),
        ("train", ["--out", "OUT", "--tasks", "speech"], "the task 'speech' needs --speech"),
        (
            "train",
            ["--out", "OUT", "--set", "layer.width=3"],
            "train.py: error: 'layer.width=3': expected TABLE.KEY=VALUE",
        ),
        ("make_table", ["OUT"], "no TASK-ARM.jsonl"),
        ("make_table", ["nothing.json"], "nothing.json: No such file"),
    ],
)
def test_bad_input_is_refused_in_one_line(script, arguments, message, tmp_path, patch, capsys):
    with pytest.raises(SystemExit) as refusal:
        run(patch, script, *[tmp_path if part == "OUT" else part for part in arguments])
    assert message in f"{refusal.value} {capsys.readouterr().err}"
