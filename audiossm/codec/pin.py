"""Which codec a model was trained on: with another one it would hear or say nonsense."""

from dataclasses import dataclass
from pathlib import Path

from audiossm.checkpoint import ModelFolder, model_names
from audiossm.codec.encoder import Encoder
from audiossm.codec.foreign import PREFIX, load_codec
from audiossm.codec.loaded import LoadedCodec, load_encoder
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

    def load(self, folder: ModelFolder) -> Encoder:
        """Load the encoder that the model in ``folder`` stands on.

        Its codec is the one beside the model, else a shipped one.

        Raises:
            ModelError: there is none, it is damaged, or it isn't the one of the training.
        """
        encoder, frames_hash = load_encoder(find_codec(folder, self.name))
        if frames_hash != self.hash:
            raise ModelError(
                f"{folder.path}: was trained on codec {self.name!r} with frames of hash "
                f"{self.hash}, but that codec's now have {frames_hash}: train the model on "
                "it again, or bring the old one back"
            )
        return encoder


@dataclass(frozen=True, kw_only=True)
class CodesPin:
    """The table ``codec`` in the config.toml of a model of codes; ``hash`` is its ``codes_hash``.

    The codec's decoder may be trained on: the codes mean the same. A ``name`` that begins with
    ``transformers:`` is one of that package's.
    """

    name: str
    hash: str

    def load(self, folder: ModelFolder, *, backend: Backend = "auto") -> LoadedCodec:
        """Load the codec of the model in ``folder``: the one beside it, else a shipped one.

        Raises:
            ModelError: there is none, it is damaged, or its codes aren't those of the training.
        """
        if self.name.startswith(PREFIX):
            codec = load_codec(self.name)
        else:
            codec = LoadedCodec.load(find_codec(folder, self.name), backend=backend)
        if codec.codes_hash != self.hash:
            raise ModelError(
                f"{folder.path}: was trained on codes of codec {self.name!r} of hash {self.hash}, "
                f"but that codec's are now of {codec.codes_hash}: train the model on it again, or "
                "bring the old one back"
            )
        return codec


def find_codec(folder: ModelFolder, name: str) -> Path:
    """Find a codec by name: beside a model's folder, else a shipped one.

    Raises:
        ModelError: it is neither.
    """
    beside = folder.path.parent / name
    if beside.is_dir():
        return beside
    if name not in model_names() and not Path(name).is_dir():
        raise ModelError(
            f"{folder.path}: there is no model {name!r}, the codec that it stands on: copy that "
            f"codec's folder to {beside}"
        )
    return Path(name)
