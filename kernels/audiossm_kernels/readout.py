"""The way in and out of the recurrence: rank projection, skip, norm, gate and contraction."""

from torch import Tensor
from torch.nn import functional as F

from audiossm_kernels.state import SsmParams

__all__ = ["project_ranks", "read_out"]


def project_ranks(x: Tensor, weight: Tensor | None) -> Tensor:
    """Spread (..., H, P) over the ranks by ``weight`` (H, R, P): (..., H, R, P)."""
    x = x.unsqueeze(-2)
    return x if weight is None else x * weight


def read_out(o: Tensor, v: Tensor, z: Tensor, params: SsmParams) -> Tensor:
    """Turn what the state answered into the mixer's output.

    Args:
        o: (..., H, R, P), the state read by every query.
        v: (..., H, R, P), rank-projected values.
        z: (..., H, P), gates before the rank projection and silu.
        params: skip, optional norm and MIMO weights, in the dtype of ``o``.
    Returns:
        (..., H, P).
    """
    o = o + params.d_skip[:, None, None] * v
    if params.out_norm is not None:
        o = F.rms_norm(o, o.shape[-1:], eps=1e-5) * params.out_norm[:, None]
    o = o * F.silu(project_ranks(z, params.mimo_z))
    return o.squeeze(-2) if params.mimo_o is None else (o * params.mimo_o).sum(-2)
