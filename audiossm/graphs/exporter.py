"""From a pure step to an ONNX graph without weights: torch's exporter, and what it may not do."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from audiossm.errors import DependencyError
from audiossm.graphs.step import Step
from audiossm.nn import map_state, named_tensors, turn_tails
from audiossm_kernels.operators import export_to_onnx

__all__ = ["export_graph"]

OPSET = 23  # the first that has an RMS norm
# larger results of constants aren't stored: the runtime works them out when it loads the graph
MAX_FOLDED = 1024

S = TypeVar("S")


class _Called(nn.Module):
    """A function of a network as the ``forward`` of a module."""

    def __init__(self, network: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.network, self.call = network, call

    def forward(self, x: Tensor, state: object) -> Any:
        return self.call(self.network, x, state)


class _Flat(nn.Module):
    """A step over flat tensors, whose weights are inputs like all others."""

    def __init__(self, step: Step[S], state: S, names: list[str]) -> None:
        super().__init__()
        # in a tuple it is no submodule, so that the exporter sees no weights of its own
        self.called = (_Called(step.network, step.call),)
        self.like, self.names = state, names

    def forward(self, x: Tensor, state: list[Tensor], weights: list[Tensor]) -> Any:
        values = iter(state)
        nested = turn_tails(map_state(lambda _: next(values), self.like))
        held = {f"network.{n}": weight for n, weight in zip(self.names, weights, strict=True)}
        outputs, new_state = functional_call(self.called[0], held, (x, nested))
        return (*outputs, *(tensor for _, tensor in named_tensors(turn_tails(new_state))))


def export_graph(step: Step[S], num_frames: int) -> bytes:
    """Export a step of one stream by so many frames.

    The graph's inputs are ``x`` and the state's tensors by name, its outputs those of the step and
    the state's names with ``new.`` in front. What convolutions remember has its channels last.
    Weights are initializers outside the file, called ``weights.`` and their name: a graph serves
    all networks of one size.

    Raises:
        DependencyError: the exporter's packages aren't installed.
    """
    try:
        import onnx_ir
        from onnx_ir.passes import common
        from onnxscript.optimizer._constant_folding import FoldConstantsPass
    except ImportError as exc:
        raise DependencyError(
            f"exporting needs the package {exc.name}: pip install 'audiossm[export]'"
        ) from exc
    state = turn_tails(step.init_state(1))
    states = dict(named_tensors(state))
    weights = {name: tensor.contiguous() for name, tensor in step.weights().items()}
    flat = _Flat(step, state, list(weights)).eval()
    example = step.example(num_frames)
    with _quiet(), torch.no_grad(), export_to_onnx():
        # not optimised there: onnxscript takes "+ 1e-8" for "+ 0" and leaves it out
        program = torch.onnx.export(
            flat,
            (example, list(states.values()), list(weights.values())),
            dynamo=True,
            opset_version=OPSET,
            optimize=False,
        )
        assert program is not None
        model = program.model
        common.OutputFixPass()(model)  # an input that is handed on would have two names
        inputs = ["x", *states, *(f"weights.{name}" for name in weights)]
        outputs = [name for name, _ in step.outputs] + [f"new.{name}" for name in states]
        for values, names in ((model.graph.inputs, inputs), (model.graph.outputs, outputs)):
            for value, name in zip(values, names, strict=True):
                value.name = name
        fold = FoldConstantsPass(
            shape_inference=True, input_size_limit=MAX_FOLDED, output_size_limit=MAX_FOLDED
        )
        for clean in (
            common.InlinePass(),
            *(fold, common.RemoveUnusedNodesPass(), common.CommonSubexpressionEliminationPass()),
            *(fold, common.RemoveUnusedNodesPass(), common.CommonSubexpressionEliminationPass()),
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            common.DeduplicateInitializersPass(),
            common.RemoveUnusedOpsetsPass(),
        ):
            clean(model)
    return _write(onnx_ir.to_proto(model), step.metadata(num_frames))


def _write(proto: Any, metadata: dict[str, str]) -> bytes:
    """Move the weights out, leave out what only debugging needs, and serialise."""
    graph = proto.graph
    used = {name for node in graph.node for name in node.input}
    inputs = list(graph.input)
    del graph.input[:]
    for value in inputs:
        if value.name.startswith("weights."):
            if value.name not in used:
                continue
            outside = graph.initializer.add()
            outside.name, outside.data_type = value.name, value.type.tensor_type.elem_type
            outside.dims.extend(dim.dim_value for dim in value.type.tensor_type.shape.dim)
            outside.data_location = outside.EXTERNAL
            entry = outside.external_data.add()
            entry.key, entry.value = "location", "weights"
        else:
            graph.input.append(value)
    kept = {value.name for value in (*graph.input, *graph.output)}
    kept |= {tensor.name for tensor in graph.initializer if tensor.name.startswith("weights.")}
    short = _shorten(graph, kept | {""})
    for tensor in graph.initializer:
        tensor.name = short.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [short.get(name, name) for name in node.input]
        node.output[:] = [short.get(name, name) for name in node.output]
        node.ClearField("name")
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output, graph):
        part.ClearField("doc_string")
        del part.metadata_props[:]
    del graph.value_info[:], proto.metadata_props[:]
    graph.name = metadata["step"]
    for key, text in metadata.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, text
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _shorten(graph: Any, kept: set[str]) -> dict[str, str]:
    """Number the names of a graph that nobody asks for."""
    names = dict.fromkeys(tensor.name for tensor in graph.initializer)
    for node in graph.node:
        names |= dict.fromkeys([*node.input, *node.output])
    return {name: f"v{i}" for i, name in enumerate(name for name in names if name not in kept)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and its packages' warnings from the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
