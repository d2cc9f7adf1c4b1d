"""Voices: a small file each, which belongs to one generator.

``NAME.safetensors`` in the folder ``voices`` of a model holds, as float16, ``vector`` (d_voice,),
``pace`` (1,), and the state that the voice begins from, if it was tuned: tensors called ``state.``
and their name in ``GeneratorState``. A JSON object under the metadata key ``audiossm-voice`` says
whose it is: ``version``, ``name``, ``model`` (the generator's hash), ``origin`` and ``licence``;
and ``gain_db``, by how much its samples are made louder, 0 where it isn't said.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from audiossm.errors import ModelError
from audiossm.models.generator import GeneratorState
from audiossm.models.loaded_generator import LoadedGenerator
from audiossm.nn import map_state, named_tensors
from audiossm.whole import write_beside

__all__ = [
    "Voice",
    "check_voice",
    "find_voice",
    "list_voices",
    "load_voice",
    "make_nobody",
    "save_voice",
    "voice_path",
]

VOICE_FORMAT, VOICE_VERSION = "audiossm-voice", 1
FOLDER, SUFFIX = "voices", ".safetensors"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
MAX_PACE, MAX_GAIN_DB = 3.0, 24.0


@dataclass(frozen=True, kw_only=True)
class Voice:
    """Who speaks.

    Attributes:
        name: as people call it.
        vector: (d_voice,) float32.
        pace: the logarithm of how much longer than usual its phones are.
        state: what the generator begins from; zeros without one.
        origin: one line: whose voice it is, and of which recordings.
        licence: one line: on what terms it may be used.
        gain_db: by how much the samples of a text that it says are louder than the codec's.
    """

    name: str
    vector: NDArray[np.float32]
    pace: float = 0.0
    state: GeneratorState | None = None
    origin: str = ""
    licence: str = ""
    gain_db: float = 0.0

    def amplify(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Make samples as loud as the voice is to be, each by itself: pieces give what all give."""
        return samples * np.float32(10 ** (self.gain_db / 20)) if self.gain_db else samples


def make_nobody(generator: LoadedGenerator) -> Voice:
    """Return the voice of a generator that wasn't told any: it may be another one each time."""
    return Voice(name="", vector=np.zeros(generator.config.d_voice, np.float32))


def list_voices(generator: LoadedGenerator) -> list[str]:
    """Return the names of a generator's voices, in the order of the alphabet."""
    if generator.folder is None:
        return []
    return sorted(path.stem for path in (generator.folder / FOLDER).glob(f"*{SUFFIX}"))


def find_voice(generator: LoadedGenerator, name: str | Path | None = None) -> Voice:
    """Load a voice by its name or its file; by default the generator's own, or nobody's.

    Raises:
        ModelError: there is no such voice, it is damaged or another model's.
    """
    names = list_voices(generator)
    if name is None:
        name = generator.default_voice
        if name is None:
            return make_nobody(generator)
    if str(name) in names:
        return load_voice(generator, voice_path(generator, str(name)))
    if str(name).endswith(SUFFIX):
        return load_voice(generator, Path(name))
    raise ModelError(
        f"no voice {str(name)!r}: model {generator.name!r} has {', '.join(names) or 'none'}; "
        f"or give a file, NAME{SUFFIX}"
    )


