"""A network's step as a list of layers, and the one compiled loop that runs such lists.

Were each network a function, each would have every layer compiled into it anew.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from audiossm.compiled import entry
from audiossm.loops.elementary import gate, gelu, log_softmax, silu
from audiossm.loops.layers import (
    add,
    convolve,
    copy,
    layer_norm,
    look_ahead,
    multiply,
    product,
    rms_norm,
)
from audiossm.loops.mixer import add_mixer, mix
from audiossm.loops.source import gather, make_whole, sound
from audiossm.loops.spectra import (
    add_squares,
    compress,
    cut_windows,
    flatten,
    make_spectra,
    overlap,
    quantise,
)
from audiossm.loops.tables import LINE, Tables, TablesWriter, matrix, row
from audiossm.nn import Mamba3, RMSNorm

__all__ = ["Program", "Slot", "run"]

ADD, PRODUCT, MULTIPLY, LAYER_NORM, RMS_NORM, CONVOLVE, GELU, MIX = range(8)
COPY, WINDOWS, SQUARES, COMPRESS, FLATTEN, QUANTISE, SPECTRA, OVERLAP = range(8, 16)
GATHER, WHOLE, SOUND, GATE, LOG_SOFTMAX, LOOK_AHEAD, SILU = range(16, 23)

FLOATS = LINE // 4


class Slot(NamedTuple):
    """Rows of float32 in the memory that a program works in."""

    at: int
    rows: int
    width: int

    @property
    def end(self) -> int:
        """Where what lies behind it begins."""
        return self.at + self.rows * self.width

    def flat(self) -> "Slot":
        """Return the same as one row."""
        return Slot(self.at, 1, self.rows * self.width)


class Program:
    """Layers in order, what they hold, and the memory between them.

    Args:
        parts: the names of a stream's state, in order.
    """

    def __init__(self, parts: list[str]) -> None:
        self.parts, self.writer = parts, TablesWriter()
        self.lines: list[tuple[int, ...]] = []
        self.size = 0

    def slot(self, rows: int, width: int) -> Slot:
        """Return new memory, which lies behind all other."""
        slot = Slot(-(-self.size // FLOATS) * FLOATS, rows, width)
        self.size = slot.end
        return slot

    def line(
        self,
        code: int,
        x: Slot,
        y: Slot,
        *,
        table: int = 0,
        part: str = "",
        others: tuple[int, int] = (0, 0),
    ) -> Slot:
        """Add one layer from x to y, and return y."""
        place = self.parts.index(part) if part else 0
        self.lines.append((code, *x, *y, table, place, *others))
        return y

    def linear(self, x: Slot, layer: nn.Linear, scale: Tensor | None = None) -> Slot:
        """Add a layer's product; ``scale`` (out,) as in ``TablesWriter.add_product``."""
        return self.product(x, self.writer.add_product(layer.weight, layer.bias, scale))

    def product(self, x: Slot, table: int) -> Slot:
        """Add a product of bytes, whose three tables begin at ``table``."""
        y = self.slot(x.rows, self.writer.places[table][1])
        return self.line(PRODUCT, x, y, table=table)

    def multiply(self, x: Slot, weight: Tensor) -> Slot:
        """Add the product with a constant (out, in) in float32."""
        y = self.slot(x.rows, len(weight))
        return self.line(MULTIPLY, x, y, table=self.writer.add(weight))

    def layer_norm(self, x: Slot, norm: nn.LayerNorm) -> Slot:
        """Add a norm."""
        table = self.writer.add(norm.weight)
        self.writer.add(norm.bias)
        return self.line(LAYER_NORM, x, self.slot(x.rows, x.width), table=table)

    def rms_norm(self, x: Slot, norm: RMSNorm) -> Slot:
        """Add a norm."""
        table = self.writer.add(norm.weight)
        return self.line(RMS_NORM, x, self.slot(x.rows, x.width), table=table)

    def mixer(self, x: Slot, mixer: Mamba3, part: str) -> Slot:
        """Add a mixer, whose state's first part is called so; rows are frames in order.

        Raises:
            ModelError: of a kind that there is no loop for.
        """
        projected = self.product(x, self.writer.add_product(mixer.in_proj.weight))
        config, table = mixer.config, add_mixer(self.writer, mixer)
        inside, room = self.slot(x.rows, config.d_inner), self.slot(2, config.d_state)
        self.line(MIX, projected, inside, table=table, part=part, others=(room.at, room.end))
        return self.product(inside, self.writer.add_product(mixer.out_proj.weight))

    def compress(
        self, x: Slot, y: Slot, limits: tuple[float, float, float], column: int = 0
    ) -> Slot:
        """Add ``spectra.compress``."""
        table = self.writer.add(np.array(limits, np.float32))
        return self.line(COMPRESS, x, y, table=table, others=(column, 0))


