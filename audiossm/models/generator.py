"""The generator network: what is to be said, frame by frame, to a codec's codes."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiossm.errors import ConfigError, ShapeError
from audiossm.models.recogniser import BackboneConfig
from audiossm.nn import AnyLayer, Layer, RMSNorm, StreamingModule
from audiossm.units import SYMBOLS

__all__ = ["Generator", "GeneratorConfig", "GeneratorState", "delay_codes"]

NUM_STRESSES, NUM_PLACES = 3, 4


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Sizes of the generator.

    Attributes:
        backbone: of Mamba-3 layers, a frame being one of the codec's.
        levels: values of each dimension of a group of codes, as the codec's quantiser has them.
        num_groups: how many of the codec's groups are made.
        symbols: phones and pauses, parted by spaces.
        d_unit: channels of a unit of text, before its neighbours are looked at.
        units_before: how many earlier units shape the way a unit is said.
        units_after: how many later ones do; so many have to be known before it is said.
        longest: frames of a unit that are told apart.
        d_voice: numbers that tell a voice.
        dropout: while it is trained.
    """

    backbone: BackboneConfig
    levels: tuple[int, ...] = (8, 5, 5, 5)
    num_groups: int = 4
    symbols: str = " ".join(SYMBOLS)
    d_unit: int = 128
    units_before: int = 2
    units_after: int = 4
    longest: int = 48
    d_voice: int = 64
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse sizes that nothing can have."""
        for name in ("num_groups", "d_unit", "longest", "d_voice"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, not {getattr(self, name)}")
        for name in ("units_before", "units_after"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if not self.levels or min(self.levels) < 2:
            raise ConfigError(f"levels is {list(self.levels)}, must be numbers from 2 up")
        rows = self.symbols.split()
        if not rows or len(set(rows)) != len(rows):
            raise ConfigError("symbols is empty or has the same symbol twice")
        _ = self.backbone.mixer

    @property
    def num_codes(self) -> int:
        """Different codes of a group."""
        return int(torch.tensor(self.levels).prod())

    @property
    def window(self) -> int:
        """Units that are looked at to say one of them."""
        return self.units_before + 1 + self.units_after

    @property
    def num_outputs(self) -> int:
        """Numbers that a frame gives: logits of each group's codes, and of the unit's end."""
        return self.num_groups * self.num_codes + 1

    @classmethod
    def tiny(cls) -> "GeneratorConfig":
        """Return a config for tests; its codes are those of ``CodecConfig.tiny()``."""
        backbone = BackboneConfig(
            d_model=32, num_layers=2, d_intermediate=32, d_state=16, head_dim=16
        )
        return cls(backbone=backbone, d_unit=16, num_groups=2, d_voice=8)


class GeneratorState(NamedTuple):
    """What the generator remembers: its size doesn't depend on how much it has said."""

    layers: tuple[Any, ...]  # of each what its mixer remembers


