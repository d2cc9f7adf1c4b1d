"""Session bytes: a safetensors file with a header that says whose they are."""

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from audiossm.errors import SnapshotError

__all__ = ["SNAPSHOT_FORMAT", "SNAPSHOT_VERSION", "pack", "unpack"]

SNAPSHOT_FORMAT = "audiossm-session"
SNAPSHOT_VERSION = "1"

Arrays = dict[str, NDArray[np.generic]]


def pack(arrays: Arrays, header: Mapping[str, str]) -> bytes:
    """Write arrays and a header to bytes.

    Args:
        arrays: every array of the session, by name.
        header: what must agree before anybody goes on from them (model, profile, ...).
    """
    own = {"format": SNAPSHOT_FORMAT, "version": SNAPSHOT_VERSION}
    return save(
        {name: np.array(array, order="C") for name, array in arrays.items()}, own | dict(header)
    )


def unpack(data: bytes, expected: Mapping[str, str]) -> tuple[Arrays, dict[str, str]]:
    """Read what ``pack`` wrote, if its header agrees with ``expected``.

    Raises:
        SnapshotError: not a session, another version, or another value of an expected key.
    """
    header = read_header(data)
    own = {"format": SNAPSHOT_FORMAT, "version": SNAPSHOT_VERSION}
    for key, value in (own | dict(expected)).items():
        found = header.get(key)
        if found != value:
            raise SnapshotError(
                f"snapshot of {key} {found!r}, but this session has {value!r}: it can't go on"
            )
    try:
        return load(data), header
    except SafetensorError as exc:
        raise SnapshotError(f"these bytes are a damaged session snapshot ({exc})") from exc


def read_header(data: bytes) -> dict[str, str]:
    """Read the text header of safetensors bytes: 8 bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    try:
        if length > len(data) - 8:
            raise ValueError(f"{len(data)} bytes, cut short or not a snapshot at all")
        header = json.loads(data[8 : 8 + length])
        return {str(k): str(v) for k, v in header.get("__metadata__", {}).items()}
    except (ValueError, AttributeError) as exc:
        raise SnapshotError(f"these bytes are no session snapshot ({exc})") from exc
