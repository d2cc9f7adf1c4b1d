"""Both recipes' ablate.py refuse settings that there aren't."""

import sys

import pytest

from recipe_run import load_recipe


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "train.speed=1"], "'train.speed=1': expected TABLE.KEY=VALUE with a key of"),
        (["--set", "train.lr='fast'"], "train.lr is 'fast', expected a number, as 0.001"),
        (["--config", "CONFIG"], "unknown key train.'speed'; there are ["),
    ],
)
@pytest.mark.parametrize("name", ["transcribe", "generate"])
def test_settings_that_are_none_are_refused_in_one_line(
    name, options, message, tmp_path, monkeypatch, capsys
):
    recipe = load_recipe(name, "ablate")
    config = (recipe.HERE / "config.toml").read_text()
    (tmp_path / "config.toml").write_text(config.replace("[train]\n", "[train]\nspeed = 1\n"))
    options = [str(tmp_path / "config.toml") if x == "CONFIG" else x for x in options]
    command = ["ablate.py", "--data", str(tmp_path), "--out", str(tmp_path), *options]
    monkeypatch.setattr(sys, "argv", command)
    assert recipe.run_recipe(recipe.main) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and message in told[0]