class Generator(StreamingModule[GeneratorState]):
    """A language model of codes (Copet et al., arXiv:2306.05284) that reads along.

    Group g of a frame is made g steps after the first one, so that it knows the groups before it
    (the delay pattern). Each step is told the unit of text that is being said, with its neighbours,
    for how many frames it has been, the voice and the pace; beside codes it tells whether the unit
    ends with this frame. So nothing can be skipped or said twice, and word times come with it.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.backbone.d_model
        # row 0: no text
        self.symbols = nn.Embedding(1 + len(config.symbols.split()), config.d_unit)
        self.stresses = nn.Embedding(NUM_STRESSES, config.d_unit)
        self.places = nn.Embedding(NUM_PLACES, config.d_unit)
        self.around = nn.Conv1d(config.d_unit, width, config.units_before + 1 + config.units_after)
        self.text = nn.Linear(width, width)
        self.ages = nn.Embedding(config.longest + 1, width)
        self.voice = nn.Linear(config.d_voice + 1, width)  # and the pace
        # a code is told by its digits: a row for each value of each dimension, of each group
        self.digits = nn.Embedding(config.num_groups * sum(config.levels) + 1, width)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(config.backbone.make_blocks(config.dropout))
        self.norm_f = RMSNorm(width)
        self.head = nn.Linear(width, config.num_outputs)
        for embedding in (self.symbols, self.stresses, self.places, self.ages, self.digits):
            nn.init.normal_(embedding.weight, std=0.3)
        sizes = torch.tensor(config.levels)
        bases = torch.cumprod(torch.cat([torch.ones(1, dtype=torch.int64), sizes[:-1]]), 0)
        digits = torch.arange(config.num_codes).unsqueeze(1) // bases % sizes
        rows = digits + (torch.cumsum(sizes, 0) - sizes)
        groups = torch.arange(config.num_groups).view(-1, 1, 1) * int(sizes.sum())
        none = torch.full((config.num_groups, 1, len(sizes)), self.digits.num_embeddings - 1)
        table = torch.cat([rows.unsqueeze(0) + groups, none], dim=1)
        self.register_buffer("rows", table, persistent=False)
        self.rows: Tensor  # (groups, codes + 1, dimensions): of the digits, the last for no code
        scale = (2 * config.backbone.num_layers) ** -0.5  # two residual branches a layer
        with torch.no_grad():
            for block in self.blocks():
                block.mixer.out_proj.weight.mul_(scale)
                block.mlp.fc2.weight.mul_(scale)

    def blocks(self) -> list[AnyLayer]:
        """Return the layers in order."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def init_state(self, batch: int) -> GeneratorState:
        """Return the state of ``batch`` streams that have said nothing."""
        return GeneratorState(tuple(layer.init_state(batch) for layer in self.blocks()))

    def read(self, units: Tensor) -> Tensor:
        """Look at each unit of texts and its neighbours.

        Args:
            units: (batch, units, 3) int64: the symbol, from 1 on (0: none), stress and place.
        Returns:
            (batch, units, d_model) float32.
        Raises:
            ShapeError: another shape.
        """
        if units.dim() != 3 or units.shape[2] != 3:
            raise ShapeError(f"Generator: units must be (batch, units, 3), not {(*units.shape,)}")
        symbol, stress, place = units.unbind(-1)
        one = self.symbols(symbol) + self.stresses(stress) + self.places(place)
        before, after = self.config.units_before, self.config.units_after
        # beyond both ends there is no text, which is what row 0 tells
        bare = self.symbols.weight[0] + self.stresses.weight[0] + self.places.weight[0]
        ends = [bare.expand(len(units), size, -1) for size in (before, after)]
        padded = torch.cat([ends[0], one, ends[1]], dim=1)
        seen: Tensor = self.around(padded.transpose(1, 2)).transpose(1, 2)
        read: Tensor = self.text(self.dropout(F.gelu(seen)))
        return read

    def embed(
        self, codes: Tensor, text: Tensor, age: Tensor, voice: Tensor, pace: Tensor
    ) -> Tensor:
        """Join what each frame is told.

        Args:
            codes: (batch, frames, groups) int64: what the step before made; ``num_codes`` is none.
            text: (batch, frames, d_model): of ``read``, that of the unit which is being said.
            age: (batch, frames) int64: for how many frames it has been said, from 0.
            voice: (batch, d_voice); zeros are nobody's.
            pace: (batch,) or (batch, frames): the logarithm of how much longer than usual phones
                are.
        Returns:
            (batch, frames, d_model) float32.
        """
        paces = pace.unsqueeze(1) if pace.dim() == 1 else pace
        voices = voice.unsqueeze(1).expand(-1, paces.shape[1], -1)
        who = self.voice(torch.cat([voices, paces.unsqueeze(-1)], dim=-1))
        joined: Tensor = self.ages(age.clamp(max=self.config.longest))
        told: Tensor = self.dropout(joined + self.hear(codes) + text + who)
        return told.float()

    def hear(self, codes: Tensor) -> Tensor:
        """Add up the rows of all digits of codes (batch, frames, groups)."""
        groups = torch.arange(self.config.num_groups, device=codes.device)
        rows = self.rows[groups, codes]
        if not self.training:
            heard: Tensor = F.embedding(rows, self.digits.weight).sum((-3, -2))
            return heard
        # the gradient of a product is a product, that of so many lookups a long sum
        size = (*codes.shape[:2], self.digits.num_embeddings)
        ones = torch.ones((), device=codes.device).expand(rows.flatten(2).shape)
        counts = torch.zeros(size, device=codes.device).scatter_add(2, rows.flatten(2), ones)
        heard = counts @ self.digits.weight
        return heard

    def step(self, x: Tensor, state: GeneratorState) -> tuple[Tensor, GeneratorState]:
        """Advance by any number of frames.

        Args:
            x: (batch, frames, d_model) float32, as ``embed`` returns it.
            state: what the previous call returned, or ``init_state(batch)``.
        Returns:
            (batch, frames, ``num_outputs``) float32: logits of the codes, group after group, group
            g being that of g frames ago; the last is the logit of the unit's end. And the state.
        Raises:
            ShapeError: ``x`` isn't (batch, frames >= 1, d_model), or has another batch.
        """
        layers = []
        for layer, before in zip(self.blocks(), state.layers, strict=True):
            x, after = layer.step(x, before)
            layers.append(after)
        outputs: Tensor = self.head(self.norm_f(x))
        return outputs.float(), GeneratorState(tuple(layers))


def delay_codes(codes: Tensor, none: int) -> Tensor:
    """Shift group g of (batch, frames, groups) by g frames: (batch, frames + groups - 1, groups).

    Where a group has no frame stands ``none``.
    """
    batch, frames, groups = codes.shape
    late = codes.new_full((batch, frames + groups - 1, groups), none)
    for group in range(groups):
        late[:, group : group + frames, group] = codes[:, :, group]
    return late
