"""Whether ONNX Runtime's products of bytes are exact on this processor: tried, not assumed.

Some processors add pairs of products up in 16 bits and cut off what is more, and no standard says
what byte a large float becomes.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PROBE", "make_probe", "sums_are_exact"]

# a small product as ``exact.Split`` makes them; ``make_probe`` wrote it
PROBE = Path(__file__).with_name("probe.onnx")
WIDTH, OUTPUTS = 72, 40
LARGEST = 15.0


@cache
def sums_are_exact() -> bool:
    """Return whether the probe's product has an error like one in float32."""
    try:
        import onnxruntime
    except ImportError:  # said when a graph is opened
        return False
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            PROBE.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
    except Exception:  # a processor without such products; the runtime's classes aren't public
        return False
    weight = make_weight().astype(np.float64)
    # all of the first byte's values, and both ends
    for level in (-1.0, -0.5, -1 / 3, 0.0, 1e-3, 0.3, 0.7, 0.99, 1.0):
        x = LARGEST * level * np.linspace(1.0, 1.0 - abs(level) / 3, WIDTH).reshape(1, 1, -1)
        x = x.astype(np.float32)
        (y,) = session.run(None, {"x": x})
        if np.abs(y - x.astype(np.float64) @ weight).max() > 1e-6 * LARGEST * 127 * WIDTH:
            return False
    return True


def make_weight() -> NDArray[np.int8]:
    """Return the probe's weight (in, out): columns of the largest values, and of all."""
    rows, columns = np.indices((WIDTH, OUTPUTS))
    weight = (rows * 37 + columns * 101) % 255 - 127
    weight[:, 0], weight[:, 1] = 127, -127
    return weight.astype(np.int8)


def make_probe() -> bytes:
    """Make what ``PROBE`` holds; it needs the package onnx."""
    import onnx
    from onnx import helper, numpy_helper

    from audiossm.graphs.exact import Split
    from audiossm.graphs.int8 import Product

    split = Split(onnx)
    nodes = split.product(
        Product("x", "y", "w", (OUTPUTS, WIDTH), None, None), 1, (-LARGEST, LARGEST)
    )
    tensors: list[Any] = [
        *split.tensors,
        numpy_helper.from_array(make_weight(), "bytes.w"),
        numpy_helper.from_array(np.ones(OUTPUTS, np.float32), "scale.w"),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("x", kind, [1, 1, WIDTH])],
        [helper.make_tensor_value_info("y", kind, [1, 1, OUTPUTS])],
        tensors,
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    data: bytes = model.SerializeToString(deterministic=True)
    return data
