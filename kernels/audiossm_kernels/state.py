"""What a scan takes, learns and carries from call to call, and the check of all three."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from audiossm_kernels.errors import KernelError

__all__ = [
    "Pairing",
    "RawParams",
    "SsmInputs",
    "SsmParams",
    "SsmState",
    "check_shapes",
    "compute_dtype",
    "full_precision",
    "to_dtype",
]

# Which state dimensions rotate together: (2i, 2i+1) in SISO, (i, i+N/2) in MIMO.
Pairing = Literal["adjacent", "halved"]


class SsmState(NamedTuple):
    """The four tensors a sequence needs to go on; all zero at its start.

    float64 where the inputs are float64, else float32; a step also goes on from bfloat16 ones.
    """

    angle: Tensor  # (B, H, S): rotation after the last frame, radians in [0, 2 pi)
    ssm: Tensor  # (B, H, P, N): the recurrent state, without any look-ahead term
    k: Tensor  # (B, R, H, N): the last key, biased and rotated
    v: Tensor  # (B, H, P): the last value, before mimo_x


class SsmInputs(NamedTuple):
    """The tensors that a layer makes from its frames; the step's have no L axis."""

    q: Tensor  # (B, L, R, G, N): the normed C
    k: Tensor  # (B, L, R, G, N): the normed B
    v: Tensor  # (B, L, H, P): the values x
    z: Tensor  # (B, L, H, P): gates before silu
    dt: Tensor  # (B, L, H): after softplus
    adt: Tensor  # (B, L, H): A * dt, at most 0
    trap: Tensor  # (B, L, H): before the sigmoid
    angles: Tensor  # (B, L, 1 or H, S): before pi * tanh


class SsmParams(NamedTuple):
    """The mixer's small parameters; ``None`` where the variant has none."""

    q_bias: Tensor  # (H, R, N)
    k_bias: Tensor  # (H, R, N)
    d_skip: Tensor  # (H,)
    mimo_x: Tensor | None = None  # (H, R, P), all three or none
    mimo_z: Tensor | None = None
    mimo_o: Tensor | None = None
    out_norm: Tensor | None = None  # (H, P): weight of a per-head RMS norm before the gate


class RawParams(NamedTuple):
    """What stands between a mixer's projection and ``SsmInputs``."""

    dt_bias: Tensor  # (H,)
    q_norm: Tensor  # (N,): weight of the RMS norm of C
    k_norm: Tensor  # (N,): weight of the RMS norm of B
    a_activation: str  # "heavy_tail" or "softplus"
    a_floor: float  # smallest decay rate
    max_memory: float | None = None  # frames after which a state has faded to 1/e


def compute_dtype(v: Tensor) -> torch.dtype:
    """Return the dtype of all sums and states: float64 for float64 values, else float32."""
    return torch.float64 if v.dtype == torch.float64 else torch.float32


def full_precision(device_type: str) -> AbstractContextManager[object]:
    """Keep autocast from turning the kernels' products into half precision."""
    # entered only where autocast is on, so that an exported graph has no autocast region
    if torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def to_dtype(
    x: SsmInputs, params: SsmParams, state: SsmState, dtype: torch.dtype
) -> tuple[SsmInputs, SsmParams, SsmState]:
    """Cast everything to the dtype a kernel computes in."""
    # one frame feels what casts cost that change nothing
    if all(part is None or part.dtype == dtype for part in (*x, *params, *state)):
        return x, params, state
    return (
        SsmInputs._make(part.to(dtype) for part in x),
        SsmParams._make(None if part is None else part.to(dtype) for part in params),
        SsmState._make(part.to(dtype) for part in state),
    )


def check_shapes(
    name: str,
    lead: tuple[int, ...],
    state_batch: int,
    x: SsmInputs,
    params: SsmParams,
    state: SsmState,
    pairing: str,
) -> None:
    """Refuse inputs whose shapes don't fit together.

    Args:
        name: the kernel, for the message.
        lead: the leading dimensions of every input, (B, L) or (B,).
        state_batch: rows that the state must have.
        x: frames.
        params: small parameters.
        state: what the last call left.
        pairing: pairs that rotate.
    Raises:
        KernelError: the first input that doesn't fit, with its shape and the expected one.
    """
    q, k, v, z, dt, adt, trap, angles = x
    if q.dim() != len(lead) + 3 or v.dim() != len(lead) + 2:
        raise KernelError(
            f"{name}: q must have {len(lead) + 3} dimensions and v {len(lead) + 2}, "
            f"not {q.dim()} and {v.dim()}"
        )
    rank, groups, d_state = q.shape[-3:]
    heads, head_dim = v.shape[-2:]
    num_angles = angles.shape[-1]
    if heads % groups:
        raise KernelError(f"{name}: {heads} heads can't be shared by {groups} groups")
    if pairing not in ("adjacent", "halved"):
        raise KernelError(f"{name}: pairing must be 'adjacent' or 'halved', not {pairing!r}")
    if 2 * num_angles > d_state or (pairing == "halved" and d_state % 2):
        raise KernelError(
            f"{name}: {num_angles} angles can't rotate {pairing} pairs of {d_state} dimensions"
        )
    mimo = [params.mimo_x, params.mimo_z, params.mimo_o]
    if len({part is None for part in mimo}) > 1 or (rank > 1 and mimo[0] is None):
        raise KernelError(
            f"{name}: rank {rank} takes mimo_x, mimo_z and mimo_o together (none only at rank 1)"
        )
    angle_heads = 1 if angles.dim() > 1 and angles.shape[-2] == 1 else heads
    expected: list[tuple[str, Tensor | None, tuple[int, ...]]] = [
        ("q", q, (*lead, rank, groups, d_state)),
        ("k", k, (*lead, rank, groups, d_state)),
        ("v", v, (*lead, heads, head_dim)),
        ("z", z, (*lead, heads, head_dim)),
        ("dt", dt, (*lead, heads)),
        ("adt", adt, (*lead, heads)),
        ("trap", trap, (*lead, heads)),
        ("angles", angles, (*lead, angle_heads, num_angles)),
        ("params.q_bias", params.q_bias, (heads, rank, d_state)),
        ("params.k_bias", params.k_bias, (heads, rank, d_state)),
        ("params.d_skip", params.d_skip, (heads,)),
        ("params.mimo_x", params.mimo_x, (heads, rank, head_dim)),
        ("params.mimo_z", params.mimo_z, (heads, rank, head_dim)),
        ("params.mimo_o", params.mimo_o, (heads, rank, head_dim)),
        ("params.out_norm", params.out_norm, (heads, head_dim)),
        ("state.angle", state.angle, (state_batch, heads, num_angles)),
        ("state.ssm", state.ssm, (state_batch, heads, head_dim, d_state)),
        ("state.k", state.k, (state_batch, rank, heads, d_state)),
        ("state.v", state.v, (state_batch, heads, head_dim)),
    ]
    for label, tensor, shape in expected:
        if tensor is not None and tensor.shape != shape:
            raise KernelError(f"{name}: {label} has shape {tuple(tensor.shape)}, not {shape}")
