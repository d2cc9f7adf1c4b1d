"""A trained generator on disk."""

from dataclasses import dataclass
from pathlib import Path

from audiossm.checkpoint import save_model
from audiossm.codec import LoadedCodec
from audiossm.config import to_dict
from audiossm.models.generator import Generator

__all__ = ["CodesPin", "save_generator"]


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
