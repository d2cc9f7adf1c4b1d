"""A trained codec in memory: the network, its name and the hash that codes are tied to."""

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from audiossm import checkpoint
from audiossm.checkpoint import ModelFolder, load_weights, make_empty
from audiossm.codec.codec import Codec, CodecConfig, EncodingState
from audiossm.codec.codes import CodeFormat
from audiossm.codec.decoder import Decoder, DecoderState
from audiossm.codec.encoder import Encoder
from audiossm.config import from_dict, to_dict
from audiossm.errors import ConfigError, ModelError
from audiossm.graphs import Backend, Step, Ways, hash_sizes

if TYPE_CHECKING:
    from audiossm.loops import Loop

__all__ = ["LoadedCodec", "load_encoder"]


def find_shipped_codec() -> str:
    """Return the name of the one codec that is shipped."""
    names = checkpoint.model_names()
    codecs = [name for name in names if ModelFolder.open(name).kind == "codec"]
    if not codecs:
        raise ModelError("no codec is shipped: name one, or give a model's folder")
    if len(codecs) > 1:
        raise ModelError(f"shipped codecs are {', '.join(codecs)}: name one of them")
    return codecs[0]


def open_codec(name: str | Path) -> tuple[ModelFolder, CodecConfig]:
    """Open a codec by the name of a shipped one or by its folder.

    Raises:
        ModelError: there is none, it is no codec, or its config is damaged.
    """
    folder = ModelFolder.open(name)
    if folder.kind != "codec":
        raise ModelError(f"{folder.path}: a {folder.kind} model can't serve as a codec")
    table = folder.config.get("codec")
    if not isinstance(table, dict):
        raise ModelError(f"{folder.path}/config.toml: missing table 'codec'")
    try:
        return folder, from_dict(CodecConfig, table, "codec")
    except ConfigError as exc:
        raise ModelError(f"{folder.path}/config.toml: {exc}") from exc


def load_encoder(name: str | Path) -> tuple[Encoder, str]:
    """Load a codec's encoder alone: return it and the ``frames_hash``.

    Raises:
        ModelError: there is no such codec, or what makes frames is damaged.
    """
    folder, config = open_codec(name)
    try:
        encoder = make_empty(Encoder, config.encoder)
    except (ConfigError, RuntimeError) as exc:  # torch's own, for sizes that no memory holds
        raise ModelError(f"{folder.path}/config.toml: {exc}") from exc
    load_weights(folder, encoder, "encoder.")
    return encoder, hash_frames(encoder)


