"""Graphs whose large matrix products are of bytes, and yet as exact as those in float32.

A model's weights are bytes, each row with a scale. At one frame nearly all of a product's time goes
into bringing them in, so they stay bytes. An activation is cut into three of them, 24 bits: as many
as float32 has. They are three rows of one product of whole numbers, whose sums are exact.
"""

import math
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from audiossm.errors import DependencyError
from audiossm.graphs.int8 import (
    Product,
    Weights,
    are_bytes,
    find_products,
    replace_products,
    run_watched,
)
from audiossm.graphs.step import Step

__all__ = ["split_graph"]

S = TypeVar("S")

# the last bytes of a value's whole numbers of 8, 16 and 24 bits are its three digits
BASE = np.array([1.0, 2.0**8, 2.0**16])
ROOM = 1.01  # what rounding may add to the largest value
LEAST_GELU = -0.17
# GELU gives mostly values near zero, which is near the least one: there floor is a bias
HALF = 0.5


def split_graph(data: bytes, step: Step[S], num_frames: int) -> bytes | None:
    """Return a float32 graph's counterpart whose weights are bytes; None if the model's aren't.

    Args:
        data: what ``export_graph`` returned.
        step: what it does.
        num_frames: that it takes.

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
    weights = {f"weights.{name}": tensor for name, tensor in step.weights().items()}
    products = [p for p in find_products(proto.graph, step) if are_bytes(weights[p.weight])]
    if not products:
        return None
    sums = find_sums(proto.graph, products)
    names = sorted({product.x for product in products} | {added for _, added in sums.values()})
    zeros = [torch.zeros(1, num_frames * step.unit, *step.width)]
    (values,) = run_watched(proto, step, num_frames, zeros, names)
    arrays = {name: tensor.numpy() for name, tensor in weights.items()}
    bounds = Bounds(proto.graph, arrays, products)
    split = Split(onnx)
    nodes = {}
    for product in products:
        num_rows, limits = values[product.x].shape[-2], bounds.limits(product.x)
        y, added = sums.get(product.y, (product.y, None))
        one = added is not None and values[added].shape == (1, 1, product.shape[0])
        if limits is None or not one:
            y, added = product.y, None
        nodes[y] = split.product(product._replace(y=y), num_rows, limits, added)
    replace_products(proto, nodes, split.weights(products) + split.tensors)
    onnx.helper.set_model_props(proto, step.metadata(num_frames, "bytes"))
    result: bytes = proto.SerializeToString(deterministic=True)
    return result


def find_sums(graph: Any, products: list[Product]) -> dict[str, tuple[str, str]]:
    """Find what is a product plus another value, as at a residual's end.

    Returns:
        by the product's ``y``: the sum, and what is added.
    """
    fixed = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        if fixed.issuperset(node.input):
            fixed |= set(node.output)
        for value in node.input:
            readers.setdefault(value, []).append(node)
    sums = {}
    for product in products:
        after = readers.get(product.y, [])
        if len(after) == 1 and after[0].op_type == "Add":
            added = [value for value in after[0].input if value != product.y]
            if added and added[0] not in fixed:
                sums[product.y] = after[0].output[0], added[0]
    return sums


class Bounds:
    """What values in a graph lie between, whatever goes in: known behind norms alone."""

    def __init__(
        self, graph: Any, weights: dict[str, NDArray[np.float32]], products: list[Product]
    ) -> None:
        self.weights = weights
        self.made = {node.output[0]: node for node in graph.node}
        self.products = {product.y: product for product in products}

    def limits(self, name: str) -> tuple[float, float] | None:
        """Return what a value isn't below and not above; None if it isn't known."""
        if (norm := self._norm(name)) is not None:
            size, scale, shift = norm
            largest = float((size * np.abs(scale) + np.abs(shift)).max())
            return -largest, largest
        node = self.made.get(name)
        if node is None or node.op_type != "Gelu":
            return None
        product = self.products.get(node.input[0])
        if product is None or product.scale is not None:
            return None
        norm = self._norm(product.x)
        bias = 0.0 if product.bias is None else self.weights.get(product.bias)
        if norm is None or bias is None:
            return None
        size, scale, shift = norm
        weight = self.weights[product.weight]
        most = size * np.linalg.norm(weight * scale, axis=1) + np.abs(weight @ shift + bias)
        return LEAST_GELU, max(float(most.max()), 1.0)  # GELU is never above its input

    def _norm(self, name: str) -> tuple[float, NDArray[np.float32], NDArray[np.float32]] | None:
        """Return the length of what a norm scales and shifts, and by what."""
        node = self.made.get(name)
        if node is None or node.op_type not in ("LayerNormalization", "RMSNormalization"):
            return None
        parts = [self.weights.get(part) for part in node.input[1:]]
        scale = parts[0]
        if scale is None or scale.ndim != 1 or any(part is None for part in parts):
            return None
        shift = parts[1] if len(parts) > 1 and parts[1] is not None else np.zeros_like(scale)
        return len(scale) ** 0.5, scale, shift


class Split(Weights):
    """Makes the nodes and constants of products whose activations are cut into bytes."""

    prefix, kind = "bytes", "INT8"

    def product(
        self,
        product: Product,
        num_rows: int,
        limits: tuple[float, float] | None,
        added: str | None = None,
    ) -> list[Any]:
        """Return what stands for a product.

        Args:
            product: that is replaced.
            num_rows: of its ``x``, which is (1, num_rows, inputs).
            limits: that ``x`` lies between; if None, each row is measured.
            added: to the product of one row, between limits.
        """
        make, x, y = self.onnx.helper.make_node, product.x, product.y
        low, high = limits or (-1.0, 1.0)
        unit = (high - low) * ROOM / 254  # of the first digit
        digit = math.ceil(-low / unit)  # that is zero, at each place
        key = f"{unit:.9g}"
        places = self.constant(f"places.{key}", (unit / BASE).reshape(1, 3, 1).astype(np.float32))
        nodes = []
        if x not in self.made:
            self.made.add(x)
            rows = x
            if num_rows > 1:
                apart = self.constant(f"apart.{num_rows}", np.array([num_rows, 1, -1], np.int64))
                nodes.append(make("Reshape", [rows, apart], [f"{x}.apart"]))
                rows = f"{x}.apart"
            if limits is None:
                # no value of a row is above the row's length
                last = self.constant("axis.last", np.array([-1], np.int64))
                row = (unit / BASE).reshape(1, 3).astype(np.float32)
                row_places = self.constant(f"row.{key}", row)
                nodes += [
                    make("ReduceL2", [rows, last], [f"{x}.length"]),
                    make("Mul", [f"{x}.length", row_places], [f"{x}.places"]),
                    make("LpNormalization", [rows], [f"{x}.unit"], p=2),
                ]
                rows = f"{x}.unit"
            # multiples of one float: all rows are rounded alike
            steps = np.float32(1 / unit) * BASE.reshape(3, 1, 1)
            middle = (digit * BASE.sum() + (HALF if digit < 64 else 0.0)) / BASE[::-1]
            names = [
                self.constant(f"steps.{key}", steps.astype(np.float32)),
                self.constant(f"middle.{digit}", middle.astype(np.float32)),
            ]
            kinds = self.onnx.TensorProto
            nodes += [
                # a product and a sum in one node
                make("Conv", [rows, *names], [f"{x}.positive"]),
                make("Cast", [f"{x}.positive"], [f"{x}.numbers"], to=kinds.INT32),
                make("Cast", [f"{x}.numbers"], [f"{x}.digits"], to=kinds.UINT8),
            ]
        one = self.constant("one", np.array(1, np.float32))
        zero = self.constant(f"zero.{digit}", np.array(digit, np.uint8))
        zeros = self.constant(f"zeros.{product.shape[0]}", np.zeros(product.shape[0], np.int8))
        scale = f"scale.{product.weight}"
        if product.scale is not None:
            nodes.append(make("Mul", [scale, product.scale], [f"{y}.scale"]))
            scale = f"{y}.scale"
        inputs = [f"{x}.digits", f"{self.prefix}.{product.weight}", one, scale, zero, zeros]
        bias = product.bias
        if bias is not None and limits is not None:  # each of the three rows gets it
            total = np.array(unit * (1 / BASE).sum(), np.float32)
            nodes.append(make("Div", [bias, self.constant(f"total.{key}", total)], [f"{y}.bias"]))
            inputs.append(f"{y}.bias")
            bias = None
        parts = f"{y}.parts"
        nodes.append(make("MatMulIntegerToFloat", inputs, [parts], domain="com.microsoft"))
        if limits is None:
            nodes.append(make("MatMul", [f"{x}.places", parts], [f"{y}.sum"]))
        elif added is None:
            nodes.append(make("Conv", [parts, places], [f"{y}.sum"]))
        else:
            inputs = [parts, places, "", added]
            nodes.append(make("FusedConv", inputs, [f"{y}.sum"], domain="com.microsoft"))
        if num_rows > 1:
            together = self.constant(f"rows.{num_rows}", np.array([1, num_rows, -1], np.int64))
            nodes.append(make("Reshape", [f"{y}.sum", together], [f"{y}.rows"]))
        if bias is not None:
            nodes.append(make("Add", [nodes[-1].output[0], bias], [y]))
        nodes[-1].output[0] = y
        return nodes
