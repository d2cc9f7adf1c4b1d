"""A network's numbers in three arrays, from which compiled loops take matrices and rows."""

from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiossm.compiled import compiled
from audiossm.errors import ModelError
from audiossm.rounding import SCALES, restore_rows, round_rows

__all__ = ["LINE", "Tables", "TablesWriter", "lay_out", "matrix", "numbers", "row"]

LINE = 64  # bytes that a processor brings in at once; a vector that crosses two takes twice as long
N = TypeVar("N", bound=np.generic)


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

    def add(self, array: Tensor | NDArray[np.float32]) -> int:
        """Add a row or a matrix of float32, and return its number."""
        if isinstance(array, Tensor):
            array = array.detach().cpu().numpy()
        array = np.atleast_2d(array).astype(np.float32)
        return self._place(self.real, array)

    def add_numbers(
        self,
        numbers: NDArray[np.int8],
        scale: Tensor | NDArray[np.float32],
        bias: Tensor | NDArray[np.float32],
    ) -> int:
        """Add a product of whole numbers (out, in), its scale and its bias (out,): three tables."""
        at = self._place(self.whole, numbers)
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
        shift = torch.zeros(len(weight)) if bias is None else bias.detach().cpu()
        if scale is not None:
            each, shift = each * scale.detach().cpu(), shift * scale.detach().cpu()
        return self.add_numbers(numbers.numpy(), each, shift)

    def finish(self) -> Tables:
        """Return all of them."""
        places = np.array(self.places, np.int64).reshape(-1, 3)
        return Tables(lay_out(self.whole, np.int8), lay_out(self.real, np.float32), places)

    def _place(self, arrays: list[NDArray[Any]], array: NDArray[Any]) -> int:
        """Add an array, filled up to whole lines."""
        flat = array.ravel()
        self.places.append((sum(map(len, arrays)), *array.shape))
        arrays.append(np.pad(flat, (0, -len(flat) % (LINE // flat.itemsize))))
        return len(self.places) - 1


def lay_out(arrays: list[NDArray[N]], dtype: type[N]) -> NDArray[N]:
    """Return arrays one behind the other in memory that begins with a line."""
    size = sum(map(len, arrays))
    room = np.empty(size + LINE, dtype)
    first = -room.ctypes.data % LINE // room.itemsize
    return np.concatenate([np.zeros(0, dtype), *arrays], out=room[first : first + size])


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
