"""The gradients behind what the state answers: chunk by chunk, head by head."""

import triton
import triton.language as tl

from audiossm_kernels.ssm_scan.triton_pieces import find_chunk
from audiossm_kernels.triton_math import sigmoid

__all__ = ["gate_kernel"]

EPS = tl.constexpr(1e-5)


@triton.jit
def gate_kernel(
    z_ptr,
    mimo_z_ptr,
    mimo_o_ptr,
    out_norm_ptr,
    dy_ptr,
    borders_ptr,
    outputs_ptr,
    answers_ptr,
    dz_ptr,
    dmimo_z_ptr,
    dmimo_o_ptr,
    dout_norm_ptr,
    z_frame: tl.constexpr,
    rows,
    frames,
    heads: tl.constexpr,
    P: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    MIMO: tl.constexpr,
    NORMED: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Store the gradients behind a head's answers, and the answers' own; rank by rank."""
    place = tl.program_id(0).to(tl.int64)
    head, slot = place % heads, place // heads
    _, start, _, left = find_chunk(borders_ptr, slot, rows, frames, C, PACKED)
    if left <= 0:
        return
    frame = start * heads + head
    c, p = tl.arange(0, C), tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside_p = p < P
    inside = (c < left)[:, None] & inside_p[None, :]
    z_at = start * z_frame + head * P + (c * z_frame)[:, None] + p[None, :]
    raw = tl.load(z_ptr + z_at, mask=inside, other=0.0).to(tl.float32)
    y_at = frame * P + (c * (heads * P))[:, None] + p[None, :]
    dy = tl.load(dy_ptr + y_at, mask=inside, other=0.0).to(tl.float32)
    gate, out = raw, dy
    dz = tl.zeros([C, BLOCK_P], tl.float32)
    if NORMED:
        scale = tl.load(out_norm_ptr + head * P + p, mask=inside_p, other=0.0).to(tl.float32)
        dscale = tl.zeros([BLOCK_P], tl.float32)
    for rank in tl.static_range(R):
        at = frame * (R * P) + (c * (heads * R * P))[:, None] + (rank * P + p)[None, :]
        o = tl.load(outputs_ptr + at, mask=inside, other=0.0).to(tl.float32)
        weights = (head * R + rank) * P + p
        if MIMO:
            x_gate = tl.load(mimo_z_ptr + weights, mask=inside_p, other=0.0).to(tl.float32)[None, :]
            x_out = tl.load(mimo_o_ptr + weights, mask=inside_p, other=0.0).to(tl.float32)[None, :]
            gate, out = raw * x_gate, dy * x_out
        slope = sigmoid(gate)
        opened = gate * slope  # silu
        slope += opened * (1 - slope)
        answer = out * opened
        if NORMED:
            inverse = tl.rsqrt(tl.sum(o * o, axis=1) / P + EPS)[:, None]
            normed = o * inverse
            o = normed * scale[None, :]
            dscale += tl.sum(answer * normed, axis=0)
            answer *= scale[None, :]
            mean = tl.sum(answer * normed, axis=1)[:, None] / P
            answer = (answer - normed * mean) * inverse
        tl.store(answers_ptr + at, answer.to(answers_ptr.dtype.element_ty), mask=inside)
        through = out * o * slope
        if MIMO:
            weights = (place * R + rank) * P + p
            tl.store(dmimo_o_ptr + weights, tl.sum(dy * o * opened, axis=0), mask=inside_p)
            tl.store(dmimo_z_ptr + weights, tl.sum(through * raw, axis=0), mask=inside_p)
            through *= x_gate
        dz += through
    tl.store(dz_ptr + y_at, dz.to(dz_ptr.dtype.element_ty), mask=inside)
    if NORMED:
        tl.store(dout_norm_ptr + place * P + p, dscale, mask=inside_p)
