"""Grouped finite scalar quantisation: each group of latent dimensions becomes one integer."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiossm.errors import ConfigError, ShapeError
from audiossm_kernels.operators import exporting

__all__ = ["Quantiser", "QuantiserConfig"]


@dataclass(frozen=True, kw_only=True)
class QuantiserConfig:
    """Groups, and the number of values of each dimension of a group."""

    num_groups: int = 8
    levels: tuple[int, ...] = (8, 5, 5, 5)

    def __post_init__(self) -> None:
        if self.num_groups < 1:
            raise ConfigError(f"quantiser.num_groups is {self.num_groups}, must be 1 or more")
        if not self.levels or min(self.levels) < 2:
            raise ConfigError(f"quantiser.levels is {list(self.levels)}, must be numbers from 2 up")

    @property
    def group_dim(self) -> int:
        """Latent dimensions of a group."""
        return len(self.levels)

    @property
    def latent_dim(self) -> int:
        """Latent dimensions of all groups."""
        return self.num_groups * self.group_dim

    @property
    def num_codes(self) -> int:
        """Different codes of a group."""
        return math.prod(self.levels)

    @property
    def bits_per_code(self) -> float:
        """Information in one code, if all are equally likely."""
        return math.log2(self.num_codes)

    def check_form(self, shape: tuple[int, ...], dtype: str) -> None:
        """Refuse what can't be codes.

        Raises:
            ShapeError: another shape than (batch, groups, frames), another dtype, or more groups.
        """
        if len(shape) != 3 or dtype not in ("int64", "torch.int64"):
            raise ShapeError(f"codes are (batch, groups, frames) int64, got {shape} {dtype}")
        if not 1 <= shape[1] <= self.num_groups:
            raise ShapeError(
                f"codes have {shape[1]} groups, but this codec has {self.num_groups}: "
                "were they made by another model?"
            )

    def check_range(self, low: int, high: int) -> None:
        """Refuse codes that there aren't, by the least and the largest one.

        Raises:
            ShapeError: with both.
        """
        if not 0 <= low <= high < self.num_codes:
            raise ShapeError(
                f"codes lie between {low} and {high}, but this codec's "
                f"between 0 and {self.num_codes - 1}: were they made by another model?"
            )


class Quantiser(nn.Module):
    """Finite scalar quantisation (arXiv:2309.15505) of groups, without parameters.

    A dimension with L levels takes the values ``i / (L // 2)`` for L whole numbers i around 0.
    A group that is left out is all zeros: training on the first groups alone orders them coarse to
    fine, and one model then serves several bit rates.
    """

    def __init__(self, config: QuantiserConfig) -> None:
        super().__init__()
        self.config = config
        levels = torch.tensor(config.levels, dtype=torch.float64)
        # a little wider than the outermost values, so that they can be reached
        half_width = (levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0).double()
        tables = {
            "half_width": half_width,
            "offset": offset,
            # bound(0) = 0, also where the values don't lie evenly about 0
            "shift": torch.atanh(offset / half_width),
            "scale": levels.div(2).floor(),
        }
        for name, table in tables.items():
            # a row for each group, flat: (latent_dim,)
            self.register_buffer(name, table.float().repeat(config.num_groups), persistent=False)
        bases = [math.prod(config.levels[:i]) for i in range(config.group_dim)]
        self.register_buffer("bases", torch.tensor(bases), persistent=False)
        self.register_buffer("sizes", torch.tensor(config.levels), persistent=False)
        digits = torch.arange(config.num_codes).unsqueeze(1) // self.bases % self.sizes
        scale = self.scale[: config.group_dim]
        self.register_buffer("table", (digits.float() - scale) / scale, persistent=False)
        self.array: NDArray[np.float32] = self.table.numpy().copy()
        counts = [2**i for i in range(config.num_groups.bit_length())]
        self.register_buffer("group_counts", torch.tensor(counts), persistent=False)
        self.half_width: Tensor
        self.offset: Tensor
        self.shift: Tensor
        self.scale: Tensor
        self.bases: Tensor
        self.table: Tensor  # (num_codes, group_dim): the values of each code
        self.sizes: Tensor
        self.group_counts: Tensor

    def whole_numbers(self, latent: Tensor) -> Tensor:
        """Bound ``latent`` and round it, with the gradient of not rounding."""
        bounded = self.bound(latent)
        return bounded + (bounded.round() - bounded).detach()

    def bound(self, latent: Tensor) -> Tensor:
        """Press ``latent`` between the outermost values of each dimension."""
        return torch.tanh(latent + self.shift) * self.half_width - self.offset

    def forward(self, latent: Tensor) -> Tensor:
        """Quantise (batch, frames, latent_dim) float32 to values in [-1, 1] of the same shape."""
        return self.whole_numbers(latent) / self.scale

    def encode(self, latent: Tensor) -> Tensor:
        """Turn (batch, frames, latent_dim) into codes (batch, num_groups, frames) int64.

        Raises:
            ShapeError: another shape.
        """
        if latent.dim() != 3 or latent.shape[2] != self.config.latent_dim:
            raise ShapeError(
                f"Quantiser takes (batch, frames, {self.config.latent_dim}), got {(*latent.shape,)}"
            )
        digits = self.bound(latent).round() + self.scale
        if exporting():  # whole numbers far below 2^24: their sums are exact
            groups = torch.eye(self.config.num_groups, dtype=digits.dtype)
            places = torch.kron(groups, self.bases.unsqueeze(1).to(digits.dtype))
            return (digits @ places).transpose(1, 2).long()
        digits = digits.long()
        groups = digits.view(*digits.shape[:2], self.config.num_groups, self.config.group_dim)
        codes: Tensor = (groups * self.bases).sum(-1)
        return codes.transpose(1, 2).contiguous()

    def decode(self, codes: Tensor) -> Tensor:
        """Turn the first groups' codes into (batch, frames, latent_dim) float32.

        Args:
            codes: (batch, groups, frames) int64 below ``num_codes``, 1 to ``num_groups`` groups.

        Raises:
            ShapeError: another shape or dtype, more groups, or a code that there isn't.
        """
        self.config.check_form((*codes.shape,), str(codes.dtype))
        if codes.numel():
            self.config.check_range(*(int(edge) for edge in codes.aminmax()))
        return self.values(codes)

    def decode_array(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Do what ``decode`` does, on the CPU: at one frame, torch's operations are slow."""
        known = codes.dtype == np.int64  # a dtype's name takes a while to find
        self.config.check_form(codes.shape, "int64" if known else codes.dtype.name)
        # below zero is above all, without its sign
        if codes.size and codes.view(np.uint64).max() >= self.config.num_codes:
            self.config.check_range(int(codes.min()), int(codes.max()))
        batch, groups, frames = codes.shape
        width = groups * self.config.group_dim
        values = self.array.take(codes.transpose(0, 2, 1), axis=0).reshape(batch, frames, width)
        short = self.config.latent_dim - width
        return np.pad(values, ((0, 0), (0, 0), (0, short))) if short else values

    def values(self, codes: Tensor) -> Tensor:
        """Do what ``decode`` does to codes that are known to be good."""
        values = self.table[codes.transpose(1, 2)].flatten(-2)
        short = self.config.latent_dim - values.shape[-1]
        return torch.nn.functional.pad(values, (0, short)) if short else values

    def keep_groups(self, values: Tensor, num_groups: Tensor) -> Tensor:
        """Zero what follows the first ``num_groups`` (batch,) of each row of ``values``."""
        group = torch.arange(self.config.latent_dim, device=values.device) // self.config.group_dim
        return values * (group < num_groups.view(-1, 1, 1))

    def draw_num_groups(self, rows: int) -> Tensor:
        """Draw how many groups each row keeps in training: (rows,) int64.

        All of them or, half of the time, any power of two of them.
        """
        device = self.group_counts.device
        some = self.group_counts[torch.randint(len(self.group_counts), (rows,), device=device)]
        return torch.where(torch.rand(rows, device=device) < 0.5, some, self.config.num_groups)
