"""The recipe of turning states runs on a CPU, leaves out what is done, and makes its table."""

import itertools
import json
import math
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from audiossm.codec import LoadedCodec
from audiossm.config import load_toml
from audiossm.nn import Mamba3Config
from audiossm.train.journal import append_row, read_rows
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


SIZES = {"rows": 16, "frames": 20, "steps": 80, "pool": 128, "lr": 0.01}
CHANGES = [f"tasks.parity.{name}={value}" for name, value in SIZES.items()]
CHANGES = [part for change in (*CHANGES, *TINY) for part in ("--set", change)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Path:
    out = tmp_path_factory.mktemp("periodicity")
    arguments = ["--out", out, "--tasks", "parity", "--arms", "bank25", "lstm", "--device", "cpu"]
    for _ in range(2):  # the second time there is nothing left to do
        run(patch, "train", *arguments, *CHANGES, "--seeds", 0, 1)
    return out


def write_rows(folder: Path, *rows: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        row = {"task": "parity", "arm": "published", "steps": 80, "of": 80} | row
        append_row(folder / f"{row['task']}-{row['arm']}.jsonl", row)
    return folder


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


def test_the_smoke_learns_parity_beats_loops_and_tones_in_codes(tmp_path, patch):
    run(patch, "train", "--smoke", "--out", tmp_path, "--device", "cpu")
    asked = {
        "parity": "scaled_256",
        "beats": "mod8_80",
        "loops": "drift_20",
        "coded-tones": "rpa_120",
    }
    for (task, score), arm in itertools.product(asked.items(), ("published", "still")):
        (row,) = read_rows(tmp_path / f"{task}-{arm}.jsonl")
        assert (row["task"], row["arm"], row["seed"], row["steps"]) == (task, arm, 0, 40)
        assert math.isfinite(row[score]) and row["losses"][-1] < row["losses"][0]
        kept = load_file(tmp_path / f"{task}-{arm}-0.safetensors")
        assert sum(tensor.numel() for tensor in kept.values()) == row["parameters"]


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
        return [{"seed": seed, "steps": 9, "of": 80} for seed in trainer.seeds]

    monkeypatch.setattr(recipe.Trainer, "run", learn)
    command = ["train.py", "--out", tmp_path, "--tasks", "parity", "--arms", "lstm"]
    command += ["--seeds", 0, 1, "--device", "cpu", *CHANGES]
    monkeypatch.setattr(sys, "argv", [*map(str, command)])
    recipe.main()
    assert [(r["seed"], r["steps"]) for r in read_rows(path)] == [(0, 80), (1, 9)]


def test_a_seed_of_other_sizes_is_not_mixed_with_what_is_there(folder, patch, capsys):
    arguments = ["--out", folder, "--tasks", "parity", "--arms", "lstm", "--seeds", 2]
    with pytest.raises(SystemExit, match="seed 0 has frames 20, not 24: take another --out"):
        run(patch, "train", *arguments, *CHANGES, "--set", "tasks.parity.frames=24")


def test_training_ends_with_the_table_and_the_picture(folder):
    cell = json.loads((folder / "table.json").read_text())["parity"]["lstm"]
    found = [row["scaled_256"] for row in read_rows(folder / "parity-lstm.jsonl")]
    best, worst = max(found), min(found)
    assert cell["scaled_256"] == {"best": best, "median": sum(found) / 2, "worst": worst}
    assert cell["seeds"] == {"number": 2, "steps": 80, "of": 80}
    text = (folder / "table.md").read_text()
    assert "| parity | scaled_19 | " in text and "| parity | scaled_256 | " in text
    assert "| parity | steps (seeds) | 80 (2) |" in text
    assert (folder / "picture.png").exists() == (find_spec("matplotlib") is not None)


def test_without_matplotlib_a_line_says_so(folder, tmp_path, patch, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    arguments = ["--tasks", "parity", "--arms", "lstm", "--seeds", 0, "--device", "cpu", *CHANGES]
    shutil.copy(folder / "parity-lstm.jsonl", tmp_path)
    run(patch, "train", "--out", tmp_path, *arguments)
    assert "no picture.png: pictures are drawn by matplotlib" in capsys.readouterr().out
    assert (tmp_path / "table.md").exists() and not (tmp_path / "picture.png").exists()


def test_a_task_without_its_data_is_named_at_the_start_and_in_the_table(
    tmp_path, patch, monkeypatch, capsys
):
    monkeypatch.setattr(LoadedCodec, "load", lambda *_, **__: None)  # nothing is left to learn
    names = [*load_recipe("periodicity", "make_table").SHOWN][:-1]
    hp = load_toml(RECIPE / "config.toml")["tasks"]
    rows = [{"task": name, "of": hp[name]["steps"], "seed": i} for name in names for i in range(3)]
    write_rows(tmp_path, *rows)
    run(patch, "train", "--out", tmp_path, "--arms", "published", "--device", "cpu")
    told, line = capsys.readouterr(), "speech (it needs --speech: a file that make_pitch.py made)"
    assert told.err == f"left out: {line}\n"
    assert f"\nWithout rows: {line}.\n" in told.out


def test_seeds_of_several_folders_are_one_table(folder, tmp_path, patch):
    rows = read_rows(folder / "parity-lstm.jsonl")
    parts = [write_rows(tmp_path / str(row["seed"]), row) for row in rows]
    run(patch, "make_table", *parts, folder, "--out", tmp_path / "out")  # ``folder`` has the same
    for name in ("table.json", "table.md"):
        whole, merged = (folder / name).read_text(), (tmp_path / "out" / name).read_text()
        assert merged.count("lstm") == whole.count("lstm")
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert table == json.loads((folder / "table.json").read_text())


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"scaled_256": 0.5}, {"scaled_256": 0.25}, "seed 0 has two results: scaled_256 0.5 and 0"),
        ({"seed": 1}, {"of": 90}, "seeds 1 and 0: steps 80, not 90"),
        (
            {"settings": {"rows": 64, "lr": 0.1}},
            {"settings": {"rows": 32, "lr": 0.1}, "seed": 1},
            "seeds 0 and 1: rows 64, not 32",
        ),
    ],
)
def test_what_differs_is_not_merged(first, second, message, tmp_path, patch):
    folders = [
        write_rows(tmp_path / name, {"seed": 0} | row)
        for name, row in (("a", first), ("b", second))
    ]
    with pytest.raises(SystemExit, match=r"a/parity-published.jsonl and .*b/parity-pub") as refusal:
        run(patch, "make_table", *folders, "--out", tmp_path / "out")
    assert message in str(refusal.value) and not (tmp_path / "out").exists()


