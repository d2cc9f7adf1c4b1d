"""Many frames of the Mamba-3 mixer core: contract and choice of implementation."""

from torch import Tensor

from audiossm_kernels.errors import KernelError
from audiossm_kernels.ssm_scan.chunked import scan_chunked
from audiossm_kernels.ssm_scan.packed import run_packed, sequence_lengths
from audiossm_kernels.ssm_scan.reference import scan_reference
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

__all__ = ["ssm_scan"]


def ssm_scan(
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
    cu_seqlens: Tensor | None = None,
    chunk_size: int | None = None,
    impl: str = "auto",
) -> tuple[Tensor, SsmState]:
    """Run the exponential-trapezoidal recurrence with rotating states over a whole signal.

    Per head, with lambda = sigmoid(trap), alpha = exp(adt) and keys rotated by the running
    angle ``sum(pi tanh(angles) dt)``::

        h_t = alpha_t h_{t-1} + (1 - lambda_t) dt_t alpha_t v_{t-1} k_{t-1} + lambda_t dt_t v_t k_t
        y_t = gate(h_t q_t + D v_t)

    Sums are float64 for float64 values and float32 otherwise, also under autocast. Differentiable
    in every tensor, the state included. Frames with dt = 0 and adt = 0 leave ``angle`` and ``ssm``
    as they are, so a ragged batch is padded with those; ``k`` and ``v`` of the state are then of
    the last padded frame.

    Args:
        q: (B, L, R, G, N), the normed C, L >= 1.
        k: (B, L, R, G, N), the normed B.
        v: (B, L, H, P), the values x.
        z: (B, L, H, P), gates before silu.
        dt: (B, L, H), after softplus.
        adt: (B, L, H), A * dt, at most 0.
        trap: (B, L, H), before the sigmoid.
        angles: (B, L, 1, S) shared by the heads or (B, L, H, S), before pi * tanh.
        params: small parameters.
        state: four states of batch B; left as they were.
        pairing: "adjacent" (SISO) or "halved" (MIMO).
        cu_seqlens: (n + 1,) integers, the borders of n sequences packed in one row (B = 1);
            ``state`` then has n rows. A sequence may be empty.
        chunk_size: frames of a chunk of the chunked form; a good one for the rank by default.
        impl: "auto", "chunked" or "reference"; a named one never falls back.
    Returns:
        y: (B, L, H, P), dtype of ``v``; and the state after the last frame.
    Raises:
        KernelError: a shape that doesn't fit, or an unknown ``impl``.
    """
    if impl not in ("auto", "reference", "chunked"):
        raise KernelError(f"ssm_scan: impl must be 'auto', 'reference' or 'chunked', not {impl!r}")
    if chunk_size is not None and chunk_size < 1:
        raise KernelError(f"ssm_scan: chunk_size must be 1 or more, not {chunk_size}")
    if q.dim() != 5:
        raise KernelError(f"ssm_scan: q must be (B, L, R, G, N), not {tuple(q.shape)}")
    batch, frames = q.shape[:2]
    lengths = None if cu_seqlens is None else sequence_lengths(cu_seqlens, batch, frames)
    if lengths is None and frames == 0:
        raise KernelError("ssm_scan: there must be 1 frame or more, not 0")
    rows = batch if lengths is None else len(lengths)
    x = SsmInputs(q, k, v, z, dt, adt, trap, angles)
    check_shapes("ssm_scan", (batch, frames), rows, x, params, state, pairing)

    def scan(x: SsmInputs, state: SsmState) -> tuple[Tensor, SsmState]:
        if impl == "reference":
            return scan_reference(x, params, state, pairing)
        return scan_chunked(x, params, state, pairing, chunk_size)

    with full_precision(v.device.type):
        x, params, state = to_dtype(x, params, state, compute_dtype(v))
        if lengths is None:
            y, new_state = scan(x, state)
        else:
            y, new_state = run_packed(scan, x, state, lengths)
    return y.to(v.dtype), new_state
