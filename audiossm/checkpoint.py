"""Model folders: config.toml, model.safetensors and a card, found by name.

A weight NAME stands in model.safetensors in one of three forms, which a file may mix:

- a floating-point tensor, float16 as ``save_model`` writes it, of its own dtype by
  ``save_exactly``;
- rows of whole numbers, as ``shrink_model`` writes large matrices and kernels: NAME is int8 and
  NAME.scale uint8, a code c for each row (dimension 0), which is its whole numbers times
  ``(8 + c % 8) * 2 ** (c // 8 - 24)``. Every such weight is a float16 number;
- the same in six bits, of format version 2: NAME is uint8, three bytes for each four numbers of its
  last dimension (``rounding.pack_rows``).
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from audiossm.config import dump_toml, load_toml
from audiossm.errors import ConfigError, ModelError
from audiossm.rounding import FOUR, MOST, pack_rows, restore_rows, round_rows, unpack_rows

__all__ = [
    "FORMAT_VERSION",
    "ModelFolder",
    "load_weights",
    "make_empty",
    "model_names",
    "read_weights",
    "save_exactly",
    "save_model",
    "shrink_model",
]

FORMAT_VERSION = 1
PACKED_VERSION = 2  # of those with weights of six bits, which older versions can't read
CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.toml", "model.safetensors", "README.md"
# weights of fewer values aren't worth a row of scales
SMALLEST = 1000

C = TypeVar("C")
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk."""

    path: Path
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def kind(self) -> str:
        """What the model is: ``recogniser``."""
        return str(self.config["kind"])

    @property
    def description(self) -> str:
        """One line for a person."""
        return str(self.config.get("description", ""))

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.path / WEIGHTS_FILE

    @staticmethod
    def open(name: str | Path) -> "ModelFolder":
        """Open a model by the name of a shipped one or by its folder.

        Raises:
            ModelError: there is none, its config lacks a key, or it has another format version.
        """
        path = find_folder(name)
        try:
            config = load_toml(path / CONFIG_FILE)
        except ConfigError as exc:
            raise ModelError(str(exc)) from exc
        if not (path / WEIGHTS_FILE).is_file():
            raise ModelError(f"{path}: the model has no {WEIGHTS_FILE}")
        for key in ("format_version", "kind"):
            if key not in config:
                raise ModelError(f"{path / CONFIG_FILE}: missing key {key!r}")
        if config["format_version"] not in (FORMAT_VERSION, PACKED_VERSION):
            raise ModelError(
                f"{path}: model format version {config['format_version']!r}, but this audiossm "
                f"reads versions {FORMAT_VERSION} and {PACKED_VERSION}"
            )
        return ModelFolder(path, config)


def shipped_models() -> Path:
    """Return the folder of models that came with the package or stand in its checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "_assets" / "models"
    return installed if installed.is_dir() else package.parent / "assets" / "models"


def model_names() -> list[str]:
    """List the shipped models by name."""
    root = shipped_models()
    if not root.is_dir():
        return []
    return sorted(path.parent.name for path in root.glob(f"*/{CONFIG_FILE}"))


def find_folder(name: str | Path) -> Path:
    """Find a model by its shipped name or by its folder."""
    shipped = shipped_models() / str(name)
    if str(name) in model_names():
        return shipped
    path = Path(name)
    if path.is_dir() and (path / CONFIG_FILE).is_file():
        return path.resolve()
    if path.is_dir():
        raise ModelError(f"{path}: not a model folder, it has no {CONFIG_FILE}")
    names = ", ".join(model_names()) or "none"
    raise ModelError(f"no model {str(name)!r}: shipped are {names}; or give a model's folder")


class _Undrawn(TorchFunctionMode):
    """Leaves weights as they are instead of drawing them at random."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.uniform_, Tensor.normal_):
            return args[0]
        if func in (nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_):
            return kwargs["tensor"]
        return func(*args, **kwargs)


def make_empty(make: Callable[[C], M], config: C) -> M:
    """Return a module whose weights mean nothing until they are loaded: that takes less time."""
    with _Undrawn():
        return make(config)


def load_weights(folder: ModelFolder, module: nn.Module, prefix: str = "") -> str:
    """Fill ``module`` with a folder's weights as float32; return the model's hash.

    The hash (32 hex digits of SHA-256) covers the tables of the config that shape the result and
    every weight: sessions are tied to it.

    Args:
        folder: the model.
        module: all of it, or the part whose weights' names begin with ``prefix``.
        prefix: what these names begin with in the file, and not in the part.

    Raises:
        ModelError: damaged file, missing or unknown tensors, other shapes, NaN or infinity.
    """
    data, tensors = read_file(folder, prefix)
    tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    expected = module.state_dict()
    for problem, names in (
        ("lacks", expected.keys() - tensors.keys()),
        ("has the unknown", tensors.keys() - expected.keys()),
    ):
        if names:
            shown = ", ".join(sorted(names)[:3])
            raise ModelError(
                f"{folder.weights}: {problem} {len(names)} tensor(s), the first {shown}: "
                "config and weights are not of the same model"
            )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise ModelError(
                f"{folder.weights}: {name} has shape {(*tensor.shape,)}, "
                f"config.toml says {(*expected[name].shape,)}"
            )
    module.load_state_dict(tensors, assign=True)  # a copy would take as long as reading them
    tables = {k: v for k, v in folder.config.items() if isinstance(v, dict)}
    # times and confidences only, measured afterwards
    shape = {k: v for k, v in tables.items() if k not in ("alignment", "confidence")}
    digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode())
    digest.update(data)
    return digest.hexdigest()[:32]


