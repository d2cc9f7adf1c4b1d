"""A trained generator on disk, and the voices that it learnt."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from audiossm.checkpoint import save_model
from audiossm.codec import LoadedCodec
from audiossm.config import to_dict
from audiossm.models.generator import Generator

__all__ = ["CodesPin", "save_generator", "save_voices"]


@dataclass(frozen=True, kw_only=True)
class CodesPin:
    """The table ``codec`` in the config.toml of a model that makes a codec's codes.

    ``hash`` is the codec's ``codes_hash``.
    """

    name: str
    hash: str


def save_generator(path: Path, description: str, network: Generator, codec: LoadedCodec) -> None:
    """Write a model folder, which names the codec."""
    pin = CodesPin(name=codec.name, hash=codec.codes_hash)
    tables = {"generator": to_dict(network.config), "codec": to_dict(pin)}
    save_model(path, "generator", description, tables, network.state_dict())


def save_voices(path: Path, names: Sequence[str], voices: Tensor, paces: Tensor) -> None:
    """Write a safetensors file of voices.

    Args:
        path: the file.
        names: whose they are; a JSON list in the file's metadata, ``names``.
        voices: (names, d_voice), in the file float32.
        paces: (names,), each one's mean pace; in the file float32.
    """
    tensors = {"voices": voices, "paces": paces}
    floats = {n: x.detach().to("cpu", torch.float32).contiguous() for n, x in tensors.items()}
    metadata = {"names": json.dumps(list(names), ensure_ascii=False)}
    path.write_bytes(save_tensors(floats, metadata))
