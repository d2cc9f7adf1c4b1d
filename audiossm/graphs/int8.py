"""Graphs whose large matrix products are of whole numbers: 8 bits a weight, 8 bits an activation.

A weight has a scale for each of its outputs. An activation has one scale and one zero, measured
once on recordings: never on what comes, or a loud stream would change what lies beside it. One
scale can't serve channels of very different sizes: a product that errs too much on the recordings
stays in float32.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiossm.errors import AudioError, DependencyError
from audiossm.graphs.step import Step
from audiossm.nn import named_tensors, turn_tails
from audiossm.rounding import SCALES, restore_rows, round_rows

__all__ = [
    "LARGEST_ERROR",
    "SMALLEST",
    "are_bytes",
    "byte_weights",
    "int8_weights",
    "quantise_graph",
]

S = TypeVar("S")

# products of smaller matrices aren't worth the rounding: the heads, and the bottleneck
SMALLEST = 40_000
# of a product: the power of what rounding does to its result, over the result's variance. All in
# the shipped models have less than 0.013, but one that has 0.22 and alone changed half of the codes
LARGEST_ERROR = 0.05
ZERO = 128  # of a weight; with a sign, older processors would add pairs up in too few bits


def int8_weights(weight: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Turn a weight (out, in) into whole numbers (in, out) and a scale for each output (out,).

    They are those that a file has: a model that was shrunk loses nothing more.
    """
    numbers, scale = byte_weights(weight)
    return (numbers.astype(np.int16) + ZERO).astype(np.uint8), scale