@entry
def run(
    whole: NDArray[np.int8],
    real: NDArray[np.float32],
    entries: NDArray[np.int64],
    lines: NDArray[np.int64],
    state: NDArray[np.float32],
    places: NDArray[np.int64],
    memory: NDArray[np.float32],
) -> None:
    """Run a program for one frame of one stream.

    Args:
        whole: the first of ``Tables``.
        real: the second.
        entries: the third.
        lines: (layers, 11), of the program.
        state: of the stream, overwritten.
        places: where its parts begin, and where the last one ends.
        memory: what the program works in; inputs and outputs lie in it, too.
    """
    tables = Tables(whole, real, entries)
    for i in range(len(lines)):
        code, table, place = lines[i, 0], lines[i, 7], lines[i, 8]
        a, rows, width = lines[i, 1], lines[i, 2], lines[i, 3]
        flat_x = memory[a : a + rows * width]
        x = flat_x.reshape(rows, width)
        a, rows, width = lines[i, 4], lines[i, 5], lines[i, 6]
        flat_y = memory[a : a + rows * width]
        y = flat_y.reshape(rows, width)
        part = state[places[place] : places[place + 1]]
        if code == PRODUCT:
            product(tables, table, x, y)
        elif code == GELU:
            gelu(flat_x)
        elif code == ADD:
            add(flat_x, flat_y)
        elif code == LAYER_NORM:
            layer_norm(tables, table, x, y)
        elif code == CONVOLVE:
            convolve(tables, table, part.reshape(len(part) // width, width), x, y)
        elif code == MIX:
            for r in range(len(x)):
                room = memory[lines[i, 9] : lines[i, 10]]
                mix(tables, table, state[places[place] : places[place + 4]], x[r], y[r], room)
        elif code == RMS_NORM:
            for r in range(len(x)):
                rms_norm(x[r], row(tables, table), y[r])
        elif code == MULTIPLY:
            multiply(matrix(tables, table), x, y)
        elif code == COPY:
            copy(flat_x, flat_y)
        elif code == WINDOWS:
            cut_windows(part, flat_x, y)
        elif code == SQUARES:
            add_squares(x, y)
        elif code == COMPRESS:
            compress(x, y, lines[i, 9], row(tables, table))
        elif code == FLATTEN:
            flatten(x, y, row(tables, table), row(tables, table + 1))
        elif code == QUANTISE:
            quantise(tables, table, flat_x, flat_y)
        elif code == GATHER:
            gather(part, flat_x, flat_y)
        elif code == WHOLE:
            make_whole(flat_x, flat_y, row(tables, table))
        elif code == SOUND:
            sound(tables, table, part, x, flat_y, lines[i, 9], lines[i, 10])
        elif code == SPECTRA:
            make_spectra(flat_x, y, row(tables, table))
        elif code == OVERLAP:
            overlap(part, x, flat_y)
        elif code == GATE:
            gate(x, y, lines[i, 9])
        elif code == SILU:
            silu(flat_x)
        elif code == LOG_SOFTMAX:
            log_softmax(x, y)
        elif code == LOOK_AHEAD:
            tail = part.reshape(width, len(part) // width)
            look_ahead(tables, table, tail, int(state[places[place + 1]]), flat_x, flat_y)
