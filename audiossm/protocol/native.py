"""The native protocol, version 1: a stream of audio to numbered words, which survives everything.

Audio travels as binary messages in the encoding that ``start`` names, all else as JSON objects with
a ``type``; the fields of each are those of the dataclass of that name here. ``README.md`` beside
this file explains them by example.

| client says | when |
|---|---|
| ``start``, ``resume`` | first, one of them, once |
| audio, ``flush``, ``hotwords``, ``rewind``, ``fork`` | between that and ``finish`` |
| ``seen`` | after the first message |
| ``finish`` | once |

| server says | about |
|---|---|
| ``started``, ``resumed`` | the stream's handle, and where it stands |
| ``word``, ``written``, ``endpoint``, ``flushed``, ``hotwords_set``, ``rewound``, ``refused``,
``finished`` | an event; each has the next ``seq`` |
| ``partial``, ``ack``, ``forked``, ``error`` | no event; their ``seq`` is that of the newest one |
"""

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from audiossm.errors import ProtocolError
from audiossm.protocol.encoding import ENCODINGS, OPUS_RATE, Encoding, Opus, decode_samples

__all__ = [
    "EVENTS",
    "REQUESTS",
    "VERSION",
    "Ack",
    "Audio",
    "Endpoint",
    "Failure",
    "Finish",
    "Finished",
    "Flush",
    "Flushed",
    "Fork",
    "Forked",
    "Hotwords",
    "HotwordsSet",
    "Message",
    "Partial",
    "Refused",
    "Reply",
    "Request",
    "Resume",
    "Resumed",
    "Rewind",
    "Rewound",
    "Seen",
    "ServerProtocol",
    "Start",
    "Started",
    "Word",
    "Written",
    "decode_message",
    "decode_reply",
    "encode",
]

VERSION = 1
MAX_TEXT = 2_000_000  # bytes of a JSON message
MAX_SEQ = 2**53  # what a number in JSON holds everywhere


@dataclass(frozen=True, kw_only=True)
class Message:
    """Anything that is said as JSON."""

    type: ClassVar[str]


@dataclass(frozen=True, kw_only=True)
class Start(Message):
    """Begin a stream."""

    type = "start"
    version: int = VERSION
    sample_rate: int = 16000
    encoding: Encoding | Literal["opus"] = "s16"
    lookahead_ms: int = 320
    hotwords: tuple[tuple[str, float], ...] = ()  # [phrase, weight], or a phrase alone
    keep_s: float = 0.0  # how far ``rewind`` shall reach
    partials: bool = True


@dataclass(frozen=True, kw_only=True)
class Resume(Message):
    """Go on with a stream; events above ``seq`` are told again."""

    type = "resume"
    version: int = VERSION
    handle: str
    seq: int
    encoding: Encoding | Literal["opus"] = "s16"
    partials: bool = True


@dataclass(frozen=True)
class Audio:
    """Samples (samples,) float32."""

    samples: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Flush(Message):
    """Tell all that can be told of the samples so far."""

    type = "flush"


@dataclass(frozen=True, kw_only=True)
class Hotwords(Message):
    """Have these hot words from here on."""

    type = "hotwords"
    hotwords: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class Rewind(Message):
    """Go back to where the stream stood so many seconds of audio ago."""

    type = "rewind"
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Fork(Message):
    """Keep a copy of the stream as it is here, to be resumed by its own handle."""

    type = "fork"


@dataclass(frozen=True, kw_only=True)
class Seen(Message):
    """The events up to ``seq`` arrived."""

    type = "seen"
    seq: int


@dataclass(frozen=True, kw_only=True)
class Finish(Message):
    """No audio follows: tell the rest."""

    type = "finish"


Request = Start | Resume | Audio | Opus | Flush | Hotwords | Rewind | Fork | Seen | Finish


@dataclass(frozen=True, kw_only=True)
class Reply(Message):
    """What a server says."""

    seq: int


@dataclass(frozen=True, kw_only=True)
class Started(Reply):
    """The stream began; ``credit`` samples may come.

    ``state_bytes`` is how large its snapshot is: all that the server has to keep of it.
    """

    type = "started"
    version: int = VERSION
    handle: str
    model: str
    sample_rate: int
    credit: int
    state_bytes: int


