"""The recogniser network: samples to label probabilities, one step from any state."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from audiossm.codec import Encoder, EncoderConfig, EncoderState
from audiossm.config import later
from audiossm.errors import ConfigError, ShapeError
from audiossm.models.phone_head import PhoneHead
from audiossm.nn import (
    AnyLayer,
    AttentionBlock,
    AttentionConfig,
    Block,
    ConvState,
    GatedConv,
    Layer,
    LookAheadConv,
    LookAheadState,
    Mamba3Config,
    RMSNorm,
    StreamingModule,
)
from audiossm.text import CHARACTERS, Vocabulary
from audiossm_kernels import SsmState

__all__ = ["BackboneConfig", "Recogniser", "RecogniserConfig", "RecogniserState"]


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Sizes of the Mamba-3 backbone.

    A hybrid has attention over a window of frames in place of the mixers of ``attention_layers``,
    which count from 0; its heads have ``head_dim`` channels, too.
    """

    d_model: int
    num_layers: int
    d_intermediate: int
    d_state: int = 64
    expand: float = 2.0
    head_dim: int = 64
    is_mimo: bool = False
    mimo_rank: int = 1
    rope_fraction: float = 0.5
    a_activation: str = "heavy_tail"
    dt_min: float = 1e-3
    dt_max: float = 0.1
    max_memory: float | None = None
    trapezoid: bool = later(True)
    turns: bool = later(True)
    resonators: float = later(0.0)
    attention_layers: tuple[int, ...] = later(())
    attention_window: int = later(128)
    attention_heads: int = later(8)
    attention_kv_heads: int = later(4)

    def __post_init__(self) -> None:
        chosen, last = self.attention_layers, self.num_layers - 1
        if len(set(chosen)) < len(chosen) or not all(0 <= i <= last for i in chosen):
            raise ConfigError(
                f"attention_layers is {list(chosen)}, must be different numbers from 0 to {last}"
            )
        if chosen and len(chosen) == self.num_layers:
            raise ConfigError("attention_layers names all layers: one must be Mamba-3 at least")
        if chosen:
            _ = self.attention

    @property
    def attention(self) -> AttentionConfig:
        """The config of each attention layer."""
        return AttentionConfig(
            d_model=self.d_model,
            window=self.attention_window,
            num_heads=self.attention_heads,
            num_kv_heads=self.attention_kv_heads,
            head_dim=self.head_dim,
        )

    def make_blocks(self, dropout: float) -> Iterator[AnyLayer]:
        """Make the layers, in order."""
        for i in range(self.num_layers):
            if i in self.attention_layers:
                yield AttentionBlock(self.attention, self.d_intermediate, dropout=dropout)
            else:
                yield Block(self.mixer, self.d_intermediate, dropout=dropout)

    @property
    def mixer(self) -> Mamba3Config:
        """The config of each Mamba-3 layer."""
        return Mamba3Config(
            d_model=self.d_model,
            d_state=self.d_state,
            expand=self.expand,
            head_dim=self.head_dim,
            is_mimo=self.is_mimo,
            mimo_rank=self.mimo_rank,
            rope_fraction=self.rope_fraction,
            a_activation=self.a_activation,
            dt_min=self.dt_min,
            dt_max=self.dt_max,
            max_memory=self.max_memory,
            trapezoid=self.trapezoid,
            turns=self.turns,
            resonators=self.resonators,
        )


