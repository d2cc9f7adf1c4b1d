"""Many frames of the Mamba-3 mixer core: contract and choice of implementation."""

import torch
from torch import Tensor

from audiossm_kernels.choice import exact_too, refuse_tensors, transformed, triton_wanted
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

# what the Triton form takes
RANKS = (1, 2, 4, 8)
MAX_D_STATE = 256
MAX_HEAD_DIM = 128  # with a norm of the output or a gradient: the whole head is one tile


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
        impl: "auto", "triton", "chunked" or "reference"; a named one never falls back. "auto" is
            "triton" for 16-bit values on a CUDA device, and for float32 if
            ``AUDIOSSM_KERNELS=triton`` is set, unless ``AUDIOSSM_KERNELS=torch`` is or it doesn't
            take the shapes; else "chunked".
    Returns:
        y: (B, L, H, P), dtype of ``v``; and the state after the last frame.
    Raises:
        KernelError: a shape that doesn't fit, an unknown ``impl``, or something it doesn't take.
    """
    if impl not in ("auto", "triton", "chunked", "reference"):
        raise KernelError(
            f"ssm_scan: impl must be 'auto', 'triton', 'chunked' or 'reference', not {impl!r}"
        )
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
    if use_triton(impl, x, params, state, chunk_size):
        from audiossm_kernels.ssm_scan.triton_scan import scan_triton

        borders = None if cu_seqlens is None else cu_seqlens.to(v.device, torch.int64)
        result: tuple[Tensor, SsmState] = scan_triton(x, params, state, pairing, borders)
        return result

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


def use_triton(
    impl: str, x: SsmInputs, params: SsmParams, state: SsmState, chunk_size: int | None
) -> bool:
    """Return whether the Triton form runs.

    Raises:
        KernelError: it was asked for by name and doesn't take something.
    """
    # float32 has no products on the matrix units that keep all of its digits
    usual = x.v.dtype.itemsize == 2 or exact_too()
    wanted = impl == "auto" and x.v.is_cuda and usual and triton_wanted() and not transformed()
    if impl != "triton" and not wanted:
        return False
    reason = refusal(x, params, state, chunk_size)
    if reason is not None and impl == "triton":
        raise KernelError(f"ssm_scan(impl='triton'): {reason}")
    return reason is None


def refusal(x: SsmInputs, params: SsmParams, state: SsmState, chunk_size: int | None) -> str | None:
    """Return what the Triton form doesn't take of these, or None."""
    given = [part for part in (*x, *params, *state) if part is not None]
    if (reason := refuse_tensors(x, given)) is not None:
        return reason
    if x.v.is_cuda:
        from audiossm_kernels.triton_assembler import refuse_assembler

        if (reason := refuse_assembler(x.v.get_device())) is not None:
            return reason
    if chunk_size is not None:
        return "chunk_size is of the chunked form: Triton's chunks are chosen for the card"
    rank, _, d_state = x.q.shape[2:]
    if rank not in RANKS:
        return f"rank {rank} is none of {', '.join(map(str, RANKS))}"
    if d_state > MAX_D_STATE:
        return f"d_state={d_state} is more than {MAX_D_STATE}"
    head_dim = x.v.shape[-1]
    if params.out_norm is not None and head_dim > MAX_HEAD_DIM:
        return f"with a norm of the output, head_dim={head_dim} is more than {MAX_HEAD_DIM}"
    needs_gradient = torch.is_grad_enabled() and any(part.requires_grad for part in given)
    if needs_gradient and head_dim > MAX_HEAD_DIM:
        return f"with a gradient, head_dim={head_dim} is more than {MAX_HEAD_DIM}"
    return None
