"""One frame of one stream in few nodes of a graph, from the mixer's projection on."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from audiossm_kernels import operators
from audiossm_kernels.projection import make_steps
from audiossm_kernels.state import RawParams, SsmParams, SsmState

__all__ = ["step_exported", "takes"]


def takes(batch: int, params: SsmParams, num_groups: int) -> bool:
    """Return whether ``step_exported`` does this: one stream, one group, SISO, no norm."""
    plain = params.mimo_x is None and params.out_norm is None
    return batch == num_groups == 1 and plain


def step_exported(
    projected: Tensor, sizes: Sequence[int], raw: RawParams, params: SsmParams, state: SsmState
) -> tuple[Tensor, SsmState]:
    """Do what ``step_compact`` does; sums are of other orders.

    Args:
        projected: (1, 1, sum of ``sizes``), float32.
        sizes: of z, v, k, q, dt, A, trap and angles.
        raw: what stands before the recurrence.
        params: small parameters of the recurrence.
        state: of one stream.

    Returns:
        (1, 1, H P), and the state after the frame.
    """
    heads, head_dim, d_state = state.ssm.shape[1:]
    z, v, both, raw_dt, raw_a, trap, angles = torch.split(
        projected, [*sizes[:2], sizes[2] + sizes[3], *sizes[4:]], dim=-1
    )
    dt, adt = make_steps(raw_dt, raw_a, raw.dt_bias, raw.a_activation, raw.a_floor, raw.max_memory)
    alpha, gamma = adt.exp(), trap.sigmoid() * dt
    beta = (dt - gamma) * alpha

    turn = operators.matmul(dt, angles.tanh(), state.angle.shape, scale=math.pi, transA=1)
    angle = operators.wrap_angle(state.angle + turn)
    norms = torch.stack([raw.k_norm, raw.q_norm]).unsqueeze(1)
    both = operators.rms_norm(both.view(1, 2, 1, d_state), norms, 1e-5)
    both = both + torch.stack([params.k_bias.squeeze(1), params.q_bias.squeeze(1)])
    key, query = torch.split(operators.rotate(both, angle.cos(), angle.sin()), 1, dim=1)

    # (2, 1, H, ...): the frame before and this one
    value = v.view(1, heads, head_dim)
    values = torch.cat([state.v, value]).unsqueeze(1)
    keys = torch.cat([state.k, key]) * torch.cat([beta, gamma]).unsqueeze(-1)
    share = operators.matmul(values, keys, state.ssm.shape, transA=1, transBatchA=1, transBatchB=1)
    ssm = state.ssm * alpha.view(1, heads, 1, 1) + share

    shape = (1, heads, 1, head_dim)
    read = operators.matmul(query, ssm, shape, transB=1, transBatchA=1).view(1, 1, -1)
    skip = params.d_skip.unsqueeze(-1).expand(heads, head_dim).reshape(-1)
    return (read + v * skip) * F.silu(z), SsmState(angle, ssm, key, value)