def test_arms_of_other_steps_or_settings_are_marked(tmp_path, patch, capsys):
    told = {"seed": 0, "scaled_256": 0.5}
    write_rows(
        tmp_path,
        told | {"settings": {"rows": 64, "arm": {}}},
        told | {"arm": "still", "steps": 70, "settings": {"rows": 64, "arm": {"turns": False}}},
        told | {"arm": "fixed", "steps": 40, "of": 40},
        told | {"arm": "mine", "settings": {"rows": 32}},
    )
    run(patch, "make_table", tmp_path)
    text = capsys.readouterr().out
    assert "| published | still | fixed | mine |" in text
    assert (
        "| 0.5 (0.5 to 0.5) | 0.5 (0.5 to 0.5) | 0.5 (0.5 to 0.5) \\* | 0.5 (0.5 to 0.5) \\* |"
        in text
    )
    assert "- parity, fixed: 40 steps, not published's 80\n" in text
    assert "- parity, mine: rows 32, not 64\n" in text


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
    panels = [panel for panel in figure.axes if panel.get_visible()]
    assert len(panels) == 10
    for panel in panels:
        for labels in (panel.get_xticklabels(), panel.texts):
            boxes = [label.get_window_extent() for label in labels]
            assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    pyplot.close(figure)


def test_the_picture_hatches_what_the_table_marks():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    recipe = load_recipe("periodicity", "make_table")
    figure = recipe.draw(RESULTS)
    panels = {panel.get_title(): panel for panel in figure.axes}
    for task, arms in RESULTS.items():
        unlike = [bool(recipe.tell_unlike(arms, arm)) for arm in recipe.list_arms(arms)]
        bars = panels[task].containers
        assert [bool(each.patches[0].get_hatch()) for each in bars] == unlike
        assert [text.get_text().endswith("*") for text in panels[task].texts] == unlike
    assert recipe.tell_unlike(RESULTS["sums"], "still") == "340 steps, not published's 40000"
    pyplot.close(figure)


def test_the_readme_has_what_the_results_have():
    table = load_recipe("periodicity", "make_table")
    text = (RECIPE.parents[1] / "README.md").read_text(encoding="utf-8")
    shown = {"parity": "scaled_256", "sums": "scaled_255", "brackets": "scaled_256"}
    shown |= {"beats": "mod4_128", "speech": "rpa"}
    for arm, words in (("published", "turn"), ("still", "don't")):
        (line,) = re.findall(rf"^\| states that {words}\b.*", text, flags=re.MULTILINE)
        for cell, (task, name) in zip(line.split("|")[2:-1], shown.items(), strict=True):
            found = RESULTS[task][arm]
            median, steps = re.match(r" ([-.\d]+) \((?:only )?(\d+)", cell).groups()
            assert float(median) == round(100 * found[name]["median"], 1)
            assert int(steps) == found["seeds"]["steps"]
            assert ("only" in cell) == bool(table.tell_unlike(RESULTS[task], arm))
            for worst in re.findall(r"one seed ([-.\d]+)", cell):
                assert float(worst) == round(100 * found[name]["worst"], 1)


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
        ("make_table", ["OUT", "OUT"], "several folders need --out"),
        (
            "make_table",
            ["nothing.json", "OUT"],
            "nothing.json: a table that is kept is drawn alone",
        ),
        ("make_table", ["nothing.json"], "nothing.json: No such file"),
    ],
)
def test_bad_input_is_refused_in_one_line(script, arguments, message, tmp_path, patch, capsys):
    with pytest.raises(SystemExit) as refusal:
        run(patch, script, *[tmp_path if part == "OUT" else part for part in arguments])
    assert message in f"{refusal.value} {capsys.readouterr().err}"