@dataclass(frozen=True, kw_only=True)
class RecogniserConfig:
    """Sizes of the recogniser.

    ``stack`` encoder frames make one backbone frame, and one backbone frame gives as many label
    frames. Look-aheads are in backbone frames. ``phones`` are the symbols (the blank not listed) of
    a head after layer ``middle_after``; without any there is no such head. With a ``conv_kernel``
    a convolution over so many backbone frames stands before each layer.
    """

    backbone: BackboneConfig
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    stack: int = 2
    lookahead_after: int = 3
    lookahead_left: int = 8
    middle_after: int = 6
    lookahead_frames: tuple[int, ...] = (0, 4, 8)
    conv_kernel: int = 0
    dropout: float = 0.0
    pieces: tuple[str, ...] = CHARACTERS
    phones: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.lookahead_after < self.backbone.num_layers:
            raise ConfigError(
                f"lookahead_after is {self.lookahead_after}, must lie between 1 and "
                f"{self.backbone.num_layers - 1} layers"
            )
        if not self.lookahead_after <= self.middle_after <= self.backbone.num_layers:
            raise ConfigError(
                f"middle_after is {self.middle_after}, must lie between lookahead_after "
                f"{self.lookahead_after} and {self.backbone.num_layers} layers"
            )
        if self.stack < 1:
            raise ConfigError(f"stack is {self.stack}, must be 1 or more")
        for name in ("lookahead_left", "conv_kernel"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, must be 0 or more")
        rights = self.lookahead_frames
        if not rights or min(rights) < 0 or len(set(rights)) < len(rights):
            raise ConfigError(f"lookahead_frames is {rights}, must be different numbers from 0 up")
        Vocabulary(self.pieces)

    @property
    def frame_size(self) -> int:
        """Samples in a backbone frame."""
        return self.stack * self.encoder.frame_size

    @staticmethod
    def tiny() -> "RecogniserConfig":
        """A network small enough for tests."""
        return RecogniserConfig(
            encoder=EncoderConfig(
                num_mels=20, d_model=32, d_hidden=48, num_blocks=1, ssm_head_dim=16, ssm_state=16
            ),
            backbone=BackboneConfig(
                d_model=32, num_layers=2, d_intermediate=64, d_state=16, head_dim=16
            ),
            lookahead_after=1,
            middle_after=1,
            conv_kernel=3,
            phones=("a", "n", "t"),
        )


class RecogniserState(NamedTuple):
    """What the recogniser remembers: its size doesn't depend on how long it has run."""

    encoder: EncoderState
    lower: tuple[Any, ...]  # of each layer what its mixer remembers
    lookahead: LookAheadState
    upper: tuple[Any, ...]
    convs: tuple[ConvState, ...]


class Recogniser(StreamingModule[RecogniserState]):
    """Codec encoder, Mamba-3 backbone, CTC head.

    The result of row ``b`` is late by its look-ahead: its first ``stack * right`` label frames
    belong to no audio and are to be dropped, and as much silence has to follow its end.
    """

    def __init__(self, config: RecogniserConfig) -> None:
        super().__init__()
        self.config = config
        backbone = config.backbone
        self.encoder = Encoder(config.encoder)
        self.in_proj = nn.Linear(config.stack * config.encoder.d_model, backbone.d_model)
        self.layers = nn.ModuleList(backbone.make_blocks(config.dropout))
        self.convs = nn.ModuleList(
            GatedConv(backbone.d_model, config.conv_kernel, dropout=config.dropout)
            for _ in range(backbone.num_layers if config.conv_kernel else 0)
        )
        self.lookahead = LookAheadConv(
            backbone.d_model, config.lookahead_left, config.lookahead_frames
        )
        self.norm_f = RMSNorm(backbone.d_model)
        self.head = nn.Linear(backbone.d_model, config.stack * len(config.pieces))
        self.phones = (
            PhoneHead(backbone.d_model, len(config.phones) + 1, config.stack)
            if config.phones
            else None
        )
        scale = (2 * backbone.num_layers) ** -0.5  # two residual branches a layer
        with torch.no_grad():
            for block in self.blocks():
                block.mixer.out_proj.weight.mul_(scale)
                block.mlp.fc2.weight.mul_(scale)
            for conv in self.gated_convs():
                conv.out.weight.mul_(scale)

    def blocks(self) -> list[AnyLayer]:
        """The backbone's layers, in order."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def gated_convs(self) -> list[GatedConv]:
        """The convolutions before the layers, in order; none if the config has none."""
        return [conv for conv in self.convs if isinstance(conv, GatedConv)]

    def above_encoder(self) -> nn.ModuleDict:
        """All but the encoder, whose weights may be a codec's; parameter names are the same."""
        return nn.ModuleDict({n: part for n, part in self.named_children() if n != "encoder"})

    def init_state(self, batch: int, lookahead: int | None = None) -> RecogniserState:
        """Return the state of ``batch`` streams that look ``lookahead`` backbone frames ahead."""
        states = [block.init_state(batch) for block in self.blocks()]
        split = self.config.lookahead_after
        return RecogniserState(
            self.encoder.init_state(batch),
            tuple(states[:split]),
            self.lookahead.init_state(batch, lookahead),
            tuple(states[split:]),
            tuple(conv.init_state(batch) for conv in self.gated_convs()),
        )

    def step(self, x: Tensor, state: RecogniserState) -> tuple[Tensor, RecogniserState]:
        """Advance by samples (batch, samples) in [-1, 1], a multiple of ``config.frame_size``.

        Returns:
            log-probabilities (batch, label frames, pieces) float32, a label frame being
            ``encoder.frame_size`` samples; and the state after the last frame, as ``hear``'s.

        Raises:
            ShapeError: no samples, or not a multiple of ``config.frame_size``.
        """
        letters, _, state = self.hear(x, state)
        return letters, state

    def hear(
        self, x: Tensor, state: RecogniserState
    ) -> tuple[Tensor, Tensor | None, RecogniserState]:
        """Do what ``step`` does and return the phones, too, if there is a head for them.

        The state is turned back: however a stream was cut, it is the same but for a few roundings.
        """
        letters, phones, state = self.run(x, state)
        return letters, phones, self.turn_back(state)

    def run(
        self, x: Tensor, state: RecogniserState
    ) -> tuple[Tensor, Tensor | None, RecogniserState]:
        """Do what ``hear`` does and leave the state as it turned."""
        if x.dim() != 2 or x.shape[1] < 1 or x.shape[1] % self.config.frame_size:
            raise ShapeError(
                f"Recogniser takes (batch, samples), a multiple of {self.config.frame_size}, "
                f"got {(*x.shape,)}"
            )
        encoded, encoder = self.encoder.step(x, state.encoder)
        hidden, phones, state = self.step_encoded(encoded, state._replace(encoder=encoder))
        return self.log_probs(hidden), phones, state

    def step_encoded(
        self, encoded: Tensor, state: RecogniserState
    ) -> tuple[Tensor, Tensor | None, RecogniserState]:
        """Run the backbone over encoder frames (batch, frames, encoder d_model).

        Returns:
            (batch, frames / stack, d_model) after the last layer; log-probabilities of phones
            (batch, frames, phones + 1), as late as the first, if the network has a head for them;
            and the state.
        """
        low, middle = self.config.lookahead_after, self.config.middle_after
        layers, tails = [*state.lower, *state.upper], [*state.convs]
        lookahead, phones, convs = state.lookahead, None, self.gated_convs()
        x = self.in_proj(encoded.reshape(encoded.shape[0], -1, self.in_proj.in_features)).float()
        for i, block in enumerate(self.blocks()):
            if convs:
                x, tails[i] = convs[i].step(x, tails[i])
            x, layers[i] = block.step(x, layers[i])
            if i + 1 == low:
                x, lookahead = self.lookahead.step(x, lookahead)
            if i + 1 == middle and self.phones is not None:
                phones, x = self.phones(x)
        lower, upper = tuple(layers[:low]), tuple(layers[low:])
        return x, phones, RecogniserState(state.encoder, lower, lookahead, upper, tuple(tails))

    def turn_back(self, state: RecogniserState) -> RecogniserState:
        """Return the state with the same future whose rotating parts all have angle zero."""
        layers, split = state.lower + state.upper, len(state.lower)
        turning = [part for part in layers if isinstance(part, SsmState)]
        # these layers are alike, so all turn at once as if they were rows of a batch
        joined = SsmState._make(torch.cat(parts) for parts in zip(*turning, strict=True))
        mixer = next(block.mixer for block in self.blocks() if isinstance(block, Block))
        pieces = (part.chunk(len(turning)) for part in mixer.turn_back(joined))
        turned = (SsmState._make(parts) for parts in zip(*pieces, strict=True))
        layers = tuple(next(turned) if isinstance(x, SsmState) else x for x in layers)
        encoder = state.encoder._replace(ssm=self.encoder.mixer.turn_back(state.encoder.ssm))
        return state._replace(encoder=encoder, lower=layers[:split], upper=layers[split:])

    def log_probs(self, hidden: Tensor) -> Tensor:
        """Turn backbone frames (batch, frames, d_model) into label log-probabilities."""
        logits: Tensor = self.head(self.norm_f(hidden)).float()
        pieces = len(self.config.pieces)
        return logits.view(hidden.shape[0], -1, pieces).log_softmax(dim=-1)
