"""A trained writer in memory: the network and its name."""

from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor

from audiossm import checkpoint
from audiossm.checkpoint import ModelFolder, load_weights, make_empty, save_model
from audiossm.config import from_dict, to_dict
from audiossm.errors import ConfigError, ModelError
from audiossm.graphs import Step, Ways, hash_sizes, run_once
from audiossm.marks import CAPITAL, CASES, LOWER, STOPS
from audiossm.models.writer import BORDER, Writer, WriterConfig, WriterState

__all__ = [
    "Forms",
    "LoadedWriter",
    "choose_forms",
    "make_writer_step",
    "save_writer",
    "shipped_writer",
]


class Forms(NamedTuple):
    """How words are written."""

    cases: Tensor  # (words,) int64, indices into CASES
    marks: Tensor  # (words,) int64, indices into MARKS


def choose_forms(logits: Tensor, before: int) -> Forms:
    """Choose the likeliest case and mark of each word; a sentence begins with a capital.

    Args:
        logits: (words, cases + marks).
        before: the mark before the first of them.
    """
    cases = logits[:, : len(CASES)].argmax(-1)
    marks = logits[:, len(CASES) :].argmax(-1)
    previous = torch.cat([marks.new_tensor([before]), marks])[: len(marks)]
    begins = torch.isin(previous, marks.new_tensor(STOPS)) & (cases == LOWER)
    return Forms(cases.masked_fill(begins, CAPITAL), marks)


def shipped_writer() -> str | None:
    """Return the name of the writer that came with the package, or None."""
    names = checkpoint.model_names()
    return next((name for name in names if ModelFolder.open(name).kind == "writer"), None)


def make_writer_step(network: Writer) -> Step[WriterState]:
    """Describe what is done with each word, for torch and for graphs."""
    config = network.config
    return Step(
        name="write",
        network=network,
        call=_write,
        init_state=network.init_state,
        unit=1,
        width=(config.d_embedding,),
        outputs=(("logits", 1),),
        sizes=hash_sizes(
            {"backbone": to_dict(config.backbone)}
            | {"d_embedding": config.d_embedding, "lookahead": config.lookahead}
        ),
        unused="embedding",
    )


def _write(
    network: Writer, x: Tensor, state: WriterState
) -> tuple[tuple[Tensor, ...], WriterState]:
    logits, state = network.step_embedded(x, state)
    return (logits,), state


def save_writer(path: Path, description: str, network: Writer) -> None:
    """Write a model folder."""
    tables = {"writer": to_dict(network.config)}
    save_model(path, "writer", description, tables, network.state_dict())


class LoadedWriter:
    """A writer with its weights. Calls don't change it: threads and sessions may share it."""

    def __init__(
        self, network: Writer, *, name: str, model_hash: str, folder: Path | None = None
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.name, self.hash = name, model_hash
        self.lookahead = network.config.lookahead
        self.ways = Ways(make_writer_step(self.network), torch.device("cpu"), "auto", folder)

    @classmethod
    def load(cls, name: str | Path | None = None) -> Self:
        """Load a writer by name (default: the shipped one) or by its folder, on the CPU.

        Raises:
            ModelError: there is none, it is damaged or of another version, or no writer.
        """
        name = shipped_writer() if name is None else name
        if name is None:
            raise ModelError("no writer is shipped: give a model's folder")
        folder = ModelFolder.open(name)
        if folder.kind != "writer":
            raise ModelError(f"{folder.path}: a {folder.kind} model can't punctuate")
        try:
            config = from_dict(WriterConfig, folder.config.get("writer", {}), "writer")
            network = make_empty(Writer, config)
        except (ConfigError, RuntimeError) as exc:  # torch's own, for sizes that no memory holds
            raise ModelError(f"{folder.path}/config.toml: {exc}") from exc
        digest = load_weights(folder, network)
        return cls(network, name=folder.name, model_hash=digest, folder=folder.path)

    def init_state(self) -> WriterState:
        """Return the state at the beginning of a text, which is a border."""
        return self._beginning

    @cached_property
    def _beginning(self) -> WriterState:
        state = self.network.init_state(1)
        for _ in range(self.lookahead):
            _, state = self.step(BORDER, state)
        return state

    @torch.no_grad()
    def step(self, word: str, state: WriterState) -> tuple[Tensor, WriterState]:
        """Take one word or ``BORDER``; by a graph if there is one, which is ten times as fast.

        Returns:
            logits (1, cases + marks) of the word ``lookahead`` words before; and the state.
        """
        x = self.network.embed(self.network.config.features([word]).unsqueeze(0))
        if self.ways.choose(1) == "torch":
            logits, state = self.network.step_embedded(x, state)
        else:
            (logits,), state = run_once(self.ways.graphs, x, state)
        return logits[0], state
