"""The card that a training run leaves with its model: what it heard, for how long, on what."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from audiossm.evaluate.machine import describe_machine
from audiossm.train.corpus import SAMPLE_RATE, Corpus

__all__ = ["write_card"]


def write_card(
    folder: Path,
    command: str,
    network: nn.Module,
    train: Corpus,
    log: Path,
    device: torch.device,
    scores: Mapping[str, float] | None = None,
) -> None:
    """Write README.md into a model's folder.

    Only what the run knows stands there: error rates on sets that nobody trained or chose by, what
    the model is bad at and the licences of the data are for a person to add.

    Args:
        folder: the model's.
        command: that evaluates it.
        network: for the number of parameters.
        train: what it heard.
        log: the run's log.jsonl.
        device: what it ran on.
        scores: of the model as it is saved, on dev.
    """
    seconds = defaultdict[str, float](float)
    for source, size in zip(train.sources, train.sizes, strict=True):
        seconds[source or "no source given"] += int(size) / SAMPLE_RATE
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    last = {name: value for row in rows for name, value in row.items()} | dict(scores or {})
    machine = describe_machine(device.type)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else machine["processor"]
    parameters = sum(p.numel() for p in network.parameters())
    lines = [
        f"# {folder.name}",
        "",
        f"{parameters / 1e6:.1f} M parameters. Trained to step {last.get('step', 0)} on {name}, "
        f"torch {machine['torch']}.",
        "",
        f"Trained on {train.hours:.2f} hours:",
        "",
        "| source | hours |",
        "|---|---|",
        *(f"| {source} | {s / 3600:.2f} |" for source, s in sorted(seconds.items())),
        "",
        "Last logged numbers of the run (dev chose among its versions, so it is no test):",
        "",
        "| what | value |",
        "|---|---|",
        *(f"| {key} | {value:.4g} |" for key, value in last.items()),
        "",
        f"Not evaluated yet: `{command}`. To be added: what it is bad at, and the licences of the",
        "sources above.",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
