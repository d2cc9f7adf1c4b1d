"""Data tells the recipes its sets, and a run lists what it leaves out."""

import json
from pathlib import Path

import pytest

from audiossm.config import load_toml
from audiossm.errors import ConfigError
from audiossm.text import CHARACTERS, Vocabulary
from audiossm.train.corpus import Corpus
from audiossm.train.phones import Phones, read_phones
from audiossm.train.settings import adopt_sets, check_settings
from audiossm.train.spoken import load_spoken
from tiny_model import SPEECH

DATA = {"train": ["x"], "dev": ["y"], "noise": [], "rows": 2, "row_s": 5.0, "speeds": [1.0]}


def test_a_folder_names_its_sets_and_nothing_else(tmp_path):
    assert adopt_sets(DATA, tmp_path) == DATA
    (tmp_path / "data.toml").write_text('[data]\ntrain = ["a", "b"]\nsounds = ["c"]\n')
    assert adopt_sets(DATA, tmp_path) == DATA | {"train": ["a", "b"]}
    for wrong in ("train = ['a']\n", "[data]\ntrain = 'a'\n"):
        (tmp_path / "data.toml").write_text(wrong)
        with pytest.raises(ConfigError, match=r"data.toml: expected a table \[data\] of lists"):
            adopt_sets(DATA, tmp_path)


RECIPE = """
[data]
train = ["x"]
noise = []
speeds = [1.0]

[train]
steps = 10
rows = 2
lr = 1e-3
consistency_from = 5
"""


@pytest.mark.parametrize(
    ("table", "key", "value", "message"),
    [
        ("train", "lr", 1, ""),  # whole numbers serve as others
        ("data", "train", [], ""),
        ("data", "noise", ["y"], ""),
        ("train", "consistency_from", 0, ""),
        ("train", "lr", "fast", "train.lr is 'fast', expected a number, as 0.001"),
        ("train", "steps", 2.5, "train.steps is 2.5, expected a whole number, as 10"),
        ("train", "steps", True, "train.steps is True, expected a whole number"),
        ("train", "rows", 0, "train.rows is 0, expected more than 0"),
        ("data", "train", "x", r"data.train is 'x', expected a list, as \['x'\]"),
        ("data", "train", [1], "data.train is 1, expected a text"),
        ("data", "speeds", [], "data.speeds is empty"),
        ("data", "speeds", [1.0, 0.0], "data.speeds is 0.0, expected more than 0"),
        ("train", "learning_rate", 1.0, r"unknown key train.'learning_rate'; there are \['con"),
        ("train", "rows", None, "missing key train.'rows'"),
    ],
)
def test_settings_are_those_of_the_recipe_s_own_config(table, key, value, message, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text(RECIPE)
    given = load_toml(config) | {"other": {}}
    check_settings(given, config, ("data", "train"))
    given[table] = {k: v for k, v in (given[table] | {key: value}).items() if v is not None}
    if message:
        with pytest.raises(ConfigError, match=message):
            check_settings(given, config, ("data", "train"))
    else:
        check_settings(given, config, ("data", "train"))


def test_the_config_for_fine_tuning_has_the_recipe_s_settings():
    recipe = Path(__file__).parents[2] / "recipes" / "transcribe"
    tuned = load_toml(recipe / "fine_tune.toml")
    check_settings(tuned, recipe / "config.toml", ("data", "train"))


def test_what_is_not_learnt_from_is_listed_with_the_reason(tmp_path, capsys):
    rows = [json.loads(line) for line in (SPEECH / "manifest.jsonl").read_text().splitlines()][:5]
    for row in rows:
        row["path"] = str(SPEECH / row["path"])
    rows[1]["text"], rows[2]["text"] = "?!", "All 9 of them"
    rows[3]["path"] = str(tmp_path / "broken.wav")
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DATA | {"dev": ["x"]}
    vocabulary, none = Vocabulary(CHARACTERS), Phones((), {})
    for _ in range(2):  # decoded, and from the cache
        (train,), dev, _ = load_spoken(tmp_path, data, vocabulary, none, tmp_path, 1, "cpu")
        assert len(train) == len(dev) == 2
        listed = (tmp_path / "left-out.jsonl").read_text().splitlines()
        faults = {row["key"]: row["fault"] for row in map(json.loads, listed)}
        assert faults.keys() == {"river", "bread", "station", "garden"}
        assert faults["river"] == "longer than a row of 5.0 s"
        assert faults["bread"] == "no words in the text"
        assert faults["station"] == "digits in the text"
        assert "broken.wav" in faults["garden"]
        assert "4 recordings are left out" in capsys.readouterr().out
    assert isinstance(train, Corpus)
    (tmp_path / "beside").mkdir()
    data |= {"beside": ["x"]}
    (both,), _, _ = load_spoken(tmp_path, data, vocabulary, none, tmp_path / "beside", 1, "cpu")
    assert both.sources == [*train.sources, *(f"beside {source}" for source in train.sources)]


def test_phones_take_the_ids_of_another_list_of_symbols(tmp_path):
    path = tmp_path / "phones.json"
    path.write_text(json.dumps({"symbols": ["a", "s"], "phones": {"k": ["s", "a", "s"]}}))
    phones = read_phones(path)
    assert phones.by_key["k"] == [2, 1, 2]
    other = phones.in_order(("a", "b", "s"))
    assert (other.symbols, other.by_key["k"]) == (("a", "b", "s"), [3, 1, 3])
    assert phones.in_order(("a", "s")) is phones
    assert Phones((), {}).in_order(("a",)).symbols == ()
