"""One frame of the Mamba-3 mixer core: contract and choice of implementation."""

from torch import Tensor

from audiossm_kernels.errors import KernelError
from audiossm_kernels.ssm_step.reference import step_reference
from audiossm_kernels.state import (
    Pairing,
    SsmInputs,
    SsmParams,
    SsmState,
    check_shapes,
    compute_dtype,
    full_precision,
    to_dtype,
)

__all__ = ["ssm_step"]


def ssm_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    z: Tensor,
    dt: Tensor,
    adt: Tensor,
    trap: Tensor,
    angles: Tensor,
    params: SsmParams,
    state: SsmState,
    *,
    pairing: Pairing,
    impl: str = "auto",
) -> tuple[Tensor, SsmState]:
    """Advance every row of a batch by one frame: ``ssm_scan`` without the frame axis.

    Args:
        q: (B, R, G, N), the normed C.
        k: (B, R, G, N), the normed B.
        v: (B, H, P), the values x.
        z: (B, H, P), gates before silu.
        dt: (B, H), after softplus.
        adt: (B, H), A * dt, at most 0.
        trap: (B, H), before the sigmoid.
        angles: (B, 1, S) shared by the heads or (B, H, S), before pi * tanh.
        params: small parameters.
        state: four states of batch B; left as they were.
        pairing: "adjacent" (SISO) or "halved" (MIMO).
        impl: "auto" or "reference".
    Returns:
        y: (B, H, P), dtype of ``v``; and the state after this frame.
    Raises:
        KernelError: a shape that doesn't fit, or an unknown ``impl``.
    """
    if impl not in ("auto", "reference"):
        raise KernelError(f"ssm_step: impl must be 'auto' or 'reference', not {impl!r}")
    batch = q.shape[0]
    x = SsmInputs(q, k, v, z, dt, adt, trap, angles)
    check_shapes("ssm_step", (batch,), batch, x, params, state, pairing)
    with full_precision(v.device.type):
        x, params, state = to_dtype(x, params, state, compute_dtype(v))
        y, new_state = step_reference(x, params, state, pairing)
    return y.to(v.dtype), new_state
