"""Which codec a model was trained on: with another one it would hear or say nonsense."""

from dataclasses import dataclass
from pathlib import Path

from audiossm.checkpoint import ModelFolder
from audiossm.codec.encoder import Encoder
from audiossm.codec.loaded import load_encoder
from audiossm.errors import ModelError

__all__ = ["CodecPin"]


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
        beside = folder.path.parent / self.name
        encoder, frames_hash = load_encoder(beside if beside.is_dir() else Path(self.name))
        if frames_hash != self.hash:
            raise ModelError(
                f"{folder.path}: was trained on codec {self.name!r} with frames of hash "
                f"{self.hash}, but that codec's now have {frames_hash}: train the model on "
                "it again, or bring the old one back"
            )
        return encoder
