"""Random inputs of a scan, for tests and benchmarks."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from audiossm_kernels.state import Pairing, SsmParams, SsmState

__all__ = ["ScanInputs", "ScanShape", "make_inputs"]


@dataclass(frozen=True, kw_only=True)
class ScanShape:
    """Sizes of one case; a rank above 1 is MIMO."""

    frames: int
    batch: int = 2
    heads: int = 4
    head_dim: int = 8
    d_state: int = 16
    groups: int = 1
    rank: int = 1
    rope_fraction: float = 0.5
    out_norm: bool = False
    angle_heads: int = 1
    state_batch: int | None = None  # rows of the state; other than batch for packed sequences

    @property
    def pairing(self) -> Pairing:
        """Pairs that rotate: adjacent in SISO, halved in MIMO."""
        return "adjacent" if self.rank == 1 else "halved"

    @property
    def num_angles(self) -> int:
        """S, pairs that rotate."""
        return int(self.d_state * self.rope_fraction) // 2


class ScanInputs(NamedTuple):
    """The positional arguments of ``ssm_scan``."""

    q: Tensor
    k: Tensor
    v: Tensor
    z: Tensor
    dt: Tensor
    adt: Tensor
    trap: Tensor
    angles: Tensor
    params: SsmParams
    state: SsmState


def make_inputs(
    shape: ScanShape,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    *,
    seed: int = 0,
) -> ScanInputs:
    """Draw a hard case: lambda over all of (0, 1), dt up to 5, several turns, a random state.

    Args:
        shape: sizes.
        dtype: of q, k, v and z; the rest is float32, or float64 where this is.
        device: where the tensors go.
        seed: equal seeds give equal tensors.
    """
    generator = torch.Generator().manual_seed(seed)
    small = torch.float64 if dtype == torch.float64 else torch.float32
    lead, heads, rank = (shape.batch, shape.frames), shape.heads, shape.rank
    rows = shape.batch if shape.state_batch is None else shape.state_batch

    def normal(*size: int, scale: float = 1.0, to: torch.dtype = small) -> Tensor:
        x = torch.randn(*size, generator=generator, dtype=torch.float64) * scale
        return x.to(device, to)

    def uniform(low: float, high: float) -> Tensor:
        x = torch.rand(*lead, heads, generator=generator, dtype=torch.float64)
        return (low + (high - low) * x).to(device, small)

    vectors = (*lead, rank, shape.groups, shape.d_state)
    bias, mimo = (heads, rank, shape.d_state), (heads, rank, shape.head_dim)
    # log-uniform steps from 0.002 to 5, with rates from 0.01 to 3
    dt = uniform(-6.2, 1.6).exp()
    return ScanInputs(
        q=normal(*vectors, to=dtype),
        k=normal(*vectors, to=dtype),
        v=normal(*lead, heads, shape.head_dim, to=dtype),
        z=normal(*lead, heads, shape.head_dim, to=dtype),
        dt=dt,
        adt=-uniform(-4.6, 1.1).exp() * dt,
        trap=normal(*lead, heads, scale=3.0),
        angles=normal(*lead, shape.angle_heads, shape.num_angles),
        params=SsmParams(
            q_bias=1 + normal(*bias, scale=0.3),
            k_bias=1 + normal(*bias, scale=0.3),
            d_skip=1 + normal(heads, scale=0.3),
            mimo_x=normal(*mimo) if rank > 1 else None,
            mimo_z=normal(*mimo) if rank > 1 else None,
            mimo_o=normal(*mimo) if rank > 1 else None,
            out_norm=1 + normal(heads, shape.head_dim, scale=0.3) if shape.out_norm else None,
        ),
        state=SsmState(
            angle=normal(rows, heads, shape.num_angles).remainder(6.28),
            ssm=normal(rows, heads, shape.head_dim, shape.d_state),
            k=normal(rows, rank, heads, shape.d_state),
            v=normal(rows, heads, shape.head_dim),
        ),
    )
