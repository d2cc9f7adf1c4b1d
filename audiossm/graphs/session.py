"""Graphs in ONNX Runtime, and one stream's states in memory that they are bound to."""

from __future__ import annotations

import contextlib
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiossm.errors import DependencyError, ModelError
from audiossm.graphs.int8 import byte_weights, int8_weights
from audiossm.graphs.probe import sums_are_exact
from audiossm.graphs.step import Precision, Step
from audiossm.nn import map_state, named_tensors, turn_tails

__all__ = ["FEW_FRAMES", "BoundState", "GraphFolder", "open_graph"]

S = TypeVar("S")
Arrays = list[NDArray[Any]]

# a stream of fewer frames a step than this comes live
FEW_FRAMES = 16


class GraphFolder(Generic[S]):
    """The graphs of one step, with the weights of its network; loaded when they are needed.

    Threads may share it.

    Args:
        step: what the graphs do.
        folders: where they may lie; the first that has one is taken.
        precision: of the weights in matrix products.
    """

    def __init__(
        self, step: Step[S], folders: tuple[Path, ...], precision: Precision = "float32"
    ) -> None:
        self.step, self.precision = step, precision
        self.files = find_files(step, folders, precision)
        # as exact, and faster, but only with the weights that they were made with
        self.faster = find_files(step, folders, "bytes") if precision == "float32" else {}
        self.lock = Lock()
        self.loaded: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what another process has to have of its own."""
        return self.__dict__ | {"lock": None, "loaded": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, lock=Lock())

    @property
    def frame_counts(self) -> list[int]:
        """Frames that a graph takes at once, the largest number first."""
        return sorted(self.files, reverse=True)

    def check(self) -> None:
        """Load the graph of one frame.

        Raises:
            ModelError: there is none, or it is another network's.
            DependencyError: ONNX Runtime isn't installed.
        """
        if 1 not in self.files:
            name = self.step.file_name(1, self.precision)
            raise ModelError(
                f"there is no graph {name} for this model: make it with 'audiossm export'"
            )
        self.load(1)

    def load(self, num_frames: int) -> Any:
        """Return the runtime's session of a graph.

        Raises:
            ModelError: it is damaged or another network's.
            DependencyError: ONNX Runtime isn't installed.
        """
        with self.lock:
            if num_frames not in self.loaded:
                self.loaded[num_frames] = self._choose(num_frames)
            return self.loaded[num_frames]

    def _choose(self, num_frames: int) -> Any:
        if num_frames in self.faster and sums_are_exact():
            with contextlib.suppress(ModelError):  # made with other weights
                return self._open(num_frames, self.faster[num_frames], "bytes")
        return self._open(num_frames, self.files[num_frames], self.precision)

    def _open(self, num_frames: int, path: Path, precision: Precision) -> Any:
        # steps of few frames are done before a second thread has woken up
        threads = 1 if num_frames < FEW_FRAMES else torch.get_num_threads()
        try:
            session = open_graph(path.read_bytes(), self.step, threads)
        except (DependencyError, OSError):
            raise
        except Exception as exc:  # the runtime has a class for each status, none of them public
            reason = " ".join(str(exc).split())[:200]
            raise ModelError(f"{path}: not a graph of this model ({reason})") from exc
        found = session.get_modelmeta().custom_metadata_map
        for key, value in self.step.metadata(num_frames, precision).items():
            if found.get(key) != value:
                raise ModelError(
                    f"{path}: a graph of {key} {found.get(key)!r}, but this model needs {value!r}: "
                    "make it again with 'audiossm export'"
                )
        return session


def find_files(step: Step[S], folders: tuple[Path, ...], precision: Precision) -> dict[int, Path]:
    """Return a step's graphs by the frames that they take; of several, the first folder's."""
    before, behind = step.file_name(0, precision).split("0", 1)
    files: dict[int, Path] = {}
    for folder in reversed(folders):
        for path in folder.glob(f"{before}*{behind}"):
            number = path.name.removeprefix(before).removesuffix(behind)
            if number.isdecimal():
                files[int(number)] = path
    return files


def open_graph(data: bytes, step: Step[S], threads: int = 1) -> Any:
    """Give a graph to the runtime, with the weights of the step's network.

    Raises:
        DependencyError: ONNX Runtime isn't installed.
    """
    try:
        import onnxruntime
    except ImportError as exc:
        raise DependencyError("running a graph needs the package onnxruntime") from exc
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what goes wrong is raised
    values: dict[str, NDArray[Any]] = {}
    # the runtime refuses weights that a graph doesn't use
    for name, tensor in step.weights().items():
        name = f"weights.{name}"
        if name_field(name) in data:
            values[name] = np.ascontiguousarray(tensor.numpy())
        if name_field(f"whole.{name}") in data:
            values[f"whole.{name}"], values[f"scale.{name}"] = int8_weights(tensor.numpy())
        if name_field(f"bytes.{name}") in data:
            values[f"bytes.{name}"], values[f"scale.{name}"] = byte_weights(tensor.numpy())
    make = onnxruntime.OrtValue.ortvalue_from_numpy
    options.add_external_initializers(list(values), [make(array) for array in values.values()])
    return onnxruntime.InferenceSession(
        data,
        options,
        providers=["CPUExecutionProvider"],
        # it would put a reshape on either side of each product of three dimensions
        disabled_optimizers=["MatMulAddFusion"],
    )


def name_field(name: str) -> bytes:
    """Return the bytes that name an initializer in a graph: field 8 of its message, a text."""
    text = name.encode()
    length = (
        bytes([len(text)]) if len(text) < 128 else bytes([len(text) % 128 + 128, len(text) // 128])
    )
    return b"\x42" + length + text


class BoundState(Generic[S]):
    """The state of one stream in two sets of arrays: a step reads one and writes the other.

    Rows go through the graphs one after the other: they can't touch each other.
    """

    def __init__(self, graphs: GraphFolder[S], state: S) -> None:
        state = turn_tails(state)
        self.graphs, self.like = graphs, state
        self.names = [name for name, _ in named_tensors(state)]
        # numpy's own memory, aligned as torch's is; nothing else holds on to it
        self.sets: tuple[Arrays, Arrays] = (
            [tensor.numpy().copy() for _, tensor in named_tensors(state)],
            [tensor.numpy().copy() for _, tensor in named_tensors(state)],
        )
        self.batch = len(self.sets[0][0])
        self.now = 0
        self.waited: dict[int, int] = {}
        self.bound: dict[tuple[int, int, int], _Binding] = {}

    def read(self) -> S:
        """Return the state as a value of its own: who goes on from it has the same bits."""
        arrays = iter(self.sets[self.now])
        state = map_state(lambda _: torch.from_numpy(next(arrays).copy()), self.like)
        return turn_tails(state)

    def step(self, x: Tensor) -> tuple[Tensor, ...]:
        """Advance by ``x`` (batch, frames * unit, ...), the largest graphs first."""
        step = self.graphs.step
        left, at = x.shape[1] // step.unit, 0
        pieces: list[list[NDArray[Any]]] = []
        samples = x.numpy()
        for count in self.graphs.frame_counts:
            if not self._earned(count, left):
                continue
            while left >= count:
                pieces.append(self._run(count, samples[:, at : at + count * step.unit]))
                at, left = at + count * step.unit, left - count
        if len(pieces) == 1:
            return tuple(torch.from_numpy(array) for array in pieces[0])
        return tuple(
            torch.from_numpy(np.concatenate([piece[i] for piece in pieces], axis=axis))
            for i, (_, axis) in enumerate(step.outputs)
        )

    def _earned(self, count: int, num_frames: int) -> bool:
        """Count frames for a graph that isn't loaded; true if it is, or is now worth it."""
        if count == 1 or num_frames < count or count in self.graphs.loaded:
            return True
        self.waited[count] = self.waited.get(count, 0) + num_frames // count * count
        return self.waited[count] >= self.graphs.step.patience

    def _run(self, count: int, x: NDArray[np.float32]) -> list[NDArray[Any]]:
        rows = []
        for row in range(self.batch):
            key = (count, row, self.now)
            if key not in self.bound:
                self.bound[key] = self._bind(count, row)
            rows.append(self.bound[key].run(x[row : row + 1]))
        self.now = 1 - self.now
        if self.batch == 1:
            return rows[0]
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    def _bind(self, count: int, row: int) -> _Binding:
        step, session = self.graphs.step, self.graphs.load(count)
        old, new = self.sets[self.now], self.sets[1 - self.now]
        example = step.example(count).numpy().copy()
        return _Binding(
            session,
            {"x": example}
            | {name: array[row : row + 1] for name, array in zip(self.names, old, strict=True)},
            {f"new.{n}": array[row : row + 1] for n, array in zip(self.names, new, strict=True)},
            [name for name, _ in step.outputs],
        )


class _Binding:
    """One graph's inputs and outputs tied to arrays."""

    def __init__(
        self,
        session: Any,
        inputs: dict[str, NDArray[Any]],
        states: dict[str, NDArray[Any]],
        outputs: list[str],
    ) -> None:
        import onnxruntime

        make = onnxruntime.OrtValue.ortvalue_from_numpy  # shares the array's memory
        self.session, self.binding, self.x = session, session.io_binding(), inputs["x"]
        self.held = []
        for name, array in inputs.items():
            self.held.append(make(array))
            self.binding.bind_ortvalue_input(name, self.held[-1])
        shapes = {out.name: (out.shape, out.type) for out in session.get_outputs()}
        self.outputs: list[NDArray[Any]] = []
        for name in outputs:
            shape, kind = shapes[name]
            dtype = np.int64 if kind == "tensor(int64)" else np.float32
            self.outputs.append(np.zeros(shape, dtype))
            states = states | {name: self.outputs[-1]}
        for name, array in states.items():
            self.held.append(make(array))
            self.binding.bind_ortvalue_output(name, self.held[-1])

    def run(self, x: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Run once; what comes back is a copy."""
        self.x[...] = x
        self.session.run_with_iobinding(self.binding)
        return [output.copy() for output in self.outputs]
