"""Codes as a value: which codec made them, and of how much audio."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from audiossm.errors import ShapeError

__all__ = ["MAX_CHANNELS", "CodeFormat", "Codes"]

MAX_CHANNELS = 64
# with these, no header makes a block of more than 2 MB
_LARGEST = {
    "sample_rate": 2**32 - 1,
    "frame_size": 2**16 - 1,
    "num_codes": 2**16,
    "channels": MAX_CHANNELS,
    "num_groups": 64,
    "frames_per_block": 255,
}
_MAX_NAME = 1024  # bytes


@dataclass(frozen=True, kw_only=True)
class CodeFormat:
    """Whose codes they are and how they are laid out; numbers as a file can hold them."""

    model: str
    codes_hash: str  # the codec's, 32 hex digits
    sample_rate: int  # Hz, the codec's
    frame_size: int  # samples
    num_codes: int  # different codes of a group
    channels: int
    num_groups: int
    frames_per_block: int = 50

    def __post_init__(self) -> None:
        for field in fields(self):
            value, largest = getattr(self, field.name), _LARGEST.get(field.name)
            if largest is not None and not 1 <= value <= largest:
                raise ShapeError(f"{field.name} of codes is {value}, must be 1 to {largest}")
        if len(self.model.encode()) > _MAX_NAME or not self.model.isprintable():
            raise ShapeError(f"a codec's name has up to {_MAX_NAME} bytes, all of them printable")

    @property
    def code_bits(self) -> int:
        """Whole bits that a code is stored in: 10 for one of 1000."""
        return max(1, (self.num_codes - 1).bit_length())

    @property
    def bits_per_second(self) -> float:
        """Bits of codes a second, of all channels."""
        frame_bits = self.channels * self.num_groups * self.code_bits
        return frame_bits * self.sample_rate / self.frame_size


@dataclass(frozen=True, kw_only=True)
class Codes:
    """A recording as codes: ``codes`` is (channels, groups, frames) int64."""

    form: CodeFormat
    codes: NDArray[np.int64]
    num_samples: int  # of each channel, at ``form.sample_rate``
    comment: str | None = None  # what their file says of itself

    @property
    def duration_s(self) -> float:
        """Seconds of audio."""
        return self.num_samples / self.form.sample_rate
