"""The recurrence in matrix form: chunks of frames at once, the state handed from chunk to chunk.

The weight of a frame folds the next frame's share of it in (w = gamma + (1 - lambda') dt'), so
that a chunk is one masked product of scores. The state between chunks therefore runs ahead of
the recurrent state by that share; at the last frame the share is zero and both agree.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from audiossm_kernels.readout import project_ranks, read_out
from audiossm_kernels.rotary import add_bias, reduce_angle, rotate, turn_rate
from audiossm_kernels.state import Pairing, SsmInputs, SsmParams, SsmState

__all__ = ["scan_chunked"]

# Bounds the matrix that hands states on, and with it the memory of a long scan.
MAX_CHUNKS = 64


class Carry(NamedTuple):
    """What a block of chunks leaves for the next one."""

    phi: Tensor  # (B, H, S) float64
    ssm: Tensor  # (B, H, P, N), look-ahead share included
    key: Tensor  # (B, H, R, N): the block's last key


def default_chunk_size(rank: int) -> int:
    """Return the frames of a chunk: rank times frames stays near 64."""
    return 64 if rank == 1 else max(16, 64 // rank)


def scan_chunked(
    x: SsmInputs,
    params: SsmParams,
    state: SsmState,
    pairing: Pairing,
    chunk_size: int | None = None,
) -> tuple[Tensor, SsmState]:
    """Run all frames in matrix form; all tensors have one dtype, shapes as in ``ssm_scan``."""
    (frames, rank), dtype = x.q.shape[1:3], x.v.dtype
    chunk = min(chunk_size or default_chunk_size(rank), frames)
    lam = torch.sigmoid(x.trap)
    gamma, share = lam * x.dt, (1 - lam) * x.dt
    weight = gamma + F.pad(share[:, 1:], (0, 0, 0, 1))

    old_value = project_ranks(state.v, params.mimo_x) * share[:, 0, :, None, None]
    ahead = state.ssm + old_value.transpose(-1, -2) @ state.k.transpose(1, 2)
    carry = Carry(state.angle.double(), ahead, state.k.transpose(1, 2))
    pieces = []
    for start in range(0, frames, MAX_CHUNKS * chunk):
        block = slice(start, start + MAX_CHUNKS * chunk)
        y, carry = scan_block(
            SsmInputs._make(part[:, block] for part in x),
            gamma[:, block],
            weight[:, block],
            params,
            carry,
            pairing,
            chunk,
        )
        pieces.append(y)
    y = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)
    key = carry.key.transpose(1, 2).clone(memory_format=torch.contiguous_format)
    return y, SsmState(reduce_angle(carry.phi, dtype), carry.ssm, key, x.v[:, -1].clone())


def scan_block(
    x: SsmInputs,
    gamma: Tensor,
    weight: Tensor,
    params: SsmParams,
    carry: Carry,
    pairing: Pairing,
    chunk: int,
) -> tuple[Tensor, Carry]:
    """Run up to ``MAX_CHUNKS`` chunks of ``chunk`` frames; the last one may be short."""
    q, k, v, z, dt, adt, _, angles = x
    frames, rank = q.shape[1:3]

    # float64: over minutes of frames float32, even of pi, would lose the angle
    phi = turn_rate(angles.double()) * dt.double().unsqueeze(-1)
    phi = phi.cumsum(1) + carry.phi.unsqueeze(1)
    turn = reduce_angle(phi, v.dtype)
    cos, sin = turn.cos().unsqueeze(-2), turn.sin().unsqueeze(-2)
    query = rotate(add_bias(q, params.q_bias), cos, sin, pairing)
    key = rotate(add_bias(k, params.k_bias), cos, sin, pairing)
    value = project_ranks(v, params.mimo_x)

    def fold(part: Tensor) -> Tensor:
        """(B, L, H, ...) -> (B, K, H, C, ...), with frames that change nothing at the end."""
        short = -frames % chunk
        if short:
            part = F.pad(part, (0, 0) * (part.dim() - 2) + (0, short))
        return torch.unflatten(part, 1, (-1, chunk)).transpose(2, 3)

    def stack(part: Tensor) -> Tensor:
        """(B, L, H, R, ...) -> (B, K, H, C * R, ...): ranks beside frames in one matrix."""
        return fold(part).flatten(3, 4)

    def repeat(part: Tensor) -> Tensor:
        """(..., C) -> (..., C * R, 1): a frame's factor for each of its ranks."""
        part = part if rank == 1 else part.repeat_interleave(rank, dim=-1)
        return part.unsqueeze(-1)

    queries, keys, values = stack(query), stack(key), stack(value)
    gamma, weight = fold(gamma), fold(weight)
    # float64: with strong decays a float32 sum would blur the weak ones that follow
    decay = fold(adt).clamp(max=0.0).double().cumsum(-1)

    span = (decay.unsqueeze(-1) - decay.unsqueeze(-2)).to(v.dtype)
    past = torch.ones(chunk, chunk, dtype=torch.bool, device=v.device).tril(-1)
    # the mask comes before exp: after it, the future's overflow would give 0 * inf in backward
    mask = span.masked_fill(~past, -torch.inf).clamp(max=0.0).exp() * weight.unsqueeze(-2)
    # gamma itself, not weight minus the share: rounding would leak the next frame in
    mask = mask + torch.diag_embed(gamma)
    scores = queries @ keys.transpose(-1, -2)
    if rank > 1:
        ranked = torch.unflatten(torch.unflatten(scores, -1, (chunk, rank)), -3, (chunk, rank))
        scores = (ranked * mask[..., :, None, :, None]).flatten(-4, -3).flatten(-2, -1)
    else:
        scores = scores * mask

    to_end = (decay[..., -1:] - decay).to(v.dtype).clamp(max=0.0).exp() * weight
    gains = (values * repeat(to_end)).transpose(-1, -2) @ keys
    entering, leaving = hand_on(carry.ssm, gains, decay[..., -1])
    from_start = repeat(decay.to(v.dtype).exp())
    o = scores @ values + from_start * (queries @ entering.transpose(-1, -2))
    o = torch.unflatten(o, 3, (chunk, rank)).transpose(2, 3).flatten(1, 2)[:, :frames]
    return read_out(o, value, z, params), Carry(phi[:, -1], leaving, key[:, -1])


def hand_on(start: Tensor, gains: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
    """Pass the state through all chunks in one product.

    Args:
        start: (B, H, P, N), the state before the first chunk.
        gains: (B, K, H, P, N), what each chunk adds.
        decay: (B, K, H) float64, the log decay over each chunk.
    Returns:
        entering: (B, K, H, P, N), the state before each chunk; and (B, H, P, N) after the last.
    """
    batch, chunks, heads, head_dim, d_state = gains.shape
    total = F.pad(decay.cumsum(1), (0, 0, 1, 0)).transpose(1, 2)
    span = (total.unsqueeze(-1) - total.unsqueeze(-2)).to(gains.dtype)
    seen = torch.ones(chunks + 1, chunks + 1, dtype=torch.bool, device=gains.device).tril()
    mix = span.masked_fill(~seen, -torch.inf).clamp(max=0.0).exp()
    parts = torch.cat([start.unsqueeze(1), gains], dim=1).transpose(1, 2)
    states = torch.unflatten(mix @ parts.flatten(-2), -1, (head_dim, d_state))
    return states[:, :, :-1].transpose(1, 2), states[:, :, -1].clone()
