"""The scan in Triton as one differentiable function: forward and backward tied together."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from audiossm_kernels.ssm_scan.layout import ScanLayout, chunk_frames
from audiossm_kernels.ssm_scan.triton_backward import launch_backward
from audiossm_kernels.ssm_scan.triton_forward import Kept, launch_forward
from audiossm_kernels.state import Pairing, SsmInputs, SsmParams, SsmState, full_precision

__all__ = ["scan_triton"]

NUM_INPUTS, NUM_PARAMS = len(SsmInputs._fields), len(SsmParams._fields)


def sort_out(tensors: tuple[Any, ...]) -> tuple[SsmInputs, SsmParams, SsmState]:
    """Return the first of ``tensors`` as what they are."""
    params, state = NUM_INPUTS + NUM_PARAMS, NUM_INPUTS + NUM_PARAMS + len(SsmState._fields)
    return (
        SsmInputs._make(tensors[:NUM_INPUTS]),
        SsmParams._make(tensors[NUM_INPUTS:params]),
        SsmState._make(tensors[params:state]),
    )


class Scan(torch.autograd.Function):
    """Keeps the state before every chunk and its answers, and computes everything else again."""

    @staticmethod
    def forward(
        ctx: Any, pairing: Pairing, borders: Tensor | None, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Run the scan; ``tensors`` are inputs, parameters and state."""
        x, params, state = sort_out(tensors)
        y, new_state, kept = launch_forward(x, params, state, pairing, borders=borders, keep=True)
        assert kept is not None
        ctx.pairing, ctx.borders = pairing, borders
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *new_state, *kept)
        return y, *new_state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, *dstate: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of ``tensors``."""
        tensors = ctx.saved_tensors
        x, params, state = sort_out(tensors)
        new_state, kept = SsmState._make(tensors[-7:-3]), Kept(*tensors[-3:])
        rows, frames, rank = state.angle.shape[0], x.v.shape[1], x.q.shape[2]
        chunk = chunk_frames(rank, kept.ssm.element_size())
        layout = ScanLayout(rows, frames, chunk, ctx.borders is not None)
        with full_precision(x.v.device.type):
            dx, dparams, dfirst = launch_backward(
                x,
                params,
                state,
                ctx.pairing,
                layout,
                kept,
                new_state,
                torch.zeros_like(x.v) if dy is None else dy,
                dstate,
                borders=ctx.borders,
            )
        return None, None, *dx, *dparams, *dfirst


@torch.compiler.disable  # type: ignore[untyped-decorator]  # its launches are compiled already
def scan_triton(
    x: SsmInputs,
    params: SsmParams,
    state: SsmState,
    pairing: Pairing,
    borders: Tensor | None = None,
) -> tuple[Tensor, SsmState]:
    """Run the scan, differentiable in every tensor; shapes as in ``ssm_scan``.

    Args:
        x: frames, of float32, bfloat16 or float16.
        params: small parameters.
        state: a row per sequence.
        pairing: pairs that rotate.
        borders: (n + 1,) int64, of sequences packed in one row.
    """
    state = SsmState._make(part.float() for part in state)
    tensors = (*x, *params, *state)
    if torch.is_grad_enabled() and any(p is not None and p.requires_grad for p in tensors):
        y, *new = Scan.apply(pairing, borders, *tensors)  # type: ignore[no-untyped-call]  # torch's own
        return y, SsmState._make(new)
    y, new_state, _ = launch_forward(x, params, state, pairing, borders=borders)
    return y, new_state
