"""Replay of golden arrays: does this implementation compute Mamba-3?

A golden file is an ``.npz`` with inputs and expected outputs; its input says what it tests: ``q``
the scan and the step (ops), ``u`` a mixer (layer), ``ids`` a language model (lm). It is replayed
in every way that must give the outputs: reference and chunked, whole and frame by frame.
"""

import io
import json
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiossm.config import from_dict
from audiossm.errors import AudioSSMError, ModelError
from audiossm.models.language_model import (
    LanguageModel,
    LanguageModelConfig,
    SsmConfig,
    load_parameters,
)
from audiossm.nn import Mamba3, StreamingModule
from audiossm_kernels import (
    KernelError,
    Pairing,
    SsmInputs,
    SsmParams,
    SsmState,
    ssm_scan,
    ssm_step,
)

__all__ = ["Result", "TOLERANCE", "largest_difference", "replay", "run_conformance"]

# largest error of a float32 implementation, relative to the largest golden value
TOLERANCE = 2e-5

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Result:
    """One way of replaying one file.

    ``kind`` names the file's kind and the way: ``ops chunked``, ``layer stepwise``. ``worst_key``
    is the array with the largest error, or the reason why the file can't be replayed.
    """

    file: str
    kind: str
    max_rel_error: float
    worst_key: str
    passed: bool


@dataclass(frozen=True)
class Replayed:
    """What one way of replaying computed, by the golden key it must equal."""

    way: str
    outputs: dict[str, Tensor]


def run_conformance(folder: Path | str, tolerance: float = TOLERANCE) -> list[Result]:
    """Replay every ``.npz`` of a folder, in the order of their names.

    Args:
        folder: holds the golden files.
        tolerance: largest error that passes, relative to the largest golden value of an array.
    Returns:
        One result per file and way; a file that can't be replayed is one failing result.
    Raises:
        AudioSSMError: the folder has no ``.npz``.
    """
    paths = sorted(Path(folder).glob("*.npz"))
    if not paths:
        raise AudioSSMError(f"{folder}: no golden files here, expected *.npz")
    return [result for path in paths for result in replay(path, tolerance)]


def replay(path: Path | str, tolerance: float = TOLERANCE) -> list[Result]:
    """Replay one golden file in every way; see ``run_conformance``."""
    path = Path(path)
    kind = "unknown"
    try:
        arrays = read_arrays(path)
        kind, run = find_kind(arrays)
        with torch.no_grad():
            return [
                compare(path.name, f"{kind} {replayed.way}", replayed.outputs, arrays, tolerance)
                for replayed in run(arrays)
            ]
    except KeyError as exc:
        reason = f"no array {exc}"
    except (AudioSSMError, KernelError, ValueError, TypeError, IndexError, RuntimeError) as exc:
        # a damaged file may hold anything: its own error is its row, the others still run
        reason = " ".join(str(exc).split())
    return [Result(path.name, kind, math.inf, reason, False)]


def read_arrays(path: Path) -> Arrays:
    """Read all arrays of an ``.npz``; nothing in it is unpickled."""
    try:
        # from memory: numpy leaves a damaged file open
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as exc:
        raise ModelError(f"can't read it as npz: {exc}") from exc


def find_kind(arrays: Arrays) -> tuple[str, Callable[[Arrays], Iterator[Replayed]]]:
    """Tell from its input what a file tests, and return the way to replay it."""
    for key, kind in KINDS.items():
        if key in arrays:
            return kind
    raise ModelError(f"nothing to replay: expected an array named {' or '.join(KINDS)}")


def compare(
    file: str, kind: str, outputs: dict[str, Tensor], arrays: Arrays, tolerance: float
) -> Result:
    """Find the output that is farthest from its golden array."""
    worst, worst_key = 0.0, next(iter(outputs))
    for key, output in outputs.items():
        error = relative_error(key, output, torch.from_numpy(arrays[key]))
        # NaN is worse than anything and compares false
        if not error <= worst:
            worst, worst_key = (math.inf if math.isnan(error) else error), key
    return Result(file, kind, worst, worst_key, worst <= tolerance)


def relative_error(key: str, output: Tensor, golden: Tensor) -> float:
    """Return max |output - golden| / max |golden|; angles are compared on the circle."""
    if output.shape != golden.shape:
        raise ModelError(f"{key} is {(*golden.shape,)} in the file, computed is {(*output.shape,)}")
    scale = max(golden.abs().max().item(), torch.finfo(torch.float32).tiny)
    return largest_difference(key, output, golden) / scale


