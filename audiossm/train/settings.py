"""What a recipe is told of its data by the data: names of sets, and what was left out of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiossm.config import load_toml
from audiossm.errors import ConfigError

__all__ = ["adopt_sets", "list_left_out"]

SETTINGS = "data.toml"


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
