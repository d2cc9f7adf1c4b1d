"""What a snapshot of speech needs beside a session's own numbers: whose it is, and its voice."""

from typing import Any

import numpy as np

from audiossm.models import GeneratorState, LoadedGenerator, Voice
from audiossm.streaming.snapshot import Arrays, check_arrays, fill_state, state_arrays

__all__ = ["identity", "pack_voice", "unpack_voice"]


def identity(generator: LoadedGenerator) -> dict[str, str]:
    """What must agree before a session goes on from a snapshot."""
    return {"session": "speech", "model": generator.hash, "codec": generator.codec.hash}


def pack_voice(voice: Voice) -> Arrays:
    """Name a voice's arrays."""
    state: Arrays = {} if voice.state is None else state_arrays(voice.state, "voice.state")
    return {"voice.vector": voice.vector, **state}


def unpack_voice(generator: LoadedGenerator, fields: list[Any], arrays: Arrays) -> Voice:
    """Return the voice that ``pack_voice`` took apart, from what JSON says of it.

    Raises:
        SnapshotError: its arrays are missing, or don't fit the model.
    """
    name, pace, origin, licence, has_state, *rest = fields
    gain_db = float(rest[0]) if rest else 0.0  # which older snapshots don't have
    first = generator.network.init_state(1)
    fresh = Voice(
        name=name,
        vector=np.zeros(generator.config.d_voice, np.float32),
        state=first if has_state else None,
    )
    parts = {key: array for key, array in arrays.items() if key.startswith("voice.")}
    check_arrays(parts, pack_voice(fresh))
    state: GeneratorState | None = None
    if has_state:
        state = fill_state(first, "voice.state", parts)
    vector = np.asarray(parts["voice.vector"], np.float32)
    return Voice(
        name=name,
        vector=vector,
        pace=float(pace),
        state=state,
        origin=origin,
        licence=licence,
        gain_db=gain_db,
    )
