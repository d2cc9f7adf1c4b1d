"""The average of models is of their weights, however they are stored."""

import sys

import torch

from audiossm.checkpoint import ModelFolder, read_weights, save_model, shrink_model
from recipe_run import load_recipe


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
