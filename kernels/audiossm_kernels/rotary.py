"""Data-dependent rotation of keys and queries, which stands for a complex state."""

import math

import torch
from torch import Tensor

from audiossm_kernels.state import Pairing, SsmState

__all__ = ["add_bias", "reduce_angle", "rotate", "turn_back", "turn_rate"]


def turn_rate(angles: Tensor) -> Tensor:
    """Return the rotation per unit of dt, in (-pi, pi), of raw ``angles``."""
    return math.pi * torch.tanh(angles)


def reduce_angle(phi: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``phi`` modulo 2 pi as ``dtype``, in [0, 2 pi); the gradient is that of ``phi``."""
    reduced = torch.remainder(phi, 2 * math.pi).to(dtype)
    # a value just below 2 pi may round up to it
    return reduced - (reduced >= 2 * math.pi).to(dtype) * (2 * math.pi)


def add_bias(x: Tensor, bias: Tensor) -> Tensor:
    """Give every head its group's vectors and add its bias.

    Args:
        x: (..., R, G, N).
        bias: (H, R, N); head h belongs to group ``h // (H / G)``.
    Returns:
        (..., H, R, N).
    """
    rank, groups, d_state = x.shape[-3:]
    if groups == 1:  # one operation less
        return x.transpose(-3, -2) + bias
    spread = x.transpose(-3, -2).unsqueeze(-3)
    return (spread + bias.view(groups, -1, rank, d_state)).flatten(-4, -3)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, pairing: Pairing) -> Tensor:
    """Rotate pairs of the last axis by the angles whose cosine and sine are given.

    Args:
        x: (..., H, R, N).
        cos: (..., H, 1, S), with 2 S <= N.
        sin: like ``cos``.
        pairing: "adjacent" turns (2i, 2i+1), "halved" turns (i, i + N/2), i < S; the other
            dimensions pass.
    Returns:
        (..., H, R, N).
    """
    num_angles, d_state = cos.shape[-1], x.shape[-1]
    if pairing == "adjacent":
        a, b = x[..., : 2 * num_angles : 2], x[..., 1 : 2 * num_angles : 2]
        turned = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)
        if 2 * num_angles == d_state:
            return turned
        return torch.cat([turned, x[..., 2 * num_angles :]], dim=-1)
    half = d_state // 2
    a, b = x[..., :num_angles], x[..., half : half + num_angles]
    first, second = a * cos - b * sin, a * sin + b * cos
    if num_angles == half:
        return torch.cat([first, second], dim=-1)
    rest = x[..., num_angles:half], x[..., half + num_angles :]
    return torch.cat([first, rest[0], second, rest[1]], dim=-1)


def turn_back(state: SsmState, pairing: Pairing) -> SsmState:
    """Return the state that has the same future and no angle.

    Queries, keys and content turn together, so only their angles to each other have an effect.
    The sum of all turns so far is rounded in every frame; without it, equal streams have equal
    states.
    """
    cos, sin = state.angle.cos().unsqueeze(-2), -state.angle.sin().unsqueeze(-2)
    key = rotate(state.k.transpose(1, 2), cos, sin, pairing).transpose(1, 2)
    ssm = rotate(state.ssm, cos, sin, pairing)
    return SsmState(torch.zeros_like(state.angle), ssm, key.contiguous(), state.v)