def byte_weights(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Do what ``int8_weights`` does, with whole numbers around zero."""
    numbers, codes = round_rows(torch.from_numpy(weight))
    return np.ascontiguousarray(numbers.numpy().T), SCALES[codes.long()].numpy()


def are_bytes(weight: Tensor) -> bool:
    """Return whether whole numbers of a byte and scales are exactly this weight (out, in)."""
    return torch.equal(restore_rows(*round_rows(weight)), weight.cpu().float())


def quantise_graph(data: bytes, step: Step[S], num_frames: int, inputs: Sequence[Tensor]) -> bytes:
    """Return a float32 graph's counterpart in 8 bits.

    Products that would err by more than ``LARGEST_ERROR`` are left as they are.

    Args:
        data: what ``export_graph`` returned.
        step: what it does.
        num_frames: that it takes.
        inputs: streams (1, frames * unit, ...) to measure activations on, each from its start.

    Raises:
        AudioError: no stream has so many frames.
        DependencyError: the package onnx isn't installed.
    """
    try:
        import onnx
    except ImportError as exc:
        raise DependencyError(
            f"exporting needs the package {exc.name}: pip install 'audiossm[export]'"
        ) from exc
    proto = onnx.ModelProto()
    proto.ParseFromString(data)
    graph = proto.graph
    products = find_products(graph, step)
    activations = sorted({product.x for product in products})
    ranges = measure_ranges(run_watched(proto, step, num_frames, inputs, activations), activations)
    errors = measure_errors(proto, step, num_frames, inputs, products, ranges)
    products = [product for product in products if errors[product.y] <= LARGEST_ERROR]
    whole = _Whole(onnx)
    nodes = {product.y: whole.product(product, ranges[product.x]) for product in products}
    replace_products(proto, nodes, whole.weights(products) + whole.tensors)
    onnx.helper.set_model_props(proto, step.metadata(num_frames, "int8"))
    result: bytes = proto.SerializeToString(deterministic=True)
    return result


class Product(NamedTuple):
    """A matrix product in a float32 graph: ``y = x @ weight.T * scale + bias``."""

    x: str
    y: str
    weight: str
    shape: tuple[int, int]  # of the weight: outputs, inputs
    scale: str | None  # (outputs,)
    bias: str | None


def replace_products(proto: Any, nodes: dict[str, list[Any]], tensors: list[Any]) -> None:
    """Put ``nodes`` where a product's ``y`` is made, and leave out what nobody needs then."""
    from onnx.helper import make_opsetid

    graph = proto.graph
    kept = [new for node in graph.node for new in nodes.get(node.output[0], [node])]
    count = len(kept) + 1
    while len(kept) < count:
        count = len(kept)
        used = {value for node in kept for value in node.input} | {out.name for out in graph.output}
        kept = [node for node in kept if used.intersection(node.output)]
    tensors = [*graph.initializer, *tensors]
    del graph.node[:], graph.initializer[:], proto.metadata_props[:]
    graph.node.extend(kept)
    graph.initializer.extend(tensor for tensor in tensors if tensor.name in used)
    if all(entry.domain != "com.microsoft" for entry in proto.opset_import):
        proto.opset_import.append(make_opsetid("com.microsoft", 1))


class Weights:
    """Initializers that products of whole numbers need."""

    prefix, kind = "whole", "UINT8"

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.tensors: list[Any] = []
        self.made: set[str] = set()

    def weights(self, products: list[Product]) -> list[Any]:
        """Return the initializers of products' weights."""
        tensors = []
        for name, (outputs, width) in {p.weight: p.shape for p in products}.items():
            tensors.append(self._outside(f"{self.prefix}.{name}", self.kind, [width, outputs]))
            tensors.append(self._outside(f"scale.{name}", "FLOAT", [outputs]))
        return tensors

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add a constant to ``tensors``, once, and return its name."""
        if name not in self.made:
            self.tensors.append(self.onnx.numpy_helper.from_array(value, name))
            self.made.add(name)
        return name

    def _outside(self, name: str, kind: str, shape: list[int]) -> Any:
        proto = self.onnx.TensorProto
        tensor = proto(name=name, data_type=getattr(proto, kind), dims=shape)
        tensor.data_location = proto.EXTERNAL
        tensor.external_data.add(key="location", value="weights")
        return tensor


class _Whole(Weights):
    """Makes the nodes and constants of products of whole numbers."""

    def product(self, product: Product, bounds: tuple[float, float]) -> list[Any]:
        """Return what stands for a product whose ``x`` lies between ``bounds``."""
        make, x, num_outputs = self.onnx.helper.make_node, product.x, product.shape[0]
        nodes = []
        if x not in self.made:
            low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
            unit = max(high - low, 1e-6) / 255
            self.constant(f"{x}.scale", np.array(unit, np.float32))
            self.constant(f"{x}.zero", np.array(round(-low / unit), np.uint8))
            nodes.append(make("QuantizeLinear", [x, f"{x}.scale", f"{x}.zero"], [f"{x}.whole"]))
            self.made.add(x)
        zeros = self.constant(f"zeros.{num_outputs}", np.full(num_outputs, ZERO, np.uint8))
        weight, scale = f"whole.{product.weight}", f"scale.{product.weight}"
        if product.scale is not None:
            nodes.append(make("Mul", [scale, product.scale], [f"{product.y}.scale"]))
            scale = f"{product.y}.scale"
        inputs = [f"{x}.whole", weight, f"{x}.scale", scale, f"{x}.zero", zeros]
        inputs += [] if product.bias is None else [product.bias]
        nodes.append(make("MatMulIntegerToFloat", inputs, [product.y], domain="com.microsoft"))
        return nodes


def find_products(graph: Any, step: Step[S]) -> list[Product]:
    """Return the products with a large parameter, in order."""
    parameters = {
        f"weights.{name}": tuple(tensor.shape) for name, tensor in step.parameters().items()
    }
    made = {node.output[0]: node for node in graph.node}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for value in node.input:
            readers.setdefault(value, []).append(node)
    # what is known when the graph is loaded
    fixed = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if fixed.issuperset(node.input):
            fixed |= set(node.output)
    products = []
    for node in graph.node:
        weight, scale, bias, y = "", None, None, node.output[0]
        if node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute):
            weight, bias = node.input[1], (*node.input[2:], None)[0]
        elif node.op_type == "MatMul" and _is(made.get(node.input[1]), "Transpose"):
            weight = made[node.input[1]].input[0]
            if weight not in parameters and _is(made.get(weight), "Mul"):
                weight, column = made[weight].input
                # a scale of rows is one of outputs
                scale = made[column].input[0] if _is(made.get(column), "Unsqueeze") else None
                weight = weight if scale else ""
            after = readers[y] if y in readers else []
            if len(after) == 1 and after[0].op_type == "Add" and after[0].input[1] in fixed:
                y, bias = after[0].output[0], after[0].input[1]
        shape = parameters.get(weight, ())
        if len(shape) == 2 and shape[0] * shape[1] >= SMALLEST:
            products.append(Product(node.input[0], y, weight, shape, scale, bias))
    return products


def _is(node: Any, kind: str) -> bool:
    return node is not None and node.op_type == kind


def run_watched(
    proto: Any, step: Step[S], num_frames: int, inputs: Sequence[Tensor], names: list[str]
) -> Iterator[dict[str, NDArray[Any]]]:
    """Run a graph on streams, each from its start, and yield tensors' values at each step."""
    import onnx

    from audiossm.graphs.session import open_graph

    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    for name in names:
        watched.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        )
    session = open_graph(watched.SerializeToString(), step)
    outputs = [output.name for output in session.get_outputs()]
    for x in inputs:
        state = {n: t.numpy() for n, t in named_tensors(turn_tails(step.init_state(1)))}
        for piece in torch.split(x, num_frames * step.unit, dim=1):
            if piece.shape[1] < num_frames * step.unit:
                break
            values = dict(
                zip(outputs, session.run(None, state | {"x": piece.numpy()}), strict=True)
            )
            state = {name: values[f"new.{name}"] for name in state}
            yield values


