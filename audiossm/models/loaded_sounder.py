"""A trained sounder in memory: the network and its name."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import torch

from audiossm import checkpoint
from audiossm.checkpoint import ModelFolder, load_weights, make_empty, save_model
from audiossm.config import from_dict, to_dict
from audiossm.errors import ConfigError, ModelError
from audiossm.models.sounder import Sounder, SounderConfig, collapse

__all__ = ["LoadedSounder", "save_sounder", "shipped_sounder", "sound_out"]

BATCH = 256  # words read at a time


def shipped_sounder() -> str | None:
    """Return the name of the sounder that came with the package, or None."""
    names = checkpoint.model_names()
    return next((name for name in names if ModelFolder.open(name).kind == "sounder"), None)


def save_sounder(path: Path, description: str, network: Sounder) -> None:
    """Write a model folder."""
    tables = {"sounder": to_dict(network.config)}
    save_model(path, "sounder", description, tables, network.state_dict())


@torch.no_grad()
def sound_out(network: Sounder, words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the phones of plain words: each label frame's likeliest symbol, collapsed.

    A word whose letters are all silent to the network has none.
    """
    device, config = next(network.parameters()).device, network.config
    for start in range(0, len(words), BATCH):
        letters, lengths = network.spell(words[start : start + BATCH])
        best = network(letters.to(device), lengths.to(device)).argmax(-1).tolist()
        for path, length in zip(best, lengths.tolist(), strict=True):
            yield tuple(
                config.phones[label - 1] for label in collapse(path[: length * config.slots])
            )


class LoadedSounder:
    """A sounder with its weights. Calls don't change it: threads may share it."""

    def __init__(self, network: Sounder, *, name: str, model_hash: str) -> None:
        self.network = network.eval().requires_grad_(False)
        self.name, self.hash = name, model_hash

    @classmethod
    def load(cls, name: str | Path | None = None) -> Self:
        """Load a sounder by name (default: the shipped one) or by its folder, on the CPU.

        Raises:
            ModelError: there is none, it is damaged or of another version, or no sounder.
        """
        name = shipped_sounder() if name is None else name
        if name is None:
            raise ModelError("no sounder is shipped: give a model's folder")
        folder = ModelFolder.open(name)
        if folder.kind != "sounder":
            raise ModelError(f"{folder.path}: a {folder.kind} model can't pronounce words")
        try:
            config = from_dict(SounderConfig, folder.config.get("sounder", {}), "sounder")
            network = make_empty(Sounder, config)
        except (ConfigError, RuntimeError) as exc:  # torch's own, for sizes that no memory holds
            raise ModelError(f"{folder.path}/config.toml: {exc}") from exc
        return cls(network, name=folder.name, model_hash=load_weights(folder, network))

    def pronounce(self, words: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the phones of plain words, with their marks of stress."""
        return list(sound_out(self.network, words))