@dataclass(frozen=True, kw_only=True)
class Resumed(Reply):
    """The stream goes on after ``received`` samples and ``controls`` controls.

    ``state_bytes`` is how large its newest snapshot is.
    """

    type = "resumed"
    version: int = VERSION
    handle: str
    model: str
    sample_rate: int
    received: int
    controls: int
    credit: int
    state_bytes: int


@dataclass(frozen=True, kw_only=True)
class Word(Reply):
    """A plain word that will not change."""

    type = "word"
    word: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Written(Reply):
    """A word, or the words of a number, as people write them."""

    type = "written"
    text: str
    word: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Endpoint(Reply):
    """The end of a segment: every word before it is told, and what follows was said after it.

    ``rule`` says why: ``pause``, ``length``, ``silence`` (long, and perhaps without words before)
    or ``end`` (a flush, or the stream's end). ``time_s`` is where the stream is cut; ``start_s``
    and ``end_s`` are of the segment's first and last word, null where it has none.
    """

    type = "endpoint"
    rule: str
    time_s: float
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Flushed(Reply):
    """A flush after ``received`` samples is done."""

    type = "flushed"
    received: int


@dataclass(frozen=True, kw_only=True)
class HotwordsSet(Reply):
    """There are so many hot words from here on."""

    type = "hotwords_set"
    count: int


@dataclass(frozen=True, kw_only=True)
class Rewound(Reply):
    """The stream is at sample ``position`` again; events above ``keep`` before this are undone."""

    type = "rewound"
    position: int
    keep: int


@dataclass(frozen=True, kw_only=True)
class Refused(Reply):
    """A wish (hotwords, rewind) that can't be granted; all is as before."""

    type = "refused"
    what: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Finished(Reply):
    """The end, after ``received`` samples in all."""

    type = "finished"
    received: int


@dataclass(frozen=True, kw_only=True)
class Partial(Reply):
    """What was heard after the newest event, of ``heard`` samples in all; it may change."""

    type = "partial"
    text: str
    heard: int = 0


@dataclass(frozen=True, kw_only=True)
class Ack(Reply):
    """``received`` samples came; ``durable`` samples and ``controls`` controls survive anything."""

    type = "ack"
    received: int
    durable: int
    controls: int
    credit: int


@dataclass(frozen=True, kw_only=True)
class Forked(Reply):
    """The handle of a copy, which stands after event ``seq`` and ``received`` samples."""

    type = "forked"
    handle: str
    received: int
    controls: int


@dataclass(frozen=True, kw_only=True)
class Failure(Reply):
    """The connection ends. The stream is kept, and may be resumed, unless ``unknown`` or ``gone``.

    Codes: ``bad-message`` and ``bad-audio`` (the client's mistake), ``limit`` (too much, too often
    or too long), ``full`` and ``going`` (try again after ``retry_s``, or elsewhere), ``unknown``
    (no such handle), ``gone`` (its events aren't kept any more), ``failed`` (the stream's
    computation), ``taken`` (somebody else resumed it), ``idle`` (nothing came for long).
    """

    type = "error"
    code: str
    message: str
    retry_s: float = 0.0


REQUESTS: dict[str, type[Message]] = {
    kind.type: kind for kind in (Start, Resume, Flush, Hotwords, Rewind, Fork, Seen, Finish)
}
EVENTS = (Word, Written, Endpoint, Flushed, HotwordsSet, Rewound, Refused, Finished)
REPLIES: dict[str, type[Reply]] = {
    kind.type: kind for kind in (Started, Resumed, *EVENTS, Partial, Ack, Forked, Failure)
}


class ServerProtocol:
    """A server's end of one connection: which requests are legal now, and what they say."""

    def __init__(self) -> None:
        self.state: Literal["new", "open", "finished"] = "new"
        self.encoding: Encoding | Literal["opus"] = "s16"

    def receive(self, message: str | bytes) -> Request:
        """Return what the client says.

        Raises:
            ProtocolError: nothing that is legal here and now; the state is as before.
        """
        if isinstance(message, bytes):
            if self.state != "open":
                raise ProtocolError(f"audio, but the stream is {self.state}")
            if self.encoding == "opus":
                return Opus(message)
            return Audio(decode_samples(message, self.encoding))
        request = cast(Request, decode_message(message, REQUESTS))
        if isinstance(request, Start | Resume):
            if self.state != "new":
                raise ProtocolError(f"{request.type!r} comes first, and once")
            _check_opening(request)
            self.state, self.encoding = "open", request.encoding
        elif self.state == "new":
            raise ProtocolError(f"{_type(request)!r} before 'start' or 'resume'")
        elif self.state == "finished" and not isinstance(request, Seen):
            raise ProtocolError(f"{_type(request)!r} after 'finish'")
        elif isinstance(request, Finish):
            self.state = "finished"
        return request


