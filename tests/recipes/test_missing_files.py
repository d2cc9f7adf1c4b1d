"""The recipes' tools end in one line where what they are to read isn't there."""

import sys

import pytest

from recipe_run import RECIPES, load_recipe

TOOLS = [
    "codec/shrink.py LOST --out OUT",
    "generate/hold_out.py --data FOLDER --out FOLDER/held-out.jsonl",
    "generate/make_voices.py LOST",
    "generate/time_scripts.py lost --data FOLDER --out OUT/said.jsonl",
    "lm/make_ngrams.py LOST --out OUT/ngrams",
    "lm/read_books.py LOST --out OUT/books.txt",
    "lm/rescore.py list LOST --out OUT/lists.jsonl",
    "periodicity/make_pitch.py --data FOLDER --out OUT",
    "transcribe/make_phones.py LOST train",
    "transcribe/make_ways.py LOST --out OUT",
    "transcribe/refit_letters.py LOST --data FOLDER --out OUT",
    "transcribe/split_speakers.py LOST --out OUT",
]


@pytest.mark.parametrize("command", TOOLS)
def test_a_file_that_is_not_there_is_named_in_one_line(command, tmp_path, monkeypatch, capsys):
    (tmp_path / "FOLDER").mkdir()
    script, *options = command.split()
    monkeypatch.syspath_prepend(RECIPES / script.split("/")[0])  # as for a command
    recipe = load_recipe(*script.removesuffix(".py").split("/"))
    for name in ("LOST", "OUT", "FOLDER"):
        options = [option.replace(name, str(tmp_path / name)) for option in options]
    monkeypatch.setattr(sys, "argv", [script, *options])
    assert recipe.run_recipe(recipe.main, resumes=False) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and str(tmp_path) in told[0]


@pytest.mark.parametrize(
    "command",
    [
        "periodicity/make_table.py LOST --out OUT",
        "periodicity/train.py --out OUT --config LOST",
        "transcribe/make_manifest.py LOST --out OUT/manifest.jsonl",
    ],
)
def test_so_do_tools_that_look_before_they_begin(command, tmp_path, monkeypatch, capsys):
    script, *options = command.split()
    monkeypatch.syspath_prepend(RECIPES / script.split("/")[0])
    recipe = load_recipe(*script.removesuffix(".py").split("/"))
    for name in ("LOST", "OUT"):
        options = [option.replace(name, str(tmp_path / name)) for option in options]
    monkeypatch.setattr(sys, "argv", [script, *options])
    with pytest.raises(SystemExit) as ended:
        recipe.run_recipe(recipe.main, resumes=False)
    told = capsys.readouterr().err.strip() or str(ended.value)
    assert ended.value.code not in (0, None) and str(tmp_path / "LOST") in told.splitlines()[-1]