class LoadedCodec:
    """A codec with its weights. Calls don't change it: threads and streams may share it.

    ``hash`` (32 hex digits) covers sizes and weights. ``codes_hash`` covers those that make codes,
    not the decoder's: one that was trained on still decodes old codes. ``frames_hash`` covers the
    encoder alone: a model that stands on its frames keeps it and refuses another.
    """

    def __init__(
        self,
        network: Codec,
        *,
        name: str,
        model_hash: str,
        device: torch.device | None = None,
        backend: Backend = "auto",
        folder: Path | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.network = network.eval().requires_grad_(False).to(self.device)
        self.name, self.hash = name, model_hash
        self.frames_hash, self.codes_hash = hash_frames(network.encoder), hash_codes(network)
        encode, decode = make_steps(self.network)
        self.encoder_ways = Ways(encode, self.device, backend, folder)
        # 8 bits cost it nothing by PESQ and STOI, as the README has it; an encoder, other codes
        self.decoder_ways = Ways(decode, self.device, backend, folder)

    @classmethod
    def load(
        cls,
        name: str | Path | None = None,
        *,
        device: torch.device | None = None,
        backend: Backend = "auto",
    ) -> Self:
        """Load a shipped model by name (default: the one that there is) or a model folder.

        Args:
            name: of the model.
            device: the CPU by default.
            backend: ``torch``, ``numba``, ``onnx``, or ``auto``, which takes the fastest on a CPU.

        Raises:
            ConfigError: there is no such backend.
            ModelError: there is none, it is no codec, or it is damaged or of another version.
        """
        folder, config = open_codec(find_shipped_codec() if name is None else name)
        try:
            network = make_empty(Codec, config)
        except (ConfigError, RuntimeError) as exc:  # torch's own, for sizes that no memory holds
            raise ModelError(f"{folder.path}/config.toml: {exc}") from exc
        digest = load_weights(folder, network)
        return cls(
            network,
            name=folder.name,
            model_hash=digest,
            device=device,
            backend=backend,
            folder=folder.path,
        )

    @property
    def config(self) -> CodecConfig:
        """The network's sizes."""
        return self.network.config

    def choose_groups(self, count: int | None) -> int:
        """Return ``count`` groups, by default all.

        Raises:
            ConfigError: the codec hasn't as many.
        """
        have = self.config.quantiser.num_groups
        if count is None:
            return have
        if not 1 <= count <= have:
            raise ConfigError(f"{count} groups: codec {self.name!r} has 1 to {have}")
        return count

    def describe(
        self, *, channels: int = 1, num_groups: int | None = None, frames_per_block: int = 50
    ) -> CodeFormat:
        """Say whose codes these will be, for a file of them."""
        return CodeFormat(
            model=self.name,
            codes_hash=self.codes_hash,
            sample_rate=self.config.sample_rate,
            frame_size=self.config.frame_size,
            num_codes=self.config.quantiser.num_codes,
            channels=channels,
            num_groups=self.choose_groups(num_groups),
            frames_per_block=frames_per_block,
        )

    def check_codes(self, form: CodeFormat) -> None:
        """Refuse what another codec made.

        Raises:
            ModelError: the hashes differ.
        """
        if form.codes_hash != self.codes_hash:
            raise ModelError(
                f"made by codec {form.model!r} with codes of hash {form.codes_hash}, but those "
                f"of this one, {self.name!r}, have {self.codes_hash}: its codes mean other sounds"
            )
        sizes = self.config.sample_rate, self.config.frame_size, self.config.quantiser.num_codes
        have = self.config.quantiser.num_groups
        if (form.sample_rate, form.frame_size, form.num_codes) != sizes or form.num_groups > have:
            raise ModelError(f"codes of other sizes than those of codec {self.name!r}")


def make_steps(network: Codec) -> tuple[Step[EncodingState], Step[DecoderState]]:
    """Describe what sessions do with a codec, for torch and for graphs."""
    encode = Step(
        name="encode",
        network=network,
        call=_encode,
        init_state=network.init_encoding,
        unit=network.config.frame_size,
        outputs=(("codes", 2),),
        sizes=hash_sizes(to_dict(network.config)),
        unused="decoder.",
        make_loop=partial(_loop_encoder, network),
    )
    decode = Step(
        name="decode",
        network=network.decoder,
        call=_decode,
        init_state=network.decoder.init_state,
        unit=1,
        width=(network.config.quantiser.latent_dim,),
        outputs=(("samples", 1),),
        sizes=encode.sizes,
        make_loop=partial(_loop_decoder, network.decoder),
    )
    return encode, decode


def _encode(network: Codec, x: Tensor, state: EncodingState) -> tuple[tuple[Tensor], EncodingState]:
    codes, state = network.encode_step(x, state)
    return (codes,), state


def _decode(network: Decoder, x: Tensor, state: DecoderState) -> tuple[tuple[Tensor], DecoderState]:
    samples, state = network.step(x, state)
    return (samples,), state


def _loop_encoder(network: Codec) -> "Loop[EncodingState]":
    from audiossm.codec.loops import make_encode_loop  # only now: it brings a compiler

    return make_encode_loop(network)


def _loop_decoder(network: Decoder) -> "Loop[DecoderState]":
    from audiossm.codec.loops import make_decode_loop

    return make_decode_loop(network)


def hash_frames(encoder: Encoder) -> str:
    """Hash what makes the encoder's frames."""
    weights = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    return hash_weights(weights, [encoder.config])


def hash_codes(network: Codec) -> str:
    """Hash what makes codes: encoder, detail branch and quantiser."""
    config = network.config
    configs = [config.encoder, config.quantiser, *([config.detail] if config.detail else [])]
    prefixes = ("encoder.", "to_latent.", "detail.")
    weights = {n: tensor for n, tensor in network.state_dict().items() if n.startswith(prefixes)}
    return hash_weights(weights, configs)


def hash_weights(weights: Mapping[str, Tensor], configs: list[Any]) -> str:
    """Return 32 hex digits of SHA-256 over sizes and weights, as a file has them."""
    sizes = [to_dict(config) for config in configs]
    digest = hashlib.sha256(json.dumps(sizes, sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        half = tensor.detach().to("cpu", torch.float16).contiguous()
        digest.update(name.encode() + half.numpy().tobytes())
    return digest.hexdigest()[:32]
