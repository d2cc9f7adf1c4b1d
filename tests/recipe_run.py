"""A recipe's train.py as a module, a clock that stops it after some steps, and labelled audio."""

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from tiny_model import SPEECH

RECIPES = Path(__file__).parents[1] / "recipes"


def load_recipe(name: str, script: str = "train") -> ModuleType:
    """Import ``recipes/<name>/<script>.py`` under a name of its own."""
    return load_script(RECIPES / name / f"{script}.py")


def load_script(path: Path) -> ModuleType:
    """Import a file that is run as a command, under a name of its own."""
    name = f"{path.parent.name}_{path.stem}_recipe"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Parsed(BaseException):
    """Ends a script's ``main`` with what its parser made of the command line."""


def parse_only(
    path: Path, options: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> argparse.Namespace:
    """Return what a script's own parser reads; the script goes no further."""
    parse = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, *args: object, **kwargs: object) -> None:
        raise Parsed(parse(parser, *args, **kwargs))

    with monkeypatch.context() as patch:
        patch.syspath_prepend(path.parent)  # as Python does with a script
        patch.setattr(sys, "argv", [str(path), *options])
        script = load_script(path)
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        try:
            script.main()
        except Parsed as parsed:
            return parsed.args[0]
    raise AssertionError(f"{path} reads no command line")


def label_speech(folder: Path) -> Path:
    """Make a folder of the test audio with phones (whatever they are), one recording without."""
    folder.mkdir()
    rows = [json.loads(line) for line in (SPEECH / "manifest.jsonl").read_text().splitlines()]
    for row in rows:
        row["path"] = str(SPEECH / row["path"])
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "manifest.jsonl").write_text(lines)
    keys = [row["key"] for row in rows if row["key"] != "river"]
    told = {key: list("abacab"[: 3 + i % 4]) for i, key in enumerate(keys)}
    (folder / "phones.json").write_text(json.dumps({"symbols": list("abc"), "phones": told}))
    return folder


class StepClock:
    """A clock that a recipe with a limit of 5 minutes reads as over after ``steps`` steps."""

    def __init__(
        self, recipe: ModuleType, monkeypatch: pytest.MonkeyPatch, steps: int, of: str = "Run"
    ) -> None:
        whose = getattr(recipe, of)
        advance, self.left = whose.advance, steps

        def count(run: object, *args: object) -> object:
            self.left -= 1
            return advance(run, *args)

        monkeypatch.setattr(whose, "advance", count)
        monkeypatch.setattr(recipe.time, "monotonic", lambda: 0.0 if self.left > 0 else 600.0)