def measure_ranges(
    steps: Iterator[dict[str, NDArray[Any]]], names: list[str]
) -> dict[str, tuple[float, float]]:
    """Return the least and the largest value of some tensors.

    Raises:
        AudioError: there are no steps.
    """
    low, high = dict.fromkeys(names, np.inf), dict.fromkeys(names, -np.inf)
    for values in steps:
        for name in names:
            low[name] = min(low[name], float(values[name].min()))
            high[name] = max(high[name], float(values[name].max()))
    if any(low[name] > high[name] for name in names):
        raise AudioError("the recordings are too short to measure activations on")
    return {name: (low[name], high[name]) for name in names}


def measure_errors(
    proto: Any,
    step: Step[S],
    num_frames: int,
    inputs: Sequence[Tensor],
    products: list[Product],
    ranges: dict[str, tuple[float, float]],
) -> dict[str, float]:
    """Return by ``y`` what 8 bits do to each product alone, its ``x`` being exact.

    It is the error's mean square over the variance of ``y``, both summed over the outputs: what an
    output always has says nothing.
    """
    import onnx

    both, whole = onnx.ModelProto(), _Whole(onnx)
    both.CopyFrom(proto)
    rounded = {product.y: f"rounded.{product.y}" for product in products}
    nodes = [
        node for p in products for node in whole.product(p._replace(y=rounded[p.y]), ranges[p.x])
    ]
    both.graph.node.extend(nodes)
    both.graph.initializer.extend(whole.weights(products) + whole.tensors)
    both.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    wrong, count = dict.fromkeys(rounded, 0.0), dict.fromkeys(rounded, 0)
    total = {p.y: np.zeros(p.shape[0]) for p in products}
    squares = {p.y: np.zeros(p.shape[0]) for p in products}
    for values in run_watched(both, step, num_frames, inputs, [*rounded, *rounded.values()]):
        for y, other in rounded.items():
            rows = values[y].reshape(-1, values[y].shape[-1]).astype(np.float64)
            wrong[y] += float(np.square(rows - values[other].reshape(rows.shape)).sum())
            count[y] += len(rows)
            total[y] += rows.sum(axis=0)
            squares[y] += np.square(rows).sum(axis=0)
    variance = {y: (squares[y] - np.square(total[y]) / count[y]).sum() for y in rounded}
    return {y: wrong[y] / max(variance[y], 1e-12) for y in rounded}
