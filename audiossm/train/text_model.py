"""A Mamba-3 language model over pieces of words: what it gives each word of a sentence."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from audiossm.config import to_dict
from audiossm.models.language_model import LanguageModel, LanguageModelConfig
from audiossm.train.pieces import BORDER, Pieces

__all__ = ["TextModel", "piece_loss"]

WEIGHTS, CONFIG = "model.safetensors", "config.json"


class TextModel:
    """Pieces and the network that predicts them; a sentence begins from the zero state."""

    def __init__(self, pieces: Pieces, network: LanguageModel) -> None:
        self.pieces, self.network = pieces, network

    @torch.no_grad()
    def score(self, sentences: Sequence[str], rows: int = 64) -> list[list[float]]:
        """Return log-probabilities of each sentence's words and of its end, natural."""
        network, scores = self.network.eval(), [[0.0]] * len(sentences)
        device = next(network.parameters()).device
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        for begin in range(0, len(order), rows):
            items = order[begin : begin + rows]
            split = [[self.pieces.split(word) for word in sentences[i].split()] for i in items]
            ids = [torch.tensor([BORDER, *sum(words, []), BORDER]) for words in split]
            padded = nn.utils.rnn.pad_sequence(ids, batch_first=True).to(device)
            logits = network(padded[:, :-1]).float()
            logs = -F.cross_entropy(logits.transpose(1, 2), padded[:, 1:], reduction="none").cpu()
            for item, words, row in zip(items, split, logs, strict=True):
                lengths = [*map(len, words), 1]
                parts = row[: sum(lengths)].split(lengths)
                scores[item] = [float(part.sum()) for part in parts]
        return scores

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors, halves."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {"pieces": self.pieces.symbols, "network": to_dict(self.network.config)}
        (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")
        weights = self.network.backbone.state_dict()  # the head is the embedding's
        save_file({name: weight.half().cpu() for name, weight in weights.items()}, folder / WEIGHTS)

    @staticmethod
    def load(folder: Path) -> "TextModel":
        """Read what ``save`` wrote."""
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        network = LanguageModel(LanguageModelConfig.from_json(config["network"]))
        weights = load_file(folder / WEIGHTS)
        network.backbone.load_state_dict({name: w.float() for name, w in weights.items()})
        return TextModel(Pieces(config["pieces"]), network)


def piece_loss(network: LanguageModel, rows: Tensor) -> Tensor:
    """Return nats a piece of (rows, pieces + 1) ids that begin with a sentence."""
    logits = network(rows[:, :-1])
    loss: Tensor = F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())
    return loss
