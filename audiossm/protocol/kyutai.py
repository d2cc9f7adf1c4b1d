"""The dialect of Kyutai's moshi-server (``/api/asr-streaming``): maps in MessagePack.

| client says | server says |
|---|---|
| (connects) | ``Ready`` |
| ``Init`` | nothing |
| ``Audio`` with ``pcm``: floats, mono, at 24000 Hz | ``Step`` with ``step_idx``, ``prs`` and
``buffered_pcm`` for every 1920 samples; ``Word`` with ``text`` and ``start_time``, and ``EndWord``
with ``stop_time``, in seconds |
| ``OggOpus`` with ``data``: bytes of Ogg | the same |
| ``Marker`` with ``id`` | the words before it, then ``Marker`` with ``id`` |

``prs`` stand for pauses of 0.5, 1, 2 and 3 s. There, they are a model's guesses that the pause will
last so long; here, each is the part of so long a pause that was heard already, 1 at most.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from audiossm.errors import ProtocolError
from audiossm.protocol.encoding import LOUDEST, Opus
from audiossm.protocol.heard import Heard, HeardWord

__all__ = ["SAMPLE_RATE", "Audio", "Init", "KyutaiProtocol", "Marker", "Request"]

SAMPLE_RATE = 24000
STEP = 1920  # samples
PAUSES_S = (0.5, 1.0, 2.0, 3.0)


@dataclass(frozen=True)
class Init:
    """Nothing."""


@dataclass(frozen=True)
class Audio:
    """Samples (samples,) float32."""

    samples: NDArray[np.float32]


@dataclass(frozen=True)
class Marker:
    """Tell all words until here, and that this was reached."""

    id: int


Request = Init | Audio | Opus | Marker


class KyutaiProtocol:
    """A server's end of one connection."""

    def __init__(self) -> None:
        self.num_steps = 0

    def greet(self) -> bytes:
        """Say that audio may come."""
        return _pack("Ready")

    def receive(self, message: str | bytes) -> Request:
        """Return what the client says.

        Raises:
            ProtocolError: nothing of this dialect, or no sound.
        """
        if isinstance(message, str):
            raise ProtocolError("messages are binary, in MessagePack")
        try:
            values = msgpack.unpackb(message)
        except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as exc:
            raise ProtocolError("a message is not MessagePack") from exc
        match values:
            case {"type": "Init"}:
                return Init()
            case {"type": "Audio", "pcm": list(pcm)}:
                return Audio(_read_samples(pcm))
            case {"type": "Marker", "id": int(number)} if not isinstance(number, bool):
                return Marker(number)
            case {"type": "OggOpus", "data": bytes(data)}:
                return Opus(data)
        raise ProtocolError(
            "a message is none of Init, Audio with pcm, OggOpus with data, Marker with id"
        )

    def hear(self, heard: Heard) -> list[bytes]:
        """Answer audio."""
        out = []
        num_steps = round(heard.now_s * SAMPLE_RATE) // STEP
        prs = [round(min(1.0, heard.silence_s / pause_s), 4) for pause_s in PAUSES_S]
        while self.num_steps < num_steps:
            out.append(_pack("Step", step_idx=self.num_steps, prs=prs, buffered_pcm=0))
            self.num_steps += 1
        return out + _words(heard.words)

    def mark(self, words: Iterable[HeardWord], marker: Marker) -> list[bytes]:
        """Answer a marker."""
        return [*_words(words), _pack("Marker", id=marker.id)]

    def error(self, message: str) -> bytes:
        """Say why the connection ends."""
        return _pack("Error", message=message)


def _words(words: Iterable[HeardWord]) -> list[bytes]:
    out = []
    for word in words:
        out.append(_pack("Word", text=word.text, start_time=round(word.start_s, 4)))
        out.append(_pack("EndWord", stop_time=round(word.end_s, 4)))
    return out


def _read_samples(pcm: list[Any]) -> NDArray[np.float32]:
    if not all(type(value) in (float, int) for value in pcm):
        raise ProtocolError("pcm is a list of numbers", "bad-audio")
    samples = np.asarray(pcm, np.float64)
    if not np.abs(samples).max(initial=0.0) <= LOUDEST:  # NaN isn't
        raise ProtocolError(
            f"a sample is no number, or beyond {LOUDEST:g}: full scale is 1", "bad-audio"
        )
    return samples.astype(np.float32)


def _pack(kind: str, **fields: Any) -> bytes:
    packed: bytes = msgpack.packb({"type": kind} | fields)
    return packed