def load_voice(generator: LoadedGenerator, path: Path) -> Voice:
    """Read a voice's file.

    Raises:
        ModelError: it can't be read, is damaged, no voice, or another model's.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        fields = json.loads(metadata[VOICE_FORMAT])
        version, name, model = fields["version"], str(fields["name"]), fields["model"]
        origin, licence = str(fields["origin"]), str(fields["licence"])
        gain_db = float(fields.get("gain_db", 0.0))
    except KeyError as exc:
        raise ModelError(f"{path}: not a voice (no {exc} in it)") from exc
    except (OSError, SafetensorError, ValueError, TypeError) as exc:
        raise ModelError(f"{path}: can't read this voice ({exc})") from exc
    if version != VOICE_VERSION:
        raise ModelError(
            f"{path}: voice version {version!r}, but this audiossm reads {VOICE_VERSION}"
        )
    if model != generator.hash:
        raise ModelError(
            f"{path}: a voice of the model with hash {model}, but {generator.name!r} has "
            f"{generator.hash}: tune it again with 'audiossm voice add'"
        )
    like = dict(_name_tensors(generator.network.init_state(1)))
    expected = {"vector": (generator.config.d_voice,), "pace": (1,)}
    if tensors.keys() - expected.keys():
        expected |= {name: (*tensor.shape,) for name, tensor in like.items()}
    found = {name: (*tensor.shape,) for name, tensor in tensors.items()}
    floats = all(tensor.is_floating_point() for tensor in tensors.values())
    if found != expected or not floats:
        raise ModelError(f"{path}: its tensors aren't those of a voice of {generator.name!r}")
    whole = {name: tensor.float() for name, tensor in tensors.items()}
    pace = float(whole["pace"])
    finite = all(bool(tensor.isfinite().all()) for tensor in whole.values())
    if not finite or abs(pace) > MAX_PACE or not abs(gain_db) <= MAX_GAIN_DB:
        raise ModelError(f"{path}: has values that no voice has: the file is damaged")
    state = None
    if len(whole) > 2:
        values = iter([whole[name] for name in like])
        state = map_state(lambda _: next(values), generator.network.init_state(1))
    return Voice(
        name=name,
        vector=whole["vector"].numpy(),
        pace=pace,
        state=state,
        origin=origin,
        licence=licence,
        gain_db=gain_db,
    )


def check_voice(voice: Voice) -> None:
    """Refuse what a file may not say.

    Raises:
        ModelError: the name can't be a file's, or something isn't said.
    """
    if not NAME.fullmatch(voice.name):
        raise ModelError(
            f"voice name {voice.name!r}: up to 64 letters, digits, - and _, the first no mark"
        )
    for what, line in (("origin", voice.origin), ("licence", voice.licence)):
        if not line.strip() or not line.isprintable():
            raise ModelError(f"a voice says its {what} in one line, not {line!r}")


def voice_path(generator: LoadedGenerator, name: str) -> Path:
    """Return where a voice of that name belongs, in the model's folder.

    Raises:
        ModelError: the model has none.
    """
    if generator.folder is None:
        raise ModelError(f"model {generator.name!r} has no folder: say where the voice goes")
    return generator.folder / FOLDER / f"{name}{SUFFIX}"


def save_voice(generator: LoadedGenerator, voice: Voice, path: Path | None = None) -> Path:
    """Write a voice's file, or leave what was there; by default in the model's folder.

    Returns:
        its path.

    Raises:
        ModelError: the name can't be a file's, something isn't said, or a value isn't finite.
        OSError: it can't be written.
    """
    check_voice(voice)
    path = voice_path(generator, voice.name) if path is None else path
    tensors = {"vector": torch.from_numpy(voice.vector), "pace": torch.tensor([voice.pace])}
    if voice.state is not None:
        tensors |= dict(_name_tensors(voice.state))
    halves = {name: tensor.detach().half().contiguous() for name, tensor in tensors.items()}
    if not all(bool(half.isfinite().all()) for half in halves.values()):
        raise ModelError(f"voice {voice.name!r} has values that float16 can't hold")
    fields = {
        "version": VOICE_VERSION,
        "name": voice.name,
        "model": generator.hash,
        "origin": voice.origin,
        "licence": voice.licence,
    }
    if voice.gain_db:
        fields["gain_db"] = voice.gain_db
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_beside(path) as part:
        part.write_bytes(save_tensors(halves, {VOICE_FORMAT: json.dumps(fields)}))
    return path


def _name_tensors(state: GeneratorState) -> list[tuple[str, Tensor]]:
    return list(named_tensors(state, "state"))
