"""A trained codec in memory: the network, its name and the hash that codes are tied to."""

import hashlib
import json
from pathlib import Path
from typing import Self

import torch

from audiossm.checkpoint import ModelFolder, load_weights
from audiossm.codec.codec import Codec, CodecConfig
from audiossm.config import from_dict, to_dict
from audiossm.errors import ConfigError, ModelError

__all__ = ["LoadedCodec"]


class LoadedCodec:
    """A codec with its weights. Calls don't change it: threads and streams may share it.

    ``hash`` (32 hex digits) covers sizes and weights. ``frames_hash`` covers those alone that make
    frames and codes, not the decoder's: a model that stands on the codec keeps it and refuses
    another, while a decoder that was trained on still decodes old codes.
    """

    def __init__(
        self, network: Codec, *, name: str, model_hash: str, device: torch.device | None = None
    ) -> None:
        self.device = device or torch.device("cpu")
        self.network = network.eval().requires_grad_(False).to(self.device)
        self.name, self.hash, self.frames_hash = name, model_hash, hash_frames(network)

    @classmethod
    def load(cls, name: str | Path, *, device: torch.device | None = None) -> Self:
        """Load a shipped model by name or a model folder.

        Raises:
            ModelError: there is none, it is no codec, or it is damaged or of another version.
        """
        folder = ModelFolder.open(name)
        if folder.kind != "codec":
            raise ModelError(f"{folder.path}: a {folder.kind} model can't serve as a codec")
        table = folder.config.get("codec")
        if not isinstance(table, dict):
            raise ModelError(f"{folder.path}/config.toml: missing table 'codec'")
        try:
            network = Codec(from_dict(CodecConfig, table, "codec"))
        except (ConfigError, RuntimeError) as exc:  # torch's own, for sizes that no memory holds
            raise ModelError(f"{folder.path}/config.toml: {exc}") from exc
        digest = load_weights(folder, network)
        return cls(network, name=folder.name, model_hash=digest, device=device)

    @property
    def config(self) -> CodecConfig:
        """The network's sizes."""
        return self.network.config


def hash_frames(network: Codec) -> str:
    """Return 32 hex digits of SHA-256 over encoder and quantiser, weights as a file has them."""
    sizes = [to_dict(network.config.encoder), to_dict(network.config.quantiser)]
    digest = hashlib.sha256(json.dumps(sizes, sort_keys=True).encode())
    for name, tensor in sorted(network.state_dict().items()):
        if not name.startswith("decoder."):
            half = tensor.detach().to("cpu", torch.float16).contiguous()
            digest.update(name.encode() + half.numpy().tobytes())
    return digest.hexdigest()[:32]
