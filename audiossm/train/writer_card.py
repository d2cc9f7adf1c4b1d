"""The card that a training run leaves with a writer: what it read, for how long, on what."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from audiossm.evaluate.machine import describe_machine
from audiossm.train.run import Run
from audiossm.train.sentences import Sentences

__all__ = ["write_writer_card"]


def write_writer_card(
    folder: Path,
    command: str,
    run: Run[nn.Module],
    sentences: Sentences,
    dev: Mapping[str, float],
) -> None:
    """Write README.md into a model's folder.

    Only what the run knows stands there: scores on sentences that nobody trained or chose by, what
    the model is bad at and the licences of the text are for a person to add.

    Args:
        folder: the model's.
        command: that evaluates it.
        run: the finished one.
        sentences: what it read.
        dev: its scores on the sentences that its offsets were chosen by.
    """
    machine = describe_machine(run.device.type)
    is_card = run.device.type == "cuda"
    name = torch.cuda.get_device_name(run.device) if is_card else machine["processor"]
    parameters = sum(p.numel() for p in run.product.parameters())
    lines = [
        f"# {folder.name}",
        "",
        f"{parameters / 1e6:.2f} M parameters. Trained to step {run.step} on {name}, torch "
        f"{machine['torch']}, on {len(sentences.starts) - 1} written sentences of "
        f"{len(sentences.ids)} words.",
        "",
        "Scores on the sentences that offsets were chosen by, so it is no test:",
        "",
        "| what | F1 |",
        "|---|---|",
        *(f"| {key} | {value:.4g} |" for key, value in dev.items()),
        "",
        f"Not evaluated yet: `{command}`. To be added: what it is bad at, and the licences of the",
        "sentences.",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
