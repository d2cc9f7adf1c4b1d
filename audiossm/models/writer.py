"""The writer network: plain words to their case and the mark after them, one word at a time."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiossm.errors import ConfigError, ShapeError
from audiossm.marks import CASES, MARKS
from audiossm.models.recogniser import BackboneConfig
from audiossm.nn import Block, BlockState, CausalConv1d, ConvState, RMSNorm, StreamingModule

__all__ = ["BORDER", "NUM_FEATURES", "Writer", "WriterConfig", "WriterState"]

BORDER = ""  # stands for a place where the speech was cut: begun, flushed or ended
AFFIX_LENGTHS = (2, 3, 4)
NUM_FEATURES = 1 + 2 * len(AFFIX_LENGTHS)  # the word, its beginnings and its ends
NOTHING, CUT, NUM_SPECIAL = 0, 1, 2  # rows of the embedding before those of the words


@dataclass(frozen=True, kw_only=True)
class WriterConfig:
    """Sizes of the writer.

    Attributes:
        backbone: of Mamba-3 layers, a frame being a word.
        words: the words that have a row of their own, parted by spaces. All words have rows for
            their first and last letters.
        num_affixes: rows that those share, by a hash.
        d_embedding: channels of a row.
        lookahead: how many words a word waits for.
        dropout: while it is trained.
    """

    backbone: BackboneConfig
    words: str
    num_affixes: int = 4096
    d_embedding: int = 64
    lookahead: int = 2
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse sizes that nothing can have."""
        for name, least in (("num_affixes", 1), ("d_embedding", 1), ("lookahead", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be {least} or more, not {getattr(self, name)}")
        if len(set(self.words.split())) != len(self.words.split()):
            raise ConfigError("words has the same word twice")
        _ = self.backbone.mixer

    @classmethod
    def tiny(cls, words: str = "the a and is said") -> "WriterConfig":
        """Return a config for tests."""
        backbone = BackboneConfig(
            d_model=32, num_layers=2, d_intermediate=32, d_state=16, head_dim=16
        )
        return cls(backbone=backbone, words=words, num_affixes=64, d_embedding=16)

    @cached_property
    def word_rows(self) -> dict[str, int]:
        """The row of each word that has one."""
        return {word: NUM_SPECIAL + at for at, word in enumerate(self.words.split())}

    def features(self, words: Iterable[str]) -> Tensor:
        """Look words up: (words, ``NUM_FEATURES``) int64 rows of the embedding.

        The first is the word's own, or row 0 if it has none; ``BORDER`` has only that one.
        """
        first_affix = NUM_SPECIAL + len(self.word_rows)
        rows = []
        for word in words:
            if word == BORDER:
                rows.append([CUT] + [NOTHING] * (NUM_FEATURES - 1))
                continue
            row = [self.word_rows.get(word, NOTHING)]
            for size in AFFIX_LENGTHS:
                for affix in (f"<{word}"[: size + 1], f"{word}>"[-size - 1 :]):
                    row.append(first_affix + zlib.crc32(affix.encode()) % self.num_affixes)
            rows.append(row)
        return torch.tensor(rows, dtype=torch.int64).reshape(-1, NUM_FEATURES)


class WriterState(NamedTuple):
    """What the writer remembers of the words so far."""

    conv: ConvState
    layers: tuple[BlockState, ...]


class Writer(StreamingModule[WriterState]):
    """Tell how words are written, ``lookahead`` words late.

    A convolution shows each step the newest words as they are, and the layers remember the rest.
    """

    def __init__(self, config: WriterConfig) -> None:
        super().__init__()
        self.config = config
        width = config.backbone.d_model
        rows = NUM_SPECIAL + len(config.word_rows) + config.num_affixes
        self.embedding = nn.Embedding(rows, config.d_embedding)
        nn.init.normal_(self.embedding.weight, std=0.3)
        self.conv = CausalConv1d(config.d_embedding, width, config.lookahead + 2)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            Block(config.backbone.mixer, config.backbone.d_intermediate, dropout=config.dropout)
            for _ in range(config.backbone.num_layers)
        )
        self.norm_f = RMSNorm(width)
        self.head = nn.Linear(width, len(CASES) + len(MARKS))

    def blocks(self) -> list[Block]:
        """Return the layers in order."""
        return [layer for layer in self.layers if isinstance(layer, Block)]

    def init_state(self, batch: int) -> WriterState:
        """Return the state before the first word of ``batch`` texts."""
        layers = tuple(layer.init_state(batch) for layer in self.blocks())
        return WriterState(self.conv.init_state(batch), layers)

    def step(self, x: Tensor, state: WriterState) -> tuple[Tensor, WriterState]:
        """Advance by any number of words.

        Args:
            x: (batch, words, features) int64, as ``WriterConfig.features`` looks words up.
            state: what the previous call returned, or ``init_state(batch)``.
        Returns:
            logits: (batch, words, cases + marks) float32: of each case and of each mark of the
            word ``lookahead`` words before; and the state after the last word.
        Raises:
            ShapeError: ``x`` isn't (batch, words >= 1, features), or has another batch.
        """
        if x.dim() != 3 or x.shape[1] < 1 or x.shape[2] != NUM_FEATURES:
            raise ShapeError(
                f"Writer: words must be (batch, words >= 1, {NUM_FEATURES}), not {(*x.shape,)}"
            )
        return self.step_embedded(self.embed(x), state)

    def embed(self, x: Tensor) -> Tensor:
        """Sum the rows of (batch, words, features) int64: (batch, words, d_embedding)."""
        rows: Tensor = self.dropout(F.embedding(x, self.embedding.weight).sum(-2))
        return rows

    def step_embedded(self, x: Tensor, state: WriterState) -> tuple[Tensor, WriterState]:
        """Do what ``step`` does, from what ``embed`` returned."""
        y, conv = self.conv.step(x.transpose(1, 2), state.conv)
        hidden, layers = y.transpose(1, 2).float(), []
        for layer, before in zip(self.blocks(), state.layers, strict=True):
            hidden, after = layer.step(hidden, before)
            layers.append(after)
        logits: Tensor = self.head(self.norm_f(hidden))
        return logits.float(), WriterState(conv, tuple(layers))
