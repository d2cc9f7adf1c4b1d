"""One frame of the Mamba-3 recurrence, in the paper's order of operations."""

import torch
from torch import Tensor

from audiossm_kernels.readout import project_ranks, read_out
from audiossm_kernels.rotary import add_bias, reduce_angle, rotate, turn_rate
from audiossm_kernels.state import Pairing, SsmInputs, SsmParams, SsmState

__all__ = ["step_reference"]


def step_reference(
    x: SsmInputs,
    params: SsmParams,
    state: SsmState,
    pairing: Pairing,
) -> tuple[Tensor, SsmState]:
    """Advance by one frame; all tensors have one dtype, shapes as in ``ssm_step``."""
    q, k, v, z, dt, adt, trap, angles = x
    lam, alpha = torch.sigmoid(trap), torch.exp(adt.clamp(max=0.0))
    beta, gamma = (1 - lam) * dt * alpha, lam * dt

    phi = reduce_angle(state.angle + turn_rate(angles) * dt.unsqueeze(-1), v.dtype)
    cos, sin = phi.cos().unsqueeze(-2), phi.sin().unsqueeze(-2)
    query = rotate(add_bias(q, params.q_bias), cos, sin, pairing)
    key = rotate(add_bias(k, params.k_bias), cos, sin, pairing)

    value = project_ranks(v, params.mimo_x)
    old_value = project_ranks(state.v, params.mimo_x)
    weighted = torch.cat(
        [beta[..., None, None] * old_value, gamma[..., None, None] * value], dim=-2
    )
    keys = torch.cat([state.k.transpose(1, 2), key], dim=-2)
    ssm = alpha[..., None, None] * state.ssm + weighted.transpose(-1, -2) @ keys

    y = read_out(query @ ssm.transpose(-1, -2), value, z, params)
    return y, SsmState(phi, ssm, key.transpose(1, 2).contiguous(), v.clone())
