"""One frame of the recurrence in few operations: at one frame, operations are what takes time."""

import torch
from torch import Tensor

from audiossm_kernels.readout import project_ranks, read_out
from audiossm_kernels.rotary import add_bias, reduce_angle, rotate, turn_rate
from audiossm_kernels.state import Pairing, SsmInputs, SsmParams, SsmState

__all__ = ["step_compact"]


def step_compact(
    x: SsmInputs,
    params: SsmParams,
    state: SsmState,
    pairing: Pairing,
) -> tuple[Tensor, SsmState]:
    """Do what ``step_reference`` does; keys and queries go the same way side by side."""
    q, k, v, z, dt, adt, trap, angles = x
    heads, rank = v.shape[1], k.shape[1]
    lam, alpha = torch.sigmoid(trap), torch.exp(adt.clamp(max=0.0))
    gamma = lam * dt
    beta = (dt - gamma) * alpha

    turn = turn_rate(angles) * dt.view(-1, heads, 1)
    phi = reduce_angle(state.angle + turn, v.dtype)
    around = phi.unsqueeze(-2)
    bias = torch.cat([params.k_bias, params.q_bias], dim=1)
    both = add_bias(torch.cat([k, q], dim=1), bias)
    turned = rotate(both, around.cos(), around.sin(), pairing)
    key, query = turned[:, :, :rank], turned[:, :, rank:]

    value = project_ranks(v, params.mimo_x)
    old_value = project_ranks(state.v, params.mimo_x)
    # (B, H, 2 R, N): a frame's share of the state is one product
    keys = torch.cat(
        [state.k.transpose(1, 2) * beta.view(-1, heads, 1, 1), key * gamma.view(-1, heads, 1, 1)],
        dim=-2,
    )
    values = torch.cat([old_value, value], dim=-2)
    ssm = state.ssm * alpha.view(-1, heads, 1, 1) + values.transpose(-1, -2) @ keys

    y = read_out(query @ ssm.transpose(-1, -2), value, z, params)
    return y, SsmState(phi, ssm, key.transpose(1, 2).contiguous(), v.clone())
