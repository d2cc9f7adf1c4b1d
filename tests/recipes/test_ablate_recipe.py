"""Arms of the ablation are alike but for what they are named after."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from audiossm.config import change_value, dump_toml, load_toml
from audiossm.models import LoadedRecogniser, Recogniser, RecogniserConfig, save_recogniser
from recipe_run import load_recipe

SPEECH = Path(__file__).parents[1] / "speech"


@pytest.fixture
def recipe() -> ModuleType:
    return load_recipe("transcribe", "ablate")


def test_arms_of_the_shipped_sizes_have_as_many_parameters_to_within_a_per_cent(recipe):
    base = LoadedRecogniser.load().network.config
    sizes = {}
    for name in recipe.RANKS:
        with torch.device("meta"):
            network = Recogniser(recipe.arm_config(base, name))
        sizes[name] = sum(p.numel() for p in network.above_encoder().parameters())
    assert max(sizes.values()) < 1.01 * min(sizes.values()), sizes
    ranks = {name: recipe.arm_config(base, name).backbone.mixer.rank for name in recipe.RANKS}
    assert ranks == {name: arm.rank for name, arm in recipe.RANKS.items()}
    hybrids = [
        recipe.arm_config(base, n).backbone.attention_layers
        for n in ("rank1", "hybrid1", "hybrid2")
    ]
    assert hybrids == [(), (5,), (4, 8)]
    assert not recipe.arm_config(base, "euler").backbone.mixer.trapezoid
    assert not recipe.arm_config(base, "still").backbone.mixer.turns
    assert recipe.arm_config(base, "bank").backbone.mixer.num_resonant == 2


def test_an_arm_takes_over_everything_but_mixers_and_the_lighter_channels(recipe):
    torch.manual_seed(0)
    config = RecogniserConfig.tiny()
    shipped = Recogniser(config)
    with torch.no_grad():
        for block in shipped.blocks():
            block.mlp.fc2.weight[:, 8:] *= 0.1
    network = Recogniser(replace(config, backbone=replace(config.backbone, d_intermediate=48)))
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    recipe.take_over(network, shipped, 8)
    for name, weight in network.state_dict().items():
        if ".mlp." in name:
            continue
        anew = ".mixer." in name and not name.startswith("encoder.")
        assert torch.equal(weight, before[name] if anew else shipped.state_dict()[name]), name
    for ours, theirs in zip(network.blocks(), shipped.blocks(), strict=True):
        value, gate = ours.mlp.fc1.weight.chunk(2)
        old_value, old_gate = theirs.mlp.fc1.weight.chunk(2)
        assert torch.equal(value[:8], old_value[:8]) and torch.equal(gate[:8], old_gate[:8])
        assert torch.equal(ours.mlp.fc2.weight[:, :8], theirs.mlp.fc2.weight[:, :8])


def test_a_deep_arm_begins_as_the_shipped_layers_with_nothing_between_but_mixers(recipe):
    torch.manual_seed(0)
    config = RecogniserConfig.tiny()
    shipped = Recogniser(config)
    network = Recogniser(recipe.arm_config(config, "double"))
    assert (network.config.lookahead_after, network.config.backbone.num_layers) == (2, 4)
    recipe.take_over(network, shipped, config.backbone.d_intermediate)
    assert recipe.find_sources(network.config, config) == [0, None, 1, None]
    for block, conv in zip(network.blocks(), network.gated_convs(), strict=True):
        torch.nn.init.zeros_(block.mixer.out_proj.weight)
        assert conv.conv.weight.any()
    for block in shipped.blocks():
        torch.nn.init.zeros_(block.mixer.out_proj.weight)
    audio = torch.randn(1, 10 * config.frame_size) / 10
    torch.testing.assert_close(network(audio), shipped(audio))
    deep = replace(config.backbone, num_layers=10)
    sizes = replace(config, backbone=deep, lookahead_after=3, middle_after=10)
    half = recipe.arm_config(sizes, "half")
    assert (half.lookahead_after, half.middle_after) == (2, 5)
    assert recipe.find_sources(half, sizes) == [0, 2, 3, 6, 9]


def test_arms_of_heads_take_over_everything_but_the_first_head(recipe):
    torch.manual_seed(0)
    config = RecogniserConfig.tiny()
    shipped, network = Recogniser(config), Recogniser(config)
    before = network.head.weight.clone()
    recipe.take_over(network, shipped, 0)
    for name, weight in network.state_dict().items():
        wanted = before if name == "head.weight" else shipped.state_dict()[name]
        assert torch.equal(weight, wanted) or name == "head.bias", name


@pytest.mark.parametrize("arms", [["euler", "rank2"], ["letters", "pieces256"]])
def test_two_arms_train_and_are_scored(recipe, arms, tmp_path, monkeypatch):
    torch.manual_seed(0)
    tiny = RecogniserConfig.tiny()
    wide = replace(tiny, backbone=replace(tiny.backbone, d_intermediate=256))
    save_recogniser(tmp_path / "first", "", Recogniser(wide))
    for name in ("manifest.jsonl", *(path.name for path in SPEECH.glob("*.flac"))):
        (tmp_path / name).symlink_to(SPEECH / name)
    manifest = (SPEECH / "manifest.jsonl").read_text().splitlines()
    keys = [json.loads(line)["key"] for line in manifest]
    phones = {"symbols": ["a", "n", "t"], "phones": {key: ["a", "t", "n"] for key in keys}}
    (tmp_path / "phones.json").write_text(json.dumps(phones))
    table = load_toml(recipe.HERE / "config.toml")
    small = ['data.train=["manifest"]', 'data.dev=["manifest"]', "data.noise=[]", "data.rows=2"]
    small += ["data.speeds=[1.0]", "data.row_s=8.0", "train.augment=0.0", "train.warmup=2"]
    for change in small:
        change_value(table, change)
    (tmp_path / "small.toml").write_text(dump_toml(table))
    command = ["ablate.py", "--data", tmp_path, "--out", tmp_path, "--init", tmp_path / "first"]
    command += ["--config", tmp_path / "small.toml", "--arms", *arms]
    (tmp_path / "text").write_text("the cat sat on the mat\nthe catcher's hat\n")
    command += ["--text", tmp_path / "text", "--keep"]
    command += ["--steps", "4", "--workers", "1", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    recipe.main()
    rows = [json.loads(line) for line in (tmp_path / "arms.jsonl").read_text().splitlines()]
    assert [row["arm"] for row in rows] == arms
    for row in rows:
        assert row["steps"] == 4
        assert 0 < row["dev_letters"] < 100 and 0 < row["dev_phones"] < 100
        assert row["dev_per"] > 0 and 0 < row["dev_wer"] < 20
    assert rows[0]["dev_letters"] != rows[1]["dev_letters"]
    said = np.load(tmp_path / f"{arms[1]}.npz")
    assert len(said["texts"]) == len(manifest)
    for kind in ("letters", "phones"):
        frames, counts = said[f"{kind}_frames"].sum(), said[f"{kind}_counts"]
        assert len(counts) == frames and counts.sum() == len(said[f"{kind}_labels"])
        total = np.add.reduceat(
            np.exp(said[f"{kind}_log_probs"]), np.cumsum(counts, dtype=np.int64) - counts
        )
        assert np.abs(total - 1).max() < 0.01
