"""Graphs whose matrix products are of whole numbers: 8 bits a weight, 8 bits an activation.

A weight has a scale for each of its outputs. An activation has one scale and one zero, measured
once on recordings: never on what comes, or a loud stream would change what lies beside it.
"""

from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiossm.errors import DependencyError
from audiossm.graphs.step import Step
from audiossm.nn import named_tensors

__all__ = ["SMALLEST", "int8_weights", "quantise_graph"]

S = TypeVar("S")

# products of smaller matrices aren't worth the rounding: the heads, and the bottleneck
SMALLEST = 40_000
ZERO = 128  # of a weight


def int8_weights(weight: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Turn a weight (out, in) into whole numbers (in, out) and a scale for each output (out,)."""
    scale = np.maximum(np.abs(weight).max(axis=1), 1e-12) / 127
    whole = np.rint(weight / scale[:, np.newaxis]) + ZERO
    return np.ascontiguousarray(whole.astype(np.uint8).T), scale.astype(np.float32)


def quantise_graph(data: bytes, step: Step[S], num_frames: int, inputs: Iterable[Tensor]) -> bytes:
    """Return a float32 graph's counterpart in 8 bits.

    Args:
        data: what ``export_graph`` returned.
        step: what it does.
        num_frames: that it takes.
        inputs: streams (1, frames * unit, ...) to measure activations on, each from its start.

    Raises:
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
    activations = sorted({product.input[0] for product, _ in products.values()})
    ranges = measure(proto, step, num_frames, inputs, activations)
    whole = _Whole(onnx)
    names = {id(product): name for name, (product, _) in products.items()}
    nodes = []
    for node in graph.node:
        name = names.get(id(node))
        nodes += [node] if name is None else whole.product(node, name, products[name][1], ranges)
    used = {value for node in nodes for value in node.input} | {out.name for out in graph.output}
    nodes = [node for node in nodes if used.intersection(node.output)]
    used = {value for node in nodes for value in node.input}
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    for name in products:
        outputs, inputs_of_one = shapes[name]
        tensors.append(whole.outside(f"whole.{name}", "UINT8", [inputs_of_one, outputs]))
        tensors.append(whole.outside(f"scale.{name}", "FLOAT", [outputs]))
    del graph.node[:], graph.initializer[:], proto.metadata_props[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors + whole.tensors)
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.helper.set_model_props(proto, step.metadata(num_frames, "int8"))
    result: bytes = proto.SerializeToString(deterministic=True)
    return result


class _Whole:
    """Makes the nodes and constants of products of whole numbers."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.tensors: list[Any] = []
        self.made: set[str] = set()

    def product(
        self, node: Any, name: str, num_outputs: int, ranges: dict[str, tuple[float, float]]
    ) -> list[Any]:
        """Return what stands for a product with the weight ``name``."""
        make, x = self.onnx.helper.make_node, node.input[0]
        nodes = []
        if x not in self.made:
            low, high = min(ranges[x][0], 0.0), max(ranges[x][1], 0.0)
            scale = max(high - low, 1e-6) / 255
            self.constant(f"{x}.scale", np.array(scale, np.float32))
            self.constant(f"{x}.zero", np.array(round(-low / scale), np.uint8))
            nodes.append(make("QuantizeLinear", [x, f"{x}.scale", f"{x}.zero"], [f"{x}.whole"]))
            self.made.add(x)
        zeros = f"zeros.{num_outputs}"
        if zeros not in self.made:
            self.constant(zeros, np.full(num_outputs, ZERO, np.uint8))
            self.made.add(zeros)
        inputs = [f"{x}.whole", f"whole.{name}", f"{x}.scale", f"scale.{name}", f"{x}.zero", zeros]
        bias = list(node.input[2:])  # of a Gemm
        nodes.append(
            make("MatMulIntegerToFloat", inputs + bias, list(node.output), domain="com.microsoft")
        )
        return nodes

    def constant(self, name: str, value: NDArray[Any]) -> None:
        """Add a constant to ``tensors``."""
        self.tensors.append(self.onnx.numpy_helper.from_array(value, name))

    def outside(self, name: str, kind: str, shape: list[int]) -> Any:
        """Return an initializer that doesn't stand in the file."""
        proto = self.onnx.TensorProto
        tensor = proto(name=name, data_type=getattr(proto, kind), dims=shape)
        tensor.data_location = proto.EXTERNAL
        tensor.external_data.add(key="location", value="weights")
        return tensor


def find_products(graph: Any, step: Step[S]) -> dict[str, tuple[Any, int]]:
    """Return the products with a large parameter: its name, the node, and its outputs."""
    parameters = {
        f"weights.{name}": tuple(tensor.shape) for name, tensor in step.parameters().items()
    }
    turned = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Transpose" and node.input[0] in parameters
    }
    products: dict[str, tuple[Any, int]] = {}
    for node in graph.node:
        name = None
        if node.op_type == "MatMul":
            name = turned.get(node.input[1])
        elif node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute):
            name = node.input[1]
        shape = parameters.get(name or "", ())
        if name is not None and len(shape) == 2 and shape[0] * shape[1] >= SMALLEST:
            products[name] = node, shape[0]
    return products


def measure(
    proto: Any, step: Step[S], num_frames: int, inputs: Iterable[Tensor], names: list[str]
) -> dict[str, tuple[float, float]]:
    """Run the float32 graph and return the least and the largest value of some tensors."""
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
    low, high = dict.fromkeys(names, np.inf), dict.fromkeys(names, -np.inf)
    for x in inputs:
        state = {n: t.numpy() for n, t in named_tensors(step.init_state(1))}
        for piece in torch.split(x, num_frames * step.unit, dim=1):
            if piece.shape[1] < num_frames * step.unit:
                break
            values = dict(
                zip(outputs, session.run(None, state | {"x": piece.numpy()}), strict=True)
            )
            state = {name: values[f"new.{name}"] for name in state}
            for name in names:
                low[name] = min(low[name], float(values[name].min()))
                high[name] = max(high[name], float(values[name].max()))
    return {name: (low[name], high[name]) for name in names}