def read_weights(folder: ModelFolder) -> dict[str, Tensor]:
    """Return a folder's weights by name as float32, in whichever form they are stored.

    Raises:
        ModelError: damaged file, NaN or infinity.
    """
    return read_file(folder)[1]


def read_file(folder: ModelFolder, prefix: str = "") -> tuple[bytes, dict[str, Tensor]]:
    """Return the bytes of a folder's weights, and what ``read_weights`` makes of them.

    Only weights whose names begin with ``prefix`` are looked at.
    """
    path = folder.weights
    try:
        data = path.read_bytes()
        stored = {n: tensor for n, tensor in load_tensors(data).items() if n.startswith(prefix)}
    except (OSError, SafetensorError) as exc:
        raise ModelError(f"{path}: can't read these weights ({exc})") from exc
    weights = {}
    for name in [name for name in stored if is_whole(name, stored)]:
        numbers, codes = stored.pop(name), stored.pop(f"{name}.scale", None)
        if codes is None or codes.dtype != torch.uint8 or codes.shape != numbers.shape[:1]:
            raise ModelError(
                f"{path}: {name} is {str(numbers.dtype).removeprefix('torch.')}, but there is no "
                f"{name}.scale of uint8 with a value for each of its rows: the file is damaged"
            )
        if numbers.dtype == torch.uint8:
            if numbers.dim() < 2 or numbers.shape[-1] % (FOUR - 1):
                raise ModelError(
                    f"{path}: {name} has shape {(*numbers.shape,)}, which numbers of six bits "
                    "can't have: the file is damaged"
                )
            numbers = unpack_rows(numbers)
        weights[name] = restore_rows(numbers, codes)
    for name, tensor in stored.items():
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise ModelError(
                f"{path}: {name} has values that are not finite floating-point numbers: "
                "the file is damaged"
            )
        weights[name] = tensor.float()
    return data, weights


def is_whole(name: str, stored: Mapping[str, Tensor]) -> bool:
    """Tell whether a stored tensor is a weight in whole numbers, and not the scales of one."""
    kind = stored[name].dtype
    scales = name.endswith(".scale") and name.removesuffix(".scale") in stored
    return kind == torch.int8 or (kind == torch.uint8 and not scales)


def save_model(
    path: Path, kind: str, description: str, config: dict[str, Any], weights: dict[str, Tensor]
) -> None:
    """Write a model folder; weights are stored as float16.

    Args:
        path: the folder, made if need be; its name is the model's name.
        kind: ``recogniser``.
        description: one line for a person.
        config: the tables of config.toml.
        weights: a state dict, floating point.
    """
    save_exactly(path, kind, description, config, to_halves(weights))


def save_exactly(
    path: Path, kind: str, description: str, config: dict[str, Any], weights: dict[str, Tensor]
) -> None:
    """Write a model folder as ``save_model`` does, but each weight as it is."""
    path.mkdir(parents=True, exist_ok=True)
    head = {"format_version": FORMAT_VERSION, "kind": kind, "description": description}
    (path / CONFIG_FILE).write_text(dump_toml(head | config), encoding="utf-8")
    write_tensors(path, weights)


def shrink_model(
    path: Path,
    folder: ModelFolder,
    steps: Mapping[str, float] | None = None,
    keep: tuple[str, ...] = (),
    bits: int = 8,
) -> None:
    """Write a model folder's counterpart of half the size; its card stays as it is.

    Matrices and kernels become rows of whole numbers, everything else float16. Shrinking what was
    shrunk changes nothing. With six bits it is three eighths of the size. Of its config only the
    format version may change, which is 2 where a weight has six bits, else 1.

    Args:
        path: the new folder, made if need be; may be the old one.
        folder: the model, in either form.
        steps: by name, weights that are used in multiples of a step, as of ``round_rows``.
        keep: weights whose name begins with one of these stay float16.
        bits: 8, or 6 where rows have a multiple of four numbers and no steps.

    Raises:
        ValueError: other bits.
    """
    if bits not in MOST:
        raise ValueError(f"bits must be {' or '.join(map(str, MOST))}, not {bits}")
    steps, tensors = steps or {}, to_halves(read_weights(folder))
    version = FORMAT_VERSION
    for name, half in list(tensors.items()):
        large = half.dim() > 1 and half.numel() >= SMALLEST and not name.endswith("bias")
        if name in steps or (large and not name.startswith(keep)):
            packed = bits == 6 and name not in steps and half.shape[-1] % FOUR == 0
            numbers, tensors[f"{name}.scale"] = round_rows(
                half, steps.get(name), 6 if packed else 8
            )
            tensors[name] = pack_rows(numbers) if packed else numbers
            version = PACKED_VERSION if packed else version
    path.mkdir(parents=True, exist_ok=True)
    card, text = folder.path / CARD_FILE, (folder.path / CONFIG_FILE).read_text(encoding="utf-8")
    if card.exists() and path.resolve() != folder.path.resolve():
        shutil.copyfile(card, path / card.name)
    # a text, so that comments stay
    text = re.sub(r"(?m)^(format_version\s*=\s*)\d+", rf"\g<1>{version}", text, count=1)
    (path / CONFIG_FILE).write_text(text, encoding="utf-8")
    write_tensors(path, tensors)


def to_halves(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn weights into float16 on the CPU."""
    halves = {name: tensor.detach().to("cpu", torch.float16) for name, tensor in weights.items()}
    for name, tensor in halves.items():
        if not tensor.isfinite().all():
            raise ModelError(f"{name} has values that float16 can't hold")
    return halves


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a model folder's model.safetensors."""
    # not save_file(): its files can be read by their owner only
    data = save_tensors({name: tensor.contiguous() for name, tensor in tensors.items()})
    (path / WEIGHTS_FILE).write_bytes(data)
