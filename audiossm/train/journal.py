"""What a run logs: lines of log.jsonl, and TensorBoard's events beside them."""

import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from audiossm.errors import DependencyError
from audiossm.train.ranks import ALONE, Ranks

__all__ = ["Journal", "Means", "append_row", "read_rows"]


class Journal:
    """Writes the rows of a run from a step on; of several processes only the first one does.

    Rows of later steps, which a run that was killed has logged but not saved, go: they come again.

    Args:
        out: the run's folder.
        step: that it begins at.
        tensorboard: write events into ``out/tensorboard``.
        ranks: the processes.

    Raises:
        DependencyError: TensorBoard is not installed.
    """

    def __init__(
        self, out: Path, step: int, *, tensorboard: bool = False, ranks: Ranks = ALONE
    ) -> None:
        self.path, self.ranks = out / "log.jsonl", ranks
        self._events: Any = None
        if not ranks.leads:
            return
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if is_before(line, step)]
            if kept != lines:
                self.path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        if tensorboard:
            self._events = open_events(out / "tensorboard", step)

    def write(self, row: dict[str, float]) -> None:
        """Print a row that has a ``step``, append it to the log, and tell TensorBoard."""
        self.ranks.tell(row, self.path)
        if self._events is not None:
            for name, number in row.items():
                if name not in ("step", "minutes"):
                    self._events.add_scalar(name, number, row["step"])

    def close(self) -> None:
        """Write what is left."""
        if self._events is not None:
            self._events.close()


class Means:
    """The means of scalars that steps bring, each over the steps since ``take``.

    Nothing here waits for the device. A run that goes on from a checkpoint begins anew.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, parts: dict[str, Tensor]) -> None:
        """Count the scalars of one step, by their names."""
        for name, part in parts.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + part.detach(), count + 1

    def take(self) -> dict[str, Tensor]:
        """Return the means, scalars where they were, and forget them."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        return means


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append a line of JSON and wait until the disk has it; one that was broken off stays alone."""
    with path.open("ab+") as file:
        begun = file.tell() > 0
        if begun:
            file.seek(-1, os.SEEK_END)
            begun = file.read() != b"\n"
        file.write(b"\n" * begun + json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file, without lines that a run was killed in the middle of."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def is_before(line: str, step: int) -> bool:
    """Tell whether a line is whole and of this step or one before."""
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError):
        return False  # the run was killed while it wrote


def open_events(folder: Path, step: int) -> Any:
    """Return a writer of TensorBoard's events that replaces those after a step."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as exc:
        raise DependencyError(
            "--tensorboard needs TensorBoard, which is not installed: pip install 'audiossm[train]'"
        ) from exc
    writer: Any = SummaryWriter
    return writer(folder, purge_step=step + 1)
