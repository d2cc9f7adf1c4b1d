"""Arms of the generator's ablation are alike but for what they are named after."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from audiossm.checkpoint import save_model
from audiossm.config import dump_toml, from_dict, load_toml, to_dict
from audiossm.manifest import read_manifest
from audiossm.models.generator import GeneratorConfig
from audiossm.train.timed_scripts import write_timed_scripts
from recipe_run import load_recipe
from toy_codec import make_codec

ROOT = Path(__file__).parents[2]
SPEECH = ROOT / "tests" / "speech"


@pytest.fixture
def recipe() -> ModuleType:
    return load_recipe("generate", "ablate")


def test_arms_of_the_recipe_s_sizes_have_as_many_parameters(recipe):
    table = load_toml(ROOT / "recipes" / "generate" / "config.toml")
    config = from_dict(GeneratorConfig, table["generator"], "generator")
    sizes = [recipe.count(recipe.make_arm(config, name, 9, 0.0)) for name in ("delay", "depth")]
    assert abs(sizes[1] / sizes[0] - 1) < 0.005, sizes


def test_without_rotation_no_state_turns(recipe):
    talker = recipe.make_arm(GeneratorConfig.tiny(), "unrotated", 2, 0.0)
    x = torch.randn(2, 5, talker.generator.config.backbone.d_model)
    _, state = talker.generator.step(x, talker.generator.init_state(2))
    assert all((layer.angle != 0).any() for layer in state.layers)
    recipe.stop_rotation(talker.generator)
    _, state = talker.generator.step(x, talker.generator.init_state(2))
    for layer in state.layers:
        assert (layer.angle == 0).all() and (layer.ssm != 0).any()


def test_strangers_which_no_arm_is_judged_by_are_refused(recipe, tmp_path, monkeypatch, capsys):
    change = 'data.strangers=["new"]'
    command = ["ablate.py", "--data", str(SPEECH), "--out", str(tmp_path), "--set", change]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        recipe.main()
    assert "data.strangers is train.py's alone" in capsys.readouterr().err


def test_arms_train_and_are_scored(recipe, tmp_path, monkeypatch):
    codec = make_codec()
    save_model(tmp_path / "toy", "codec", "", {"codec": to_dict(codec.config)}, codec.state_dict())
    smoke = load_recipe("generate")
    utterances = read_manifest(SPEECH / "manifest.jsonl")
    size, rate = codec.config.frame_size, codec.config.sample_rate
    frames = {u.key: round((u.seconds or 0) * rate) // size for u in utterances}
    lines = (SPEECH / "manifest.jsonl").read_text().replace('"path": "', f'"path": "{SPEECH}/')
    (tmp_path / "manifest.jsonl").write_text(lines)
    write_timed_scripts(tmp_path / "said.jsonl", smoke.part_evenly(utterances, frames))
    table = load_toml(ROOT / "recipes" / "generate" / "config.toml")
    table["generator"] = to_dict(GeneratorConfig.tiny())
    table["data"] |= smoke.SMOKE_DATA
    (tmp_path / "config.toml").write_text(dump_toml(table))
    command = ["ablate.py", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    command += ["--config", str(tmp_path / "config.toml"), "--codec", str(tmp_path / "toy")]
    command += ["--device", "cpu", "--workers", "1", "--steps", "2"]
    monkeypatch.setattr(sys, "argv", [*command, "--arms", "delay", "depth", "unrotated"])
    recipe.main()
    rows = [json.loads(line) for line in (tmp_path / "out" / "arms.jsonl").read_text().splitlines()]
    assert [row["arm"] for row in rows] == ["delay", "depth", "unrotated"]
    for row in rows:
        assert row["steps"] == 2 and 5 < row["dev_bits_0_alone"] < 15
        assert {"dev_bits_1", "dev_bits_1_untold", "dev_ends", "params", "seconds"} <= set(row)
    assert len({row["dev_bits_0"] for row in rows}) == 3
