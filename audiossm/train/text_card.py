"""The card that a training run leaves with a model of text: what it read, for how long, on what."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from audiossm.evaluate.machine import describe_machine
from audiossm.train.run import Run

__all__ = ["write_text_card"]


def write_text_card(
    folder: Path,
    command: str,
    run: Run[Any],
    *,
    read: str,
    chosen: str,
    scores: Mapping[str, float],
    unit: str,
    source: str,
) -> None:
    """Write README.md into a model's folder.

    Only what the run knows stands there: scores on what nobody trained or chose by, what the model
    is bad at and licences are for a person to add.

    Args:
        folder: the model's.
        command: that evaluates it.
        run: the finished one.
        read: what it read, such as "9 sentences".
        chosen: what the scores are on, which is no test.
        scores: by name.
        unit: of the scores.
        source: what has licences.
    """
    machine = describe_machine(run.device.type)
    is_card = run.device.type == "cuda"
    name = torch.cuda.get_device_name(run.device) if is_card else machine["processor"]
    parameters = sum(p.numel() for p in run.product.parameters())
    lines = [
        f"# {folder.name}",
        "",
        f"{parameters / 1e6:.2f} M parameters. Trained to step {run.step} on {name}, torch "
        f"{machine['torch']}, on {read}.",
        "",
        f"Scores on {chosen}, so it is no test:",
        "",
        f"| what | {unit} |",
        "|---|---|",
        *(f"| {key} | {value:.4g} |" for key, value in scores.items()),
        "",
        f"Not evaluated yet: `{command}`. To be added: what it is bad at, and the licences of the",
        f"{source}.",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
