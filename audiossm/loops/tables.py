"""A network's numbers in three arrays, from which compiled loops take matrices and rows."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiossm.compiled import compiled
from audiossm.errors import ModelError
from audiossm.rounding import SCALES, restore_rows, round_rows

__all__ = ["Tables", "TablesWriter", "matrix", "numbers", "row"]


class Tables(NamedTuple):
    """Matrices and rows one after the other: one call takes three arrays, not a hundred."""

    whole: NDArray[np.int8]  # (n,)
    real: NDArray[np.float32]  # (m,)
    places: NDArray[np.int64]  # (tables, 3): where one begins in its array, rows and columns


class TablesWriter:
    """Collects what ``Tables`` hold, in the order in which loops ask for it."""

    def __init__(self) -> None:
        self.whole: list[NDArray[np.int8]] = []
        self.real: list[NDArray[np.float32]] = []
        self.places: list[tuple[int, int, int]] = []
        self.ends = [0, 0]

    def add(self, array: Tensor | NDArray[np.float32]) -> int:
        """Add a row or a matrix of float32, and return its number."""
        array = np.atleast_2d(np.asarray(array, np.float32))
        self.real.append(array.ravel())
        return self._place(0, array.shape)

    def add_numbers(
        self,
        numbers: NDArray[np.int8],
        scale: Tensor | NDArray[np.float32],
        bias: Tensor | NDArray[np.float32],
    ) -> int:
        """Add a product of whole numbers (out, in), its scale and its bias (out,): three tables."""
        self.whole.append(numbers.ravel())
        at = self._place(1, numbers.shape)
        self.add(scale)
        self.add(bias)
        return at

    def add_product(
        self, weight: Tensor, bias: Tensor | None = None, scale: Tensor | None = None
    ) -> int:
        """Add a product of a weight (out, in), as bytes and scales.

        Args:
            weight: rows of bytes, as a shrunk model has them.
            bias: (out,); zeros by default.
            scale: (out,) that the result is multiplied by.

        Raises:
            ModelError: whole numbers of a byte and scales aren't exactly this weight.
        """
        numbers, codes = round_rows(weight)
        if not torch.equal(restore_rows(numbers, codes), weight.cpu().float()):
            raise ModelError("its weights aren't rows of bytes: the model wasn't shrunk")
        each = SCALES[codes.long()]
        shift = torch.zeros(len(weight)) if bias is None else bias.cpu()
        if scale is not None:
            each, shift = each * scale.cpu(), shift * scale.cpu()
        return self.add_numbers(numbers.numpy(), each, shift)

    def finish(self) -> Tables:
        """Return all of them."""
        return Tables(
            np.concatenate([np.zeros(0, np.int8), *self.whole]),
            np.concatenate([np.zeros(0, np.float32), *self.real]),
            np.array(self.places, np.int64).reshape(-1, 3),
        )

    def _place(self, kind: int, shape: tuple[int, ...]) -> int:
        rows, columns = shape
        self.places.append((self.ends[kind], rows, columns))
        self.ends[kind] += rows * columns
        return len(self.places) - 1


@compiled
def row(tables: Tables, at: int) -> NDArray[np.float32]:
    """Return table ``at``, a row of float32."""
    start = tables.places[at, 0]
    return tables.real[start : start + tables.places[at, 1] * tables.places[at, 2]]


@compiled
def matrix(tables: Tables, at: int) -> NDArray[np.float32]:
    """Return table ``at``, a matrix of float32."""
    return row(tables, at).reshape(tables.places[at, 1], tables.places[at, 2])


@compiled
def numbers(tables: Tables, at: int) -> NDArray[np.int8]:
    """Return table ``at``, a matrix of whole numbers."""
    start, rows, columns = tables.places[at, 0], tables.places[at, 1], tables.places[at, 2]
    return tables.whole[start : start + rows * columns].reshape(rows, columns)
