"""Which codec a model was trained on: with another one it would hear or say nonsense."""

from dataclasses import dataclass
from pathlib import Path

from audiossm.checkpoint import ModelFolder
from audiossm.codec.loaded import LoadedCodec
from audiossm.errors import ModelError
from audiossm.graphs import Backend

__all__ = ["CodecPin", "CodesPin"]


@dataclass(frozen=True, kw_only=True)
class CodecPin:
    """The table ``codec`` in the config.toml of a model that stands on a codec.

    ``hash`` is the codec's ``frames_hash``. If its weights were rounded after the training, its
    frames are nearly the same, and ``rounded_from`` is the hash that it had then.
    """

    name: str
    hash: str
    rounded_from: str | None = None

    def load(self, folder: ModelFolder) -> LoadedCodec:
        """Load the codec of the model in ``folder``: the one beside it, else a shipped one.

        Raises:
            ModelError: there is none, it is damaged, or it isn't the one of the training.
        """
        codec = find_codec(folder, self.name)
        if codec.frames_hash != self.hash:
            raise ModelError(
                f"{folder.path}: was trained on codec {self.name!r} with frames of hash "
                f"{self.hash}, but that codec's now have {codec.frames_hash}: train the model on "
                "it again, or bring the old one back"
            )
        return codec


@dataclass(frozen=True, kw_only=True)
class CodesPin:
    """The table ``codec`` in the config.toml of a model of codes; ``hash`` is its ``codes_hash``.

    The codec's decoder may be trained on: the codes mean the same.
    """

    name: str
    hash: str

    def load(self, folder: ModelFolder, *, backend: Backend = "auto") -> LoadedCodec:
        """Load the codec of the model in ``folder``: the one beside it, else a shipped one.

        Raises:
            ModelError: there is none, it is damaged, or its codes aren't those of the training.
        """
        codec = find_codec(folder, self.name, backend)
        if codec.codes_hash != self.hash:
            raise ModelError(
                f"{folder.path}: was trained on codes of codec {self.name!r} of hash {self.hash}, "
                f"but that codec's are now of {codec.codes_hash}: train the model on it again, or "
                "bring the old one back"
            )
        return codec


def find_codec(folder: ModelFolder, name: str, backend: Backend = "auto") -> LoadedCodec:
    """Load a codec by name from beside a model's folder, else a shipped one."""
    beside = folder.path.parent / name
    return LoadedCodec.load(beside if beside.is_dir() else Path(name), backend=backend)
