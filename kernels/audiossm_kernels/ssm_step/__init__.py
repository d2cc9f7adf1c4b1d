"""One frame of the Mamba-3 mixer core: contract and choice of implementation."""

import torch
from torch import Tensor

from audiossm_kernels.choice import refuse_tensors, triton_wanted
from audiossm_kernels.errors import KernelError
from audiossm_kernels.projection import check_raw, prepare
from audiossm_kernels.ssm_step.compact import step_compact
from audiossm_kernels.ssm_step.reference import step_reference
from audiossm_kernels.state import (
    Pairing,
    RawParams,
    SsmInputs,
    SsmParams,
    SsmState,
    check_shapes,
    compute_dtype,
    full_precision,
    to_dtype,
)

__all__ = ["ssm_step", "ssm_step_"]

# what the Triton form takes
STATE_DTYPES = (torch.float32, torch.bfloat16)
MAX_D_STATE = 256
MAX_NORMED = 2**15  # elements of a head's state, sizes rounded up to powers of two


def ssm_step(
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
    impl: str = "auto",
) -> tuple[Tensor, SsmState]:
    """Advance every row of a batch by one frame: ``ssm_scan`` without the frame axis.

    Args:
        q: (B, R, G, N), the normed C.
        k: (B, R, G, N), the normed B.
        v: (B, H, P), the values x.
        z: (B, H, P), gates before silu.
        dt: (B, H), after softplus.
        adt: (B, H), A * dt, at most 0.
        trap: (B, H), before the sigmoid.
        angles: (B, 1, S) shared by the heads or (B, H, S), before pi * tanh.
        params: small parameters.
        state: four states of batch B; left as they were.
        pairing: "adjacent" (SISO) or "halved" (MIMO).
        impl: "auto", "triton", "compact" or "reference"; a named one never falls back. "auto" is
            "triton" for what that takes on a CUDA device, unless ``AUDIOSSM_KERNELS=torch`` is
            set, else "compact".
    Returns:
        y: (B, H, P), dtype of ``v``; and the state after this frame, bfloat16 where the state
        given is.
    Raises:
        KernelError: a shape that doesn't fit, an unknown ``impl``, or something it doesn't take.
    """
    x = SsmInputs(q, k, v, z, dt, adt, trap, angles)
    check_shapes("ssm_step", (q.shape[0],), q.shape[0], x, params, state, pairing)
    if use_triton("ssm_step", impl, x, params, state):
        from audiossm_kernels.ssm_step.triton_step import launch_step

        y = torch.empty_like(v, memory_format=torch.contiguous_format)
        new_state = SsmState._make(
            torch.empty_like(part, memory_format=torch.contiguous_format) for part in state
        )
        launch_step(x, params, state, new_state, y, pairing)
        return y, new_state
    with full_precision(v.device.type):
        wide, wide_params, wide_state = to_dtype(x, params, state, compute_dtype(v))
        step = step_reference if impl == "reference" else step_compact
        y, new_state = step(wide, wide_params, wide_state, pairing)
    return y.to(v.dtype), SsmState._make(
        new.to(old.dtype) if old.dtype == torch.bfloat16 else new
        for new, old in zip(new_state, state, strict=True)
    )


