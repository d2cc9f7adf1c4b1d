"""What a recipe is told of its data by the data: names of sets, and what was left out of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audiossm.config import load_toml
from audiossm.errors import ConfigError

__all__ = ["adopt_sets", "check_settings", "list_left_out"]

SETTINGS = "data.toml"
# what is counted in, divided by or resampled to
ABOVE_ZERO = frozenset(
    "batch block crop_rows crop_s dev_batches dev_every dev_rows log_every long_rows long_s "
    "num_pieces num_words row_frames row_pieces row_s row_words rows speeds warmup".split()
)


def check_settings(table: Mapping[str, Any], config: Path, names: Sequence[str]) -> None:
    """Compare tables with those of a recipe's own config: the same keys, of the same types.

    Args:
        table: as the recipe is about to use it.
        config: the recipe's own config.toml.
        names: of the tables.

    Raises:
        ConfigError: a key is missing or unknown, or its value is none that the recipe can use.
    """
    for name, pattern in load_toml(config).items():
        if name not in names:
            continue
        given = table.get(name)
        if not isinstance(given, Mapping):
            raise ConfigError(f"the config has no table [{name}], as {config} has")
        if missing := sorted(pattern.keys() - given.keys()):
            raise ConfigError(f"missing key {name}.{missing[0]!r}; {config} has it")
        if unknown := sorted(given.keys() - pattern.keys()):
            raise ConfigError(f"unknown key {name}.{unknown[0]!r}; there are {sorted(pattern)}")
        for key, model in pattern.items():
            check_setting(f"{name}.{key}", given[key], model, positive=key in ABOVE_ZERO)


def check_setting(where: str, value: Any, model: Any, *, positive: bool) -> None:
    """Compare one value with the one that the recipe's own config has.

    Raises:
        ConfigError: it is of another kind, or must be ``positive`` and isn't.
    """
    if isinstance(model, dict):
        return  # a table of sizes, which its dataclass checks
    if isinstance(model, list):
        if not isinstance(value, list):
            raise ConfigError(f"{where} is {value!r}, expected a list, as {model}")
        if not value and model and not isinstance(model[0], str):
            raise ConfigError(f"{where} is empty, expected a list, as {model}")
        for item in value if model else ():
            check_setting(where, item, model[0], positive=positive)
        return
    kinds = (float, int) if isinstance(model, float) else type(model)
    if isinstance(value, bool) is not isinstance(model, bool) or not isinstance(value, kinds):
        kind = "a whole number" if type(model) is int else "a number"
        kind = {str: "a text", bool: "true or false"}.get(type(model), kind)
        raise ConfigError(f"{where} is {value!r}, expected {kind}, as {model!r}")
    if positive and not value > 0:
        raise ConfigError(f"{where} is {value!r}, expected more than 0, as {model!r}")


def adopt_sets(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a recipe's table ``data`` with the names of sets that stand in a folder's data.toml.

    ``audiossm prepare`` writes that file. Sets that the recipe has no use for are left out.

    Raises:
        ConfigError: the file is there, but it isn't such a table.
    """
    path = folder / SETTINGS
    if not path.exists():
        return data
    sets = load_toml(path).get("data")
    if not isinstance(sets, dict) or not all(isinstance(names, list) for names in sets.values()):
        raise ConfigError(f"{path}: expected a table [data] of lists of names")
    return data | {kind: names for kind, names in sets.items() if kind in data}


def list_left_out(path: Path, faults: Mapping[str, str]) -> None:
    """Write what a run doesn't learn from, ``{"key", "fault"}`` a line; print how much it is."""
    path.unlink(missing_ok=True)
    if not faults:
        return
    rows = (
        json.dumps({"key": key, "fault": why}, ensure_ascii=False) for key, why in faults.items()
    )
    path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")
    print(f"{len(faults)} recordings are left out: {path} says why", flush=True)