def encode(message: Message) -> str:
    """Write a message as JSON."""
    return json.dumps({"type": message.type} | asdict(message), separators=(",", ":"))


def decode_reply(message: str | bytes) -> Reply:
    """Read what a server says.

    Raises:
        ProtocolError: nothing that a server of this version says.
    """
    if isinstance(message, bytes):
        raise ProtocolError("a server sends no binary messages")
    # newer servers may tell more of each thing
    return decode_message(message, REPLIES, strict=False)


def _check_opening(request: Start | Resume) -> None:
    if request.version != VERSION:
        raise ProtocolError(f"version {request.version}, but this server speaks {VERSION}")
    if request.encoding not in (*ENCODINGS, "opus"):
        known = ", ".join((*ENCODINGS, "opus"))
        raise ProtocolError(f"encoding {request.encoding!r} is none of {known}")
    if isinstance(request, Start) and request.encoding == "opus":
        if request.sample_rate != OPUS_RATE:
            raise ProtocolError(f"Opus has a sample_rate of {OPUS_RATE}, not {request.sample_rate}")
    if isinstance(request, Start) and not 8000 <= request.sample_rate <= 48000:
        raise ProtocolError(f"sample rate {request.sample_rate} is outside 8000..48000 Hz")


M = TypeVar("M", bound=Message)


def decode_message(text: str, kinds: dict[str, type[M]], strict: bool = True) -> M:
    """Read a message that is one of ``kinds``, by their types.

    Raises:
        ProtocolError: it is none of them, or has other fields; ``strict`` refuses unknown ones.
    """
    if len(text) > MAX_TEXT:
        raise ProtocolError(f"a message of {len(text)} characters; {MAX_TEXT} are the limit")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ProtocolError("a text message is not JSON") from exc
    if not isinstance(values, dict):
        raise ProtocolError("a text message is not a JSON object")
    name = values.pop("type", None)
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ProtocolError(f"type {str(name)[:40]!r} is none of {', '.join(kinds)}")
    known = {field.name: str(field.type) for field in fields(kind)}
    unknown = values.keys() - known.keys()
    if unknown and strict:
        raise ProtocolError(f"unknown {min(unknown)[:40]!r} in {kind.type!r}: it has {[*known]}")
    read = {
        key: _read(kind.type, key, value, known[key])
        for key, value in values.items()
        if key in known
    }
    try:
        return kind(**read)
    except TypeError as exc:  # a field without a default is missing
        raise ProtocolError(f"{kind.type!r} lacks one of {[*known]}") from exc


def _read(name: str, key: str, value: Any, kind: str) -> Any:
    """Check a field against its annotation."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if "None" in kind and value is None:
        return None
    if "int" in kind and whole and 0 <= value <= MAX_SEQ:
        return value
    if "bool" in kind and isinstance(value, bool):
        return value
    if "tuple" in kind and isinstance(value, list):
        return tuple(_read_hotword(item) for item in value)
    if "float" in kind and "tuple" not in kind and (whole or isinstance(value, float)):
        if 0 <= value <= MAX_SEQ and math.isfinite(value):
            return float(value)
    if ("str" in kind or "Literal" in kind) and isinstance(value, str) and "tuple" not in kind:
        return value
    raise ProtocolError(f"{key!r} in {name!r} can't be {str(value)[:40]!r}")


def _read_hotword(item: Any) -> tuple[str, float]:
    match item:
        case str():
            return item, 1.0
        case [str(phrase), int() | float() as weight] if not isinstance(weight, bool):
            try:
                return phrase, float(weight)
            except OverflowError:
                pass
    raise ProtocolError(f"a hot word is a phrase or [phrase, weight], not {str(item)[:40]!r}")


def _type(request: Request) -> str:
    return "audio" if isinstance(request, Audio | Opus) else request.type