def ssm_step_(
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
    raw: RawParams | None = None,
    live: Tensor | None = None,
    slots: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """Advance the live rows of ``state`` in place: ``ssm_step`` for an engine's slots.

    Without gradients. Arguments as in ``ssm_step``, and:

    Args:
        q: see ``ssm_step``, like all that follow.
        k: like ``q``.
        v: like ``q``.
        z: like ``q``.
        dt: like ``q``.
        adt: like ``q``.
        trap: like ``q``.
        angles: like ``q``.
        params: like ``q``.
        state: overwritten; every row is contiguous, rows may lie apart.
        pairing: like ``q``.
        raw: given, the inputs are slices of the mixer's projection: ``q`` and ``k`` before the
            norm, ``dt`` before its bias and softplus, ``adt`` before the activation that makes A.
        live: (B,) bool; rows that are False keep their state and get a zero output. All live by
            default.
        slots: (B,) int64, which row of ``state`` each row of the inputs advances, none twice; below
            0 is none, as if not live. Then ``state`` may have any number of rows.
        impl: like ``q``.
    Returns:
        y: (B, H, P), dtype of ``v``.
    Raises:
        KernelError: like ``ssm_step``, or a state that can't be written in place.
    """
    x = SsmInputs(q, k, v, z, dt, adt, trap, angles)
    batch = q.shape[0]
    state_rows = batch if slots is None else state.ssm.shape[0]
    check_shapes("ssm_step_", (batch,), state_rows, x, params, state, pairing)
    for label, part in zip(state._fields, state, strict=True):
        if not part[:1].is_contiguous() or (batch > 1 and part.stride(0) < part[0].numel()):
            raise KernelError(
                f"ssm_step_: rows of state.{label} must be contiguous and apart, "
                f"not of strides {part.stride()}"
            )
    if live is not None and (live.shape != (batch,) or live.dtype != torch.bool):
        raise KernelError(
            f"ssm_step_: live must be ({batch},) of torch.bool, "
            f"not {tuple(live.shape)} of {live.dtype}"
        )
    if slots is not None and (slots.shape != (batch,) or slots.dtype != torch.int64):
        raise KernelError(
            f"ssm_step_: slots must be ({batch},) of torch.int64, "
            f"not {tuple(slots.shape)} of {slots.dtype}"
        )
    if raw is not None:
        check_raw("ssm_step_", raw, x)
    with torch.no_grad():
        if use_triton("ssm_step_", impl, x, params, state):
            from audiossm_kernels.ssm_step.triton_step import launch_step

            y = torch.empty_like(v, memory_format=torch.contiguous_format)
            launch_step(x, params, state, state, y, pairing, raw=raw, live=live, slots=slots)
            return y
        if raw is not None:
            x = prepare(x, raw)
        if slots is not None:
            runs = slots >= 0 if live is None else live & (slots >= 0)
            at = slots[runs]
            x = SsmInputs._make(part[runs] for part in x)
            old = SsmState._make(part[at] for part in state)
            some, new_state = ssm_step(*x, params, old, pairing=pairing, impl=impl)
            for part, new in zip(state, new_state, strict=True):
                part[at] = new
            y = some.new_zeros(batch, *some.shape[1:])
            y[runs] = some
            return y
        y, new_state = ssm_step(*x, params, state, pairing=pairing, impl=impl)
        if live is not None:
            y = y.where(live[:, None, None], 0)
        for part, new in zip(state, new_state, strict=True):
            if live is not None:
                new = new.where(live.view(-1, *[1] * (new.dim() - 1)), part)
            part.copy_(new)
        return y


def use_triton(name: str, impl: str, x: SsmInputs, params: SsmParams, state: SsmState) -> bool:
    """Return whether the Triton form runs; raise if it was asked for by name and can't.

    Raises:
        KernelError: what the form doesn't take, with the value.
    """
    if impl not in ("auto", "triton", "compact", "reference"):
        raise KernelError(
            f"{name}: impl must be 'auto', 'triton', 'compact' or 'reference', not {impl!r}"
        )
    named = impl in ("compact", "reference")
    if named or (impl == "auto" and not (x.v.is_cuda and triton_wanted())):
        return False
    reason = refusal(x, params, state)
    if reason is not None and impl == "triton":
        raise KernelError(f"{name}(impl='triton'): {reason}")
    return reason is None


def refusal(x: SsmInputs, params: SsmParams, state: SsmState) -> str | None:
    """Return what the Triton form doesn't take of these, or None."""
    given = [part for part in (*x, *params, *state) if part is not None]
    if (reason := refuse_tensors(x, given)) is not None:
        return reason
    for label, part in zip(state._fields, state, strict=True):
        if part.dtype not in STATE_DTYPES:
            return f"state.{label} is {part.dtype}, not float32 or bfloat16"
    if torch.is_grad_enabled() and any(part.requires_grad for part in given):
        return "it has no gradient, and a tensor requires one"
    d_state, head_dim = x.q.shape[-1], x.v.shape[-1]
    if d_state > MAX_D_STATE:
        return f"d_state={d_state} is more than {MAX_D_STATE}"
    if params.out_norm is not None:
        elements = 2 ** ((head_dim - 1).bit_length() + (d_state - 1).bit_length())
        if elements > MAX_NORMED:
            return (
                f"with a norm of the output, head_dim={head_dim} and d_state={d_state} make a tile "
                f"of {elements} elements, more than {MAX_NORMED}"
            )
    return None
