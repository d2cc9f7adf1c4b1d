"""Where the chunks of a Triton scan lie: their frames, and their places in what is kept of them.

A sequence is cut into chunks from its first frame on; its last chunk may be short. What is kept for
each chunk stands in one tensor, a slot per chunk, in the order of the frames. Packed sequences
leave up to one slot free each, so that the first slot of a sequence needs no sum over the others.
"""

from typing import NamedTuple

__all__ = ["ScanLayout", "chunk_frames"]


class ScanLayout(NamedTuple):
    """The grid of chunks of one scan."""

    rows: int  # sequences: B, or n when packed
    frames: int  # L
    chunk: int  # frames of a chunk
    packed: bool  # the rows stand one after the other in one row of L frames

    @property
    def chunks_per_row(self) -> int:
        """Chunks of a row that isn't packed."""
        return -(-self.frames // self.chunk)

    @property
    def slots(self) -> int:
        """Slots of all rows; of packed ones up to one per row stays free."""
        if self.packed:
            return self.frames // self.chunk + self.rows
        return self.rows * self.chunks_per_row

    def first_slot(self, row: int, start: int) -> int:
        """Return the slot of the first chunk of ``row``, whose first frame is ``start``."""
        return start // self.chunk + row if self.packed else row * self.chunks_per_row


def chunk_frames(rank: int, itemsize: int) -> int:
    """Return the frames of a chunk: times the rank, 64 rows of a product, or 32 of float32."""
    return max(1, (64 if itemsize == 2 else 32) // rank)
