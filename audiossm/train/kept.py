"""Files of tensors that a run keeps for the next one: whole or not there at all."""

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch

from audiossm.errors import ModelError, OutputError
from audiossm.manifest import Utterance

__all__ = ["name_versions", "read_kept", "write_kept"]


def write_kept(tensors: dict[str, Any], path: Path) -> None:
    """Write a file; whoever is killed meanwhile leaves the older one as it was.

    Raises:
        OutputError: it can't be written to its end.
    """
    fresh = path.with_name(f"{path.name}.new")
    try:
        torch.save(tensors, fresh)
    except RuntimeError as exc:  # what torch makes of a disk that is full, whatever it says
        fresh.unlink(missing_ok=True)
        raise OutputError(f"{path}: can't be written to its end: is the disk full?") from exc
    fresh.replace(path)


def read_kept(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what ``write_kept`` wrote.

    Raises:
        ModelError: it is damaged.
    """
    try:
        if is_zipfile(path):
            kept = torch.load(path, map_location=device, weights_only=True)
            if isinstance(kept, dict):
                return kept
    except (RuntimeError, UnpicklingError, EOFError, ValueError):
        pass  # what it is to be like is said below
    raise ModelError(f"{path}: damaged, or not what a run kept: delete it, and it is made anew")


def name_versions(utterances: Sequence[Utterance]) -> list[str]:
    """Name recordings and the files they are in, which have other names once they are changed."""
    files = dict[Path, str]()
    names = []
    for utterance in utterances:
        path = utterance.path or utterance.shard
        assert path is not None
        if path not in files:
            try:
                found = path.stat()
                files[path] = f"{found.st_size} {found.st_mtime_ns}"
            except OSError:
                files[path] = "missing"
        names.append(f"{utterance.key} {files[path]}")
    return names
