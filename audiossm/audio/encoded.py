"""Short recordings as the bytes of a file: for the members of a shard."""

import numpy as np
from numpy.typing import NDArray

from audiossm.audio.container import encode_container
from audiossm.audio.ogg import page_checksum

__all__ = ["encode_flac", "encode_opus"]

COMPRESSION = 0.96  # of libsndfile's 0 to 1: about 18 kbit/s of 16 kHz


def encode_flac(x: NDArray[np.float32], sample_rate: int) -> bytes:
    """Return (samples,) float32 in [-1, 1] as FLAC of 16 bits."""
    return encode_container(x[None], sample_rate, file_format="FLAC", coding="PCM_16")


def encode_opus(x: NDArray[np.float32], sample_rate: int) -> bytes:
    """Return (samples,) float32 at a rate that Opus has as Ogg Opus, the same bytes each time."""
    options = {"file_format": "OGG", "coding": "OPUS", "compression": COMPRESSION}
    ogg, at = bytearray(encode_container(x[None], sample_rate, **options)), 0  # type: ignore[arg-type]
    while at < len(ogg):  # libsndfile draws the stream's number by the clock: make it 1 everywhere
        segments = ogg[at + 27 : at + 27 + ogg[at + 26]]
        end = at + 27 + len(segments) + sum(segments)
        ogg[at + 14 : at + 18] = b"\1\0\0\0"
        ogg[at + 22 : at + 26] = page_checksum(bytes(ogg[at:end]))
        at = end
    return bytes(ogg)
