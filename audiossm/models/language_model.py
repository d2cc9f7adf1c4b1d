"""The Mamba-3 language model, with the authors' config keys and parameter names."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from audiossm.config import from_dict, later
from audiossm.errors import ConfigError, ModelError, ShapeError
from audiossm.nn import Block, BlockState, Mamba3Config, RMSNorm, StreamingModule

__all__ = [
    "LanguageModel",
    "LanguageModelConfig",
    "LanguageModelState",
    "SsmConfig",
    "load_parameters",
]

MLP_MULTIPLE = 128  # the authors round d_intermediate up to it


@dataclass(frozen=True, kw_only=True)
class SsmConfig:
    """``ssm_cfg`` of a config.json: the authors' names and defaults of ``Mamba3Config``.

    ``a_activation`` is ours: theirs was "softplus" until June 2026, and is "heavy_tail" since.
    Their layer takes ``dropout`` and does nothing with it; so do we.
    """

    layer: str = "Mamba3"
    d_state: int = 128
    expand: float = 2.0
    headdim: int = 64
    ngroups: int = 1
    rope_fraction: float = 0.5
    dt_min: float = 1e-3
    dt_max: float = 0.1
    dt_init_floor: float = 1e-4
    A_floor: float = 1e-4
    is_outproj_norm: bool = False
    is_mimo: bool = False
    mimo_rank: int = 4
    chunk_size: int | None = None
    a_activation: str = later("heavy_tail")
    dropout: float = later(0.0)

    def mixer(self, d_model: int) -> Mamba3Config:
        """Return our config of a mixer of ``d_model`` channels."""
        if self.layer != "Mamba3":
            raise ConfigError(f"ssm_cfg.layer is {self.layer!r}, only 'Mamba3' is known")
        return Mamba3Config(
            d_model=d_model,
            d_state=self.d_state,
            expand=self.expand,
            head_dim=self.headdim,
            num_groups=self.ngroups,
            mimo_rank=self.mimo_rank,
            is_mimo=self.is_mimo,
            rope_fraction=self.rope_fraction,
            a_activation=self.a_activation,
            a_floor=self.A_floor,
            dt_min=self.dt_min,
            dt_max=self.dt_max,
            dt_init_floor=self.dt_init_floor,
            out_norm=self.is_outproj_norm,
            chunk_size=self.chunk_size,
        )


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """Keys of the authors' config.json.

    ``fused_add_norm`` chooses between kernels of equal results there, and changes nothing here.
    """

    d_model: int
    d_intermediate: int
    n_layer: int
    vocab_size: int
    ssm_cfg: SsmConfig
    attn_layer_idx: tuple[int, ...] = ()
    rms_norm: bool = True
    residual_in_fp32: bool = True
    fused_add_norm: bool = True
    pad_vocab_size_multiple: int = 8
    tie_embeddings: bool = True

    @staticmethod
    def from_json(data: dict[str, Any]) -> "LanguageModelConfig":
        """Read a parsed config.json.

        Raises:
            ConfigError: unknown or missing keys, attention layers, LayerNorm, or bad sizes.
        """
        data = {key: value for key, value in data.items() if key != "attn_cfg"}
        return from_dict(LanguageModelConfig, data)

    def __post_init__(self) -> None:
        """Refuse what this model doesn't have."""
        if self.attn_layer_idx:
            raise ConfigError(f"attention layers {list(self.attn_layer_idx)} are not supported")
        if not self.rms_norm:
            raise ConfigError("rms_norm must be true: LayerNorm is not supported")
        for name in ("d_intermediate", "n_layer", "vocab_size", "pad_vocab_size_multiple"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, not {getattr(self, name)}")
        self.ssm_cfg.mixer(self.d_model)

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding, and logits of a frame."""
        return round_up(self.vocab_size, self.pad_vocab_size_multiple)


def round_up(size: int, multiple: int) -> int:
    """Return the smallest multiple that is ``size`` or more."""
    return -(-size // multiple) * multiple


class LanguageModelState(NamedTuple):
    """What the model remembers of the tokens so far."""

    layers: tuple[BlockState, ...]


class Backbone(nn.Module):
    """Embedding, layers and last norm, under the authors' names."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        mixer = config.ssm_cfg.mixer(config.d_model)
        width = round_up(config.d_intermediate, MLP_MULTIPLE)
        self.embedding = nn.Embedding(config.padded_vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(mixer, width) for _ in range(config.n_layer))
        self.norm_f = RMSNorm(config.d_model)


class LanguageModel(StreamingModule[LanguageModelState]):
    """Predict the next token at each of (batch, tokens) ids: (batch, tokens, padded vocabulary)."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.lm_head = nn.Linear(config.d_model, config.padded_vocab_size, bias=False)
        nn.init.normal_(self.backbone.embedding.weight, std=0.02)
        if config.tie_embeddings:
            self.lm_head.weight = self.backbone.embedding.weight
        with torch.no_grad():
            for layer in self.blocks():
                # the sum of all layers then starts at the scale of one
                layer.mixer.out_proj.weight.div_(math.sqrt(config.n_layer))
                layer.mlp.fc2.weight.div_(math.sqrt(config.n_layer))

    def blocks(self) -> list[Block]:
        """Return the layers in order."""
        return [layer for layer in self.backbone.layers if isinstance(layer, Block)]

    def init_state(self, batch: int) -> LanguageModelState:
        """Return the state before the first token of ``batch`` texts."""
        return LanguageModelState(tuple(layer.init_state(batch) for layer in self.blocks()))

    def step(self, x: Tensor, state: LanguageModelState) -> tuple[Tensor, LanguageModelState]:
        """Advance by any number of tokens.

        Args:
            x: (batch, tokens) int64 ids below ``padded_vocab_size``, tokens >= 1.
            state: what the previous call returned, or ``init_state(batch)``.
        Returns:
            logits: (batch, tokens, padded_vocab_size); and the state after the last token.
        Raises:
            ShapeError: ``x`` isn't (batch, tokens >= 1) or has another batch than the state.
        """
        if x.dim() != 2 or x.shape[1] < 1:
            raise ShapeError(f"LanguageModel: ids must be (batch, tokens >= 1), not {(*x.shape,)}")
        hidden = self.backbone.embedding(x)
        if self.config.residual_in_fp32:
            hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        layers = []
        for layer, before in zip(self.blocks(), state.layers, strict=True):
            hidden, after = layer.step(hidden, before)
            layers.append(after)
        hidden = self.backbone.norm_f(hidden).to(self.lm_head.weight.dtype)
        return self.lm_head(hidden), LanguageModelState(tuple(layers))

    def load_checkpoint(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the parameters of a checkpoint; ``lm_head.weight`` may be absent if tied.

        Raises:
            ModelError: missing, unknown or misshapen tensors, or a tied head that differs.
        """
        embedding = tensors.get("backbone.embedding.weight")
        if self.config.tie_embeddings and embedding is not None:
            head = tensors.get("lm_head.weight", embedding)
            if not torch.equal(head, embedding):
                raise ModelError(
                    "lm_head.weight differs from the embedding, but tie_embeddings is true"
                )
            tensors = {**tensors, "lm_head.weight": embedding}
        load_parameters(self, tensors)


def load_parameters(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy ``tensors`` into the parameters of the same names.

    Raises:
        ModelError: missing, unknown or misshapen tensors, all in one line.
    """
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as exc:
        raise ModelError(" ".join(str(exc).split())) from exc
