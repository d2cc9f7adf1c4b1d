"""A run's log as a picture."""

import json
from collections.abc import Sequence
from pathlib import Path

from audiossm.errors import DependencyError
from audiossm.pictures import load_pyplot

__all__ = ["draw_curves"]

PANELS = ("training", "dev", "gradient norm")


def panel_of(name: str) -> str:
    """Return where a logged number is drawn."""
    if name == "norm":
        return "gradient norm"
    return "dev" if name.startswith("dev_") else "training"


def draw_curves(runs: Sequence[Path], out: Path) -> bool:
    """Draw ``log.jsonl`` of run folders side by side into one picture.

    Returns:
        whether there is a picture: without matplotlib (extra ``train``) there is none.
    """
    try:
        pyplot = load_pyplot()
    except DependencyError:
        return False
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(15, 4.5), layout="constrained")
    by_panel = dict(zip(PANELS, axes, strict=True))
    for run in runs:
        rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        names = {name: None for row in rows for name in row if name not in ("step", "minutes")}
        for name in names:
            points = [(row["step"], row[name]) for row in rows if name in row]
            by_panel[panel_of(name)].plot(*zip(*points, strict=True), label=f"{run.name}: {name}")
    for panel, axis in by_panel.items():
        axis.set(title=panel, xlabel="step")
        axis.set_yscale("linear" if panel == "dev" else "log")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize="small")
    figure.savefig(out)
    pyplot.close(figure)
    return True
