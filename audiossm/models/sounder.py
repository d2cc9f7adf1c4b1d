"""The sounder network: the letters of a word to its phones, all letters in view."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from audiossm.errors import ConfigError, ShapeError
from audiossm.models.recogniser import BackboneConfig
from audiossm.nn import Block, RMSNorm

__all__ = ["LETTERS", "Sounder", "SounderConfig", "collapse"]

LETTERS = "'abcdefghijklmnopqrstuvwxyz"  # ids from 1 on; 0 is beyond the word's end


@dataclass(frozen=True, kw_only=True)
class SounderConfig:
    """Sizes of the sounder.

    Attributes:
        backbone: of Mamba-3 layers, a frame being a letter.
        symbols: phones, with and without stress, parted by spaces; the CTC blank isn't listed.
        d_embedding: channels of a letter.
        conv_kernel: letters that the first layer sees of each letter's surroundings; odd.
        slots: label frames of a letter, at most so many phones.
        dropout: while it is trained.
    """

    backbone: BackboneConfig
    symbols: str
    d_embedding: int = 32
    conv_kernel: int = 5
    slots: int = 3
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse sizes that nothing can have."""
        for name in ("d_embedding", "conv_kernel", "slots"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.conv_kernel % 2 == 0:
            raise ConfigError(f"conv_kernel must be odd, not {self.conv_kernel}")
        if not self.phones or len(set(self.phones)) != len(self.phones):
            raise ConfigError("symbols is empty or has the same phone twice")
        _ = self.backbone.mixer

    @property
    def phones(self) -> tuple[str, ...]:
        """The symbols in order; label 0 is the blank, and the first of them is label 1."""
        return tuple(self.symbols.split())

    @classmethod
    def tiny(cls, symbols: str = "a ˈa n t") -> "SounderConfig":
        """Return a config for tests."""
        backbone = BackboneConfig(
            d_model=32, num_layers=2, d_intermediate=32, d_state=16, head_dim=16
        )
        return cls(backbone=backbone, symbols=symbols, d_embedding=8)


class Sounder(nn.Module):
    """Tell the phones of words by CTC (Graves et al., ICML 2006).

    A word is short and known whole, so this is no stream: every other Mamba-3 layer reads the
    letters from the last to the first.
    """

    def __init__(self, config: SounderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.backbone.d_model
        self.embedding = nn.Embedding(1 + len(LETTERS), config.d_embedding, padding_idx=0)
        self.conv = nn.Conv1d(
            config.d_embedding, width, config.conv_kernel, padding=config.conv_kernel // 2
        )
        self.layers = nn.ModuleList(
            Block(config.backbone.mixer, config.backbone.d_intermediate, dropout=config.dropout)
            for _ in range(config.backbone.num_layers)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.norm_f = RMSNorm(width)
        self.head = nn.Linear(width, config.slots * (1 + len(config.phones)))

    def forward(self, letters: Tensor, lengths: Tensor) -> Tensor:
        """Read words.

        Args:
            letters: (words, letters) int64, as ``spell`` has them.
            lengths: (words,) int64, letters of each.
        Returns:
            log-probabilities (words, letters * slots, 1 + symbols) float32, of which those of a
            word are the first ``length * slots``; symbol 0 is the blank.
        Raises:
            ShapeError: ``letters`` isn't (words, letters >= 1), or ``lengths`` not (words,).
        """
        if letters.dim() != 2 or letters.shape[1] < 1 or lengths.shape != letters.shape[:1]:
            raise ShapeError(
                f"Sounder: letters must be (words, letters >= 1) and lengths (words,), not "
                f"{(*letters.shape,)} and {(*lengths.shape,)}"
            )
        at = torch.arange(letters.shape[1], device=letters.device).expand_as(letters)
        ends = lengths.unsqueeze(1)
        turned = torch.where(at < ends, ends - 1 - at, at)
        hidden: Tensor = self.conv(self.embedding(letters).transpose(1, 2)).transpose(1, 2).float()
        hidden = self.dropout(hidden)
        turn = turned.unsqueeze(-1).expand_as(hidden)
        for number, layer in enumerate(self.layers):
            # what lies beyond a word's end comes after it either way, so it changes nothing
            hidden = layer(hidden.gather(1, turn) if number else hidden)
        if len(self.layers) % 2 == 0:
            hidden = hidden.gather(1, turn)
        logits: Tensor = self.head(self.norm_f(hidden)).float()
        return logits.view(*letters.shape[:1], -1, 1 + len(self.config.phones)).log_softmax(-1)

    @staticmethod
    def spell(words: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the letters (words, letters) of plain words, 0 beyond their ends, and lengths."""
        rows = [torch.tensor([LETTERS.index(char) + 1 for char in word]) for word in words]
        lengths = torch.tensor([len(row) for row in rows])
        return pad_sequence(rows, batch_first=True), lengths


def collapse(labels: Sequence[int]) -> list[int]:
    """Drop a path's repeats, then its blanks."""
    path = [label for at, label in enumerate(labels) if at == 0 or labels[at - 1] != label]
    return [label for label in path if label]
