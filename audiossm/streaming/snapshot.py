"""Session bytes: a safetensors file with a header that says whose they are, and a digest."""

import hashlib
import json
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from audiossm.errors import SnapshotError
from audiossm.nn import map_state, named_tensors

__all__ = [
    "SNAPSHOT_FORMAT",
    "SNAPSHOT_VERSION",
    "check_arrays",
    "fill_state",
    "pack",
    "state_arrays",
    "unpack",
]

SNAPSHOT_FORMAT = "audiossm-session"
SNAPSHOT_VERSION = "5"
DIGEST_SIZE = hashlib.sha256().digest_size

Arrays = dict[str, NDArray[np.generic]]
S = TypeVar("S")


def pack(arrays: Arrays, header: Mapping[str, str]) -> bytes:
    """Write arrays and a header to bytes: the same ones for the same session.

    The header is a JSON object under the one metadata key ``SNAPSHOT_FORMAT``, because safetensors
    writes several keys in any order. The last 32 bytes are the SHA-256 of what is before them.

    Args:
        arrays: every array of the session, by name.
        header: what must agree before anybody goes on from them (model, profile, ...).
    """
    fields = {"version": SNAPSHOT_VERSION} | dict(header)
    data = save(
        {name: np.array(array, order="C") for name, array in arrays.items()},
        {SNAPSHOT_FORMAT: json.dumps(fields)},
    )
    return data + hashlib.sha256(data).digest()


def unpack(data: bytes, expected: Mapping[str, str]) -> tuple[Arrays, dict[str, str]]:
    """Read what ``pack`` wrote, if its header agrees with ``expected``.

    Raises:
        SnapshotError: not a session, damaged, another version, or another value of an expected key.
    """
    header = read_header(data)
    for key, value in ({"version": SNAPSHOT_VERSION} | dict(expected)).items():
        found = header.get(key)
        if found != value:
            raise SnapshotError(
                f"snapshot of {key} {found!r}, but this session has {value!r}: it can't go on"
            )
    body, digest = data[:-DIGEST_SIZE], data[-DIGEST_SIZE:]
    if hashlib.sha256(body).digest() != digest:
        raise SnapshotError("this session snapshot is damaged or cut short: take an intact copy")
    try:
        return load(body), header
    except SafetensorError as exc:
        raise SnapshotError(f"these bytes are a damaged session snapshot ({exc})") from exc


def read_header(data: bytes) -> dict[str, str]:
    """Read the text header of safetensors bytes: 8 bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    try:
        if length > len(data) - 8:
            raise ValueError(f"{len(data)} bytes, cut short or not a snapshot at all")
        header = json.loads(data[8 : 8 + length])
        fields = json.loads(header["__metadata__"][SNAPSHOT_FORMAT])
        return {str(key): str(value) for key, value in fields.items()}
    except KeyError as exc:
        raise SnapshotError(f"these bytes are no session snapshot (no {exc} in them)") from exc
    except (ValueError, TypeError, AttributeError, RecursionError) as exc:
        raise SnapshotError(f"these bytes are no session snapshot ({exc})") from exc


def state_arrays(state: object, prefix: str) -> Arrays:
    """Name the tensors of a layer's state as arrays."""
    return {name: tensor.cpu().numpy() for name, tensor in named_tensors(state, prefix)}


def fill_state(state: S, prefix: str, arrays: Arrays) -> S:
    """Return a state like ``state``, on its device, with the values that ``state_arrays`` named."""
    values = iter([torch.from_numpy(arrays[name]) for name, _ in named_tensors(state, prefix)])

    def take(old: torch.Tensor) -> torch.Tensor:
        return next(values).to(old.device, copy=True)  # aligned, as torch's own memory is

    return map_state(take, state)


def check_arrays(arrays: Arrays, fresh: Arrays) -> None:
    """Refuse a snapshot's arrays if those of a fresh session have other names, shapes or dtypes.

    Raises:
        SnapshotError: they don't fit.
    """
    expected = {name: (array.shape, array.dtype) for name, array in fresh.items()}
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    if found != expected:
        names = sorted(k for k in expected | found if expected.get(k) != found.get(k))
        raise SnapshotError(f"the snapshot's arrays don't fit this model: {names[:3]}")
