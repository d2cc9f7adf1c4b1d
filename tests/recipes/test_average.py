"""The average of models is of their weights, however they are stored."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from audiossm.checkpoint import ModelFolder, read_weights, save_model, shrink_model
from audiossm.models import Recogniser, RecogniserConfig, save_recogniser
from recipe_run import load_recipe

SPEECH = Path(__file__).parents[1] / "speech"


def test_a_shrunk_model_can_be_averaged_with_another(tmp_path, monkeypatch):
    for name in ("one", "two"):
        weights = {"weight": torch.randn(40, 50), "bias": torch.randn(40)}
        save_model(tmp_path / name, "toy", "a line", {"sizes": {"width": 50}}, weights)
    shrink_model(tmp_path / "two", ModelFolder.open(tmp_path / "two"))
    models = [str(tmp_path / name) for name in ("one", "two")]
    command = ["average.py", *models, "--out", str(tmp_path / "mean")]
    monkeypatch.setattr(sys, "argv", command)
    load_recipe("transcribe", "average").main()
    one, two, mean = (read_weights(ModelFolder.open(tmp_path / n)) for n in ("one", "two", "mean"))
    for name in ("weight", "bias"):
        torch.testing.assert_close(mean[name], (one[name] + two[name]) / 2, rtol=1e-3, atol=1e-4)


def test_models_are_chosen_by_what_their_average_gets_wrong(tmp_path, monkeypatch, capsys):
    # pieces that aren't letters: searched greedily, which is quick
    config = replace(RecogniserConfig.tiny(), pieces=("<blank>", "▁", "a", "the"))
    for seed in (0, 1, 2):
        torch.manual_seed(seed)
        save_recogniser(tmp_path / str(seed), "a line", Recogniser(config))
    models = [str(tmp_path / str(seed)) for seed in (0, 1)]
    manifest = str(SPEECH / "manifest.jsonl")
    command = ["average.py", *models, "--out", str(tmp_path / "mean"), "--choose", manifest]
    command += ["--base", str(tmp_path / "2"), "--device", "cpu", "--workers", "1"]
    monkeypatch.setattr(sys, "argv", command)
    load_recipe("transcribe", "average").main()
    lines = capsys.readouterr().out.splitlines()
    rates = {line.split(": ")[1]: float(line.split()[0]) for line in lines if "words wrong" in line}
    assert list(rates)[:2] == models and len(rates) == 3 + 6
    (chosen,) = (line.removeprefix("averaged: ") for line in lines if "averaged" in line)
    assert rates[chosen] == min(rates[name] for name in list(rates)[:3])
    share = float(lines[-1].split()[1])
    assert rates[f"{share:g} of the way"] == min(rates[name] for name in list(rates)[3:])
    weights = [read_weights(ModelFolder.open(name)) for name in chosen.split(" + ")]
    mean, base = (read_weights(ModelFolder.open(tmp_path / name)) for name in ("mean", "2"))
    for name, value in mean.items():
        tuned = sum(each[name] for each in weights) / len(weights)
        expected = base[name] + share * (tuned - base[name])
        torch.testing.assert_close(value, expected, rtol=2e-3, atol=2e-4)
