"""The scan's gradients compile for a card with little shared memory; this needs no card."""

import importlib
import os
from typing import Any

import pytest
import torch

from audiossm_kernels import SsmInputs
from audiossm_kernels.ssm_scan.cases import ScanShape, make_inputs
from audiossm_kernels.ssm_scan.layout import ScanLayout, chunk_frames

triton = pytest.importorskip("triton")

LEAST_SHARED = 99 * 1024  # bytes of a block on consumer cards
TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int64: "*i64",
}


class Compiled:
    """Stands for a kernel: a launch only compiles it, for Hopper, and notes its shared memory."""

    def __init__(self, kernel: Any, shared: dict[str, int]) -> None:
        self.kernel, self.shared = kernel, shared

    def __getitem__(self, grid: object) -> Any:
        return self.launch

    def launch(self, *args: Any, **given: Any) -> None:
        """Compile for these arguments."""
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        options = {
            name: given.pop(name)
            for name in ("num_warps", "num_stages", "maxnreg")
            if given.get(name) is not None
        }
        given.pop("maxnreg", None)
        values = dict(zip((p.name for p in self.kernel.params), args, strict=False)) | given
        signature, constants, attributes = {}, {}, {}
        for index, param in enumerate(self.kernel.params):
            value = values[param.name]
            if isinstance(value, torch.Tensor):
                signature[param.name] = TYPES[value.dtype]
                attributes[(index,)] = [["tt.divisibility", 16]]
            elif param.is_constexpr or value == 1:
                signature[param.name], constants[(index,)] = "constexpr", value
            else:
                signature[param.name] = "i32"
        source = ASTSource(self.kernel, signature, constants, attributes)
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        self.shared[self.kernel.__name__] = made.metadata.shared


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="nothing is compiled")
@pytest.mark.parametrize(
    ("rank", "rope_fraction", "dtype"), [(2, 1.0, torch.float32), (8, 0.5, torch.bfloat16)]
)
def test_gradients_of_the_widest_heads_fit(rank, rope_fraction, dtype, monkeypatch):
    backward = importlib.import_module("audiossm_kernels.ssm_scan.triton_backward")
    from audiossm_kernels.ssm_scan.triton_forward import Kept

    shape = ScanShape(
        frames=16,
        heads=2,
        head_dim=128,
        d_state=256,
        rank=rank,
        rope_fraction=rope_fraction,
        out_norm=True,
    )
    inputs = make_inputs(shape, dtype)
    layout = ScanLayout(2, shape.frames, chunk_frames(rank, dtype.itemsize), packed=False)
    kept = Kept(
        torch.zeros(layout.slots, *inputs.state.ssm.shape[1:], dtype=dtype),
        torch.zeros(layout.slots, *inputs.state.angle.shape[1:]),
        torch.zeros(2, shape.frames, shape.heads, rank, shape.head_dim, dtype=dtype),
    )
    shared: dict[str, int] = {}
    for name in [name for name in vars(backward) if name.endswith("_kernel")]:
        monkeypatch.setattr(backward, name, Compiled(getattr(backward, name), shared))
    backward.launch_backward(
        SsmInputs._make(inputs[:8]),
        inputs.params,
        inputs.state,
        shape.pairing,
        layout,
        kept,
        inputs.state,
        torch.zeros_like(inputs.v),
        (None,) * 4,
    )
    assert len(shared) == 7
    assert max(shared.values()) <= LEAST_SHARED, shared
