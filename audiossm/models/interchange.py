"""Mamba-3 language models in the layout of their authors' repository, to model folders and back.

Their folder holds config.json and either pytorch_model.bin or model.safetensors, with the names of
``LanguageModel``. A model folder of the kind ``language-model`` holds the same tensors, each of the
dtype that it came in, and the config as the table ``language_model``: so the way back is exact.
"""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from audiossm.checkpoint import ModelFolder, make_empty, read_weights, save_exactly
from audiossm.config import from_dict, to_dict
from audiossm.errors import ConfigError, ModelError
from audiossm.models.language_model import LanguageModel, LanguageModelConfig

__all__ = [
    "KIND",
    "load_language_model",
    "read_authors_folder",
    "read_language_model",
    "save_language_model",
    "write_authors_folder",
]

KIND = "language-model"
CONFIG_FILE, PICKLED_FILE, SAFE_FILE = "config.json", "pytorch_model.bin", "model.safetensors"
HEAD, EMBEDDING = "lm_head.weight", "backbone.embedding.weight"
DAMAGED = (OSError, RuntimeError, EOFError, ValueError, KeyError, SafetensorError)


def read_authors_folder(path: Path) -> tuple[LanguageModelConfig, dict[str, Tensor]]:
    """Read a published checkpoint; nothing of it is executed.

    Args:
        path: a folder with config.json and pytorch_model.bin or model.safetensors.

    Returns:
        the config, and all tensors by name, as they are stored; a tied head is left out.

    Raises:
        ModelError: a file is missing or damaged, or tensors don't fit the config.
        ConfigError: a config of another model.
    """
    config = read_config(path / CONFIG_FILE)
    for name in (SAFE_FILE, PICKLED_FILE):
        if (path / name).is_file():
            break
    else:
        raise ModelError(f"{path}: has neither {SAFE_FILE} nor {PICKLED_FILE}")
    file = path / name
    try:
        if name == SAFE_FILE:
            tensors: Any = load_file(file)
        else:
            tensors = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise ModelError(
            f"{file}: holds more than tensors, or is damaged: it isn't opened, as that could run "
            "a stranger's code"
        ) from exc
    except DAMAGED as exc:
        raise ModelError(f"{file}: can't read these weights ({first_line(exc)})") from exc
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise ModelError(f"{file}: isn't a table of tensors by their names")
    tensors = dict(tensors)
    if config.tie_embeddings and HEAD in tensors and EMBEDDING in tensors:
        if not torch.equal(tensors.pop(HEAD), tensors[EMBEDDING]):
            raise ModelError(f"{file}: {HEAD} isn't the embedding, but tie_embeddings is true")
    check_tensors(file, config, tensors)
    return config, tensors


def read_config(file: Path) -> LanguageModelConfig:
    """Read the authors' config.json."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ModelError(f"{file}: can't be read ({exc.strerror})") from exc
    except ValueError as exc:
        raise ModelError(f"{file}: not valid JSON: {exc}") from exc
    if not isinstance(data, dict):
        raise ModelError(f"{file}: expected an object with d_model, n_layer, ssm_cfg and so on")
    try:
        return LanguageModelConfig.from_json(data)
    except ConfigError as exc:
        raise ConfigError(f"{file}: {exc}") from exc


def check_tensors(file: Path, config: LanguageModelConfig, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that aren't those of a model of this config, without memory for one.

    Raises:
        ModelError: names, shapes or values that it can't have.
    """
    with torch.device("meta"):
        expected = LanguageModel(config).state_dict()
    if config.tie_embeddings:
        del expected[HEAD]
    for problem, names in (
        ("lacks", expected.keys() - tensors.keys()),
        ("has the unknown", tensors.keys() - expected.keys()),
    ):
        if names:
            raise ModelError(f"{file}: {problem} {len(names)} tensor(s), the first {min(names)}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise ModelError(
                f"{file}: {name} has shape {(*tensor.shape,)}, config.json says "
                f"{(*expected[name].shape,)}"
            )
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise ModelError(f"{file}: {name} has values that are not finite numbers")


def write_authors_folder(
    path: Path, config: LanguageModelConfig, tensors: Mapping[str, Tensor], *, safe: bool = False
) -> None:
    """Write a folder that the authors' ``from_pretrained`` reads.

    Args:
        path: the folder, made if need be.
        config: of the model.
        tensors: as ``read_authors_folder`` returns them; a tied head is added.
        safe: write model.safetensors instead of pytorch_model.bin.
    """
    table = to_dict(config)
    table["ssm_cfg"].pop("a_activation", None)  # theirs has one only
    table["attn_cfg"] = {}
    tensors = dict(tensors)
    if config.tie_embeddings:
        tensors[HEAD] = tensors[EMBEDDING]
    path.mkdir(parents=True, exist_ok=True)
    text = json.dumps(table, indent=2) + "\n"
    (path / CONFIG_FILE).write_text(text, encoding="utf-8")
    if safe:
        # a file of that kind holds no tensor twice
        apart = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
        (path / SAFE_FILE).write_bytes(save(apart, metadata={"format": "pt"}))
    else:
        torch.save(tensors, path / PICKLED_FILE)


def save_language_model(
    path: Path, description: str, config: LanguageModelConfig, tensors: Mapping[str, Tensor]
) -> None:
    """Write a model folder; tensors keep their dtypes."""
    save_exactly(path, KIND, description, {"language_model": to_dict(config)}, dict(tensors))


def read_language_model(name: str | Path) -> tuple[LanguageModelConfig, dict[str, Tensor]]:
    """Read a model folder of this kind: the config, and the tensors as they are stored.

    Raises:
        ModelError: there is none, it is damaged, or a model of another kind.
    """
    folder = ModelFolder.open(name)
    config = open_config(folder)
    try:
        tensors = load_file(folder.weights)
    except DAMAGED as exc:
        raise ModelError(f"{folder.weights}: can't read these weights ({exc})") from exc
    check_tensors(folder.weights, config, tensors)
    return config, tensors


def load_language_model(name: str | Path) -> LanguageModel:
    """Load a model folder of this kind as float32, ready to predict.

    Its ``blocks()`` are the layers that recogniser and generator have, too.

    Raises:
        ModelError: there is none, it is damaged, or a model of another kind.
    """
    folder = ModelFolder.open(name)
    model = make_empty(LanguageModel, open_config(folder))
    model.load_checkpoint(read_weights(folder))
    return model.eval()


def open_config(folder: ModelFolder) -> LanguageModelConfig:
    """Read the table ``language_model`` of a model folder."""
    if folder.kind != KIND:
        raise ModelError(f"{folder.path}: a {folder.kind} model is no {KIND}")
    table = folder.config.get("language_model")
    if not isinstance(table, dict):
        raise ModelError(f"{folder.path}/config.toml: missing table 'language_model'")
    try:
        return from_dict(LanguageModelConfig, table, "language_model")
    except ConfigError as exc:
        raise ModelError(f"{folder.path}/config.toml: {exc}") from exc


def first_line(exc: Exception) -> str:
    """Return what an error says first."""
    return (str(exc).splitlines() or [type(exc).__name__])[0]