def largest_difference(key: str, a: Tensor, b: Tensor) -> float:
    """Return max |a - b|, 0 for empty tensors; angles are compared on the circle."""
    difference = a.double() - b.double()
    if key.endswith("angle"):
        difference = torch.remainder(difference + math.pi, 2 * math.pi) - math.pi
    return difference.abs().max().item() if difference.numel() else 0.0


def replay_ops(arrays: Arrays) -> Iterator[Replayed]:
    """Run the mixer core: both scans, and the step frame by frame."""
    x = {key: torch.from_numpy(array) for key, array in arrays.items() if array.ndim}
    variant = str(arrays["kind"])
    if variant not in ("siso", "mimo"):
        raise ModelError(f"kind is {variant!r}, expected 'siso' or 'mimo'")
    siso = variant == "siso"
    pairing: Pairing = "adjacent" if siso else "halved"
    dt, adt, trap = (x[key].transpose(1, 2) for key in ("dt", "adt", "trap"))
    inputs = SsmInputs(x["q"], x["k"], x["v"], x["z"], dt, adt, trap, x["angles"])
    mimo = (x.get("mimo_x"), x.get("mimo_z"), x.get("mimo_o"))
    params = SsmParams(x["q_bias"], x["k_bias"], x["D"], *mimo)
    if "in_ssm" in x:
        key = x["in_k"].unsqueeze(1) if siso else x["in_k"]
        state = SsmState(x["in_angle"], x["in_ssm"], key, x["in_v"])
    else:
        key = x["out_k"].unsqueeze(1) if siso else x["out_k"]
        after = (x["out_angle"], x["out_ssm"], key, x["out_v"])
        state = SsmState._make(torch.zeros_like(part) for part in after)

    def collect(way: str, y: Tensor, last: SsmState) -> Replayed:
        key = last.k.squeeze(1) if siso else last.k
        outputs = {"out": y, "out_angle": last.angle, "out_ssm": last.ssm, "out_k": key}
        return Replayed(way, outputs | {"out_v": last.v})

    for impl in ("reference", "chunked"):
        y, last = ssm_scan(*inputs, params, state, pairing=pairing, impl=impl)
        yield collect(impl, y, last)
    frames = []
    for parts in zip(*(part.unbind(1) for part in inputs), strict=True):
        y, state = ssm_step(*SsmInputs._make(parts), params, state, pairing=pairing)
        frames.append(y)
    yield collect("stepwise", torch.stack(frames, dim=1), state)


def replay_layer(arrays: Arrays) -> Iterator[Replayed]:
    """Run a mixer whole and frame by frame."""
    data = read_config(arrays)
    d_model = data.pop("d_model")
    layer = Mamba3(from_dict(SsmConfig, data).mixer(d_model))
    load_parameters(layer, read_parameters(arrays))
    u = torch.from_numpy(arrays["u"])
    for way, (y, state) in run_both_ways(layer, u):
        outputs = {f"state_{key}": tensor for key, tensor in state._asdict().items()}
        yield Replayed(way, {"y": y} | outputs)


def replay_lm(arrays: Arrays) -> Iterator[Replayed]:
    """Run a language model whole and token by token."""
    model = LanguageModel(LanguageModelConfig.from_json(read_config(arrays)))
    model.load_checkpoint(read_parameters(arrays))
    for way, (logits, _) in run_both_ways(model, torch.from_numpy(arrays["ids"])):
        yield Replayed(way, {"logits": logits})


def run_both_ways(
    module: StreamingModule[Any], x: Tensor
) -> Iterator[tuple[str, tuple[Tensor, Any]]]:
    """Run ``x`` in one step, then in steps of one frame."""
    yield "whole", module.step(x, module.init_state(x.shape[0]))
    state, frames = module.init_state(x.shape[0]), []
    for index in range(x.shape[1]):
        y, state = module.step(x[:, index : index + 1], state)
        frames.append(y)
    yield "stepwise", (torch.cat(frames, dim=1), state)


def read_config(arrays: Arrays) -> dict[str, Any]:
    """Read the JSON table under ``config``."""
    data = json.loads(str(arrays["config"]))
    if not isinstance(data, dict):
        raise ModelError(f"config is {data!r}, expected a JSON object")
    return data


def read_parameters(arrays: Arrays) -> dict[str, Tensor]:
    """Collect the arrays under ``param.``."""
    prefix = "param."
    return {
        key.removeprefix(prefix): torch.from_numpy(array)
        for key, array in arrays.items()
        if key.startswith(prefix)
    }


KINDS = {"q": ("ops", replay_ops), "u": ("layer", replay_layer), "ids": ("lm", replay_lm)}
