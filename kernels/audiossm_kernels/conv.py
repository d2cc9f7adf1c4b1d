"""A depthwise causal convolution by a few frames, in place for the slots of an engine."""

import torch
from torch import Tensor
from torch.nn import functional as F

from audiossm_kernels.choice import triton_wanted
from audiossm_kernels.errors import KernelError

__all__ = ["conv_step_"]

MAX_NORMED = 2**14  # channels times taps that one program norms


def conv_step_(
    x: Tensor,
    tail: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    slots: Tensor,
    *,
    gated: bool = False,
    norm: Tensor | None = None,
    options: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Advance some rows of ``tail`` in place, and return what comes out.

    Without gradients; sums are float32. On a CUDA device this is one Triton launch.

    Args:
        x: (B, T, C), or with ``gated`` (B, T, 2 C): then ``value * sigmoid(gate)`` is what comes
            in, values before gates.
        tail: (S, C, K - 1), the newest inputs of every slot; overwritten.
        weight: (C, K), or with ``options`` (O, C, K).
        bias: (C,) or None.
        slots: (B,) int64, which row of ``tail`` each row of ``x`` advances, none twice; below 0 is
            none, and its output is zero.
        gated: see ``x``.
        norm: (C,), given: what comes out is ``silu(rms_norm(y) * norm)``.
        options: (S,) int64, which of the weights each slot has.
        eps: added to the mean square of ``norm``.
    Returns:
        (B, T, C), the dtype of ``x``.
    Raises:
        KernelError: shapes that don't fit, or tensors that aren't contiguous.
    """
    channels, kept = tail.shape[1:]
    width = 2 * channels if gated else channels
    shapes = (channels, kept + 1)
    fits = (
        x.dim() == 3
        and x.shape[1] >= 1
        and x.shape[2] == width
        and weight.shape[-2:] == shapes
        and weight.dim() == (2 if options is None else 3)
        and (bias is None or bias.shape == shapes[:1])
        and (norm is None or norm.shape == shapes[:1])
        and slots.shape == x.shape[:1]
        and slots.dtype == torch.int64
        and (options is None or (options.shape == tail.shape[:1] and options.dtype == torch.int64))
    )
    if not fits:
        raise KernelError(
            f"conv_step_: x {tuple(x.shape)}, weight {tuple(weight.shape)} and slots "
            f"{tuple(slots.shape)} of {slots.dtype} don't fit a tail {tuple(tail.shape)}"
        )
    if not (x.is_contiguous() and tail.is_contiguous() and weight.is_contiguous()):
        raise KernelError("conv_step_: x, tail and weight must be contiguous")
    with torch.no_grad():
        fits = norm is None or channels * (kept + 1) <= MAX_NORMED
        if x.is_cuda and fits and triton_wanted():
            from audiossm_kernels.triton_conv import launch_conv

            return launch_conv(x, tail, weight, bias, slots, gated, norm, options, eps)
        return step_plain(x, tail, weight, bias, slots, gated, norm, options, eps)


def step_plain(
    x: Tensor,
    tail: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    slots: Tensor,
    gated: bool,
    norm: Tensor | None,
    options: Tensor | None,
    eps: float,
) -> Tensor:
    """Do what ``conv_step_`` says, in torch."""
    runs = slots >= 0
    at = slots[runs]
    some = x[runs].float()
    if gated:
        some = F.glu(some, dim=-1)
    frames = torch.cat([tail[at].float(), some.transpose(1, 2)], dim=-1)
    taps = weight.float() if options is None else weight.float()[options[at]]
    windows = frames.unfold(-1, taps.shape[-1], 1)
    y = (windows * taps.unsqueeze(-2)).sum(-1)
    if bias is not None:
        y = y + bias.float().unsqueeze(-1)
    tail[at] = frames[..., some.shape[1] :].to(tail.dtype)
    y = y.transpose(1, 2)
    if norm is not None:
        y = F.silu(F.rms_norm(y, y.shape[-1:], norm.float(), eps))
    out = x.new_zeros(*x.shape[:2], tail.shape[1])
    out[runs] = y.to(x.dtype)
    return out
