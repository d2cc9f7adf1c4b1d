"""Operators that ONNX or its runtime has and torch lacks: each is one node of an exported graph.

They have no meaning in torch: only code that asks ``exporting`` first may call them.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = [
    "causal_conv",
    "decay_rate",
    "export_to_onnx",
    "exporting",
    "matmul",
    "rms_norm",
    "rotate",
    "softplus",
    "square_sum",
    "stft",
    "wrap_angle",
]

RUNTIME = "com.microsoft::"  # the domain of ONNX Runtime's own operators


_exporting = False


def exporting() -> bool:
    """Return whether an ONNX graph is being made of the code that runs."""
    return _exporting


@contextmanager
def export_to_onnx() -> Iterator[None]:
    """Let ``exporting`` be true inside.

    torch.compiler.is_exporting() can't serve: it is true in torch.compile, too.
    """
    global _exporting
    _exporting = True
    try:
        yield
    finally:
        _exporting = False


def call(name: str, inputs: Sequence[Tensor], shape: Sequence[int], **attributes: int) -> Tensor:
    """Return the one output, in the dtype of the first input, of an operator."""
    return torch.onnx.ops.symbolic(
        name,
        inputs,
        {**attributes},
        dtype=inputs[0].dtype,
        shape=shape,
        version=1 if name.startswith(RUNTIME) else None,
    )


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    """Convolve (batch, frames, channels) channel by channel, with ``tail`` in front.

    Args:
        x: the next frames.
        weight: (channels, 1, kernel).
        bias: (channels,).
        tail: (batch, kernel - 1, channels), the frames before them.

    Returns:
        as ``x``; and the newest frames, as ``tail``.
    """
    y, new_tail = torch.onnx.ops.symbolic_multi_out(
        f"{RUNTIME}CausalConvWithState",
        (x, weight, bias, tail),
        {"channels_last": 1},
        dtypes=(x.dtype, x.dtype),
        shapes=(x.shape, tail.shape),
        version=1,
    )
    return y, new_tail


def matmul(
    a: Tensor, b: Tensor, shape: Sequence[int], *, scale: float = 1.0, **turned: int
) -> Tensor:
    """Multiply matrices; ``transA`` swaps the last axes, ``transBatchA`` makes the first the last.

    With that one, (K, B, M) is B matrices of (K, M): frames in front of heads need no transpose.
    """
    return torch.onnx.ops.symbolic(
        f"{RUNTIME}FusedMatMul",
        (a, b),
        {"alpha": scale, **turned},
        dtype=a.dtype,
        shape=shape,
        version=1,
    )


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Norm the last axis; ``weight`` may have leading axes, too."""
    return torch.onnx.ops.symbolic(
        "RMSNormalization",
        (x, weight),
        {"axis": -1, "epsilon": eps},
        dtype=x.dtype,
        shape=x.shape,
    )


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate adjacent pairs of (batch, n, heads, d_state) by angles (batch, heads, pairs)."""
    turned: Tensor = torch.onnx.ops.rotary_embedding(
        x, cos, sin, interleaved=True, rotary_embedding_dim=2 * cos.shape[-1]
    )
    return turned


def softplus(x: Tensor) -> Tensor:
    """Return ``log(1 + exp(x))``, which doesn't overflow."""
    return call("Softplus", (x,), x.shape)


def decay_rate(s: Tensor, floor: float) -> Tensor:
    """Return ``-max(heavy_tail(s), floor)``.

    That function is 1 + max(s, s / (1 + |s|)).
    """
    low = torch.full((), floor - 1, dtype=s.dtype)
    return -1 - call("Max", (s, call("Softsign", (s,), s.shape), low), s.shape)


def wrap_angle(phi: Tensor) -> Tensor:
    """Return ``phi`` modulo 2 pi, in [0, 2 pi)."""
    turn = torch.full((), 2 * math.pi, dtype=phi.dtype)
    # the rest of an angle below zero lies below zero
    rest = call("Mod", (phi, turn), phi.shape, fmod=1)
    return call("Mod", (rest + turn, turn), phi.shape, fmod=1)


def square_sum(x: Tensor, dim: int) -> Tensor:
    """Return the sum of squares over one axis, which goes."""
    shape = [size for i, size in enumerate(x.shape) if i != dim % x.dim()]
    return call("ReduceSumSquare", (x, torch.tensor([dim])), shape, keepdims=0)


def stft(samples: Tensor, window: Tensor, hop: int) -> Tensor:
    """Return spectra (batch, spectra, 2 * bins), real parts first, of (batch, samples)."""
    batch, length = samples.shape
    num_spectra, num_bins = (length - len(window)) // hop + 1, len(window) // 2 + 1
    inputs = (samples.unsqueeze(-1), torch.tensor(hop), window, torch.tensor(len(window)))
    spectra = call("STFT", inputs, (batch, num_spectra, num_bins, 2), onesided=1)
    return spectra.mT.reshape(batch, num_spectra, 2 * num_bins)
