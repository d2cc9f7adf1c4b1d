"""The native protocol for speech, version 1: texts in pieces go up, audio and word times come down.

Audio comes as binary messages, in the encoding and at the rate that ``started`` names, all else as
JSON objects with a ``type``; the fields of each are those of the dataclass of that name here.
``README.md`` beside this file explains them by example.

| client says | when |
|---|---|
| ``start`` | first, and again once something was ``finished`` or ``cancelled`` |
| ``text``, ``flush`` | between that and ``finish`` |
| ``finish`` | once |
| ``cancel`` | always; each is answered by ``cancelled``, behind which no audio comes |

| server says | about |
|---|---|
| ``started`` | the voice, and what the audio will be |
| audio, ``word``, ``skipped`` | what is said, as it is made |
| ``flushed``, ``finished``, ``cancelled`` | how many samples were sent of what was started |
| ``error`` | why the connection ends |
"""

from dataclasses import dataclass
from typing import Literal, cast

from audiossm.errors import ProtocolError
from audiossm.protocol.encoding import ENCODINGS, Encoding
from audiossm.protocol.native import Message, decode_message

__all__ = [
    "REPLIES",
    "REQUESTS",
    "VERSION",
    "Cancel",
    "Cancelled",
    "Failure",
    "Finish",
    "Finished",
    "Flush",
    "Flushed",
    "Skipped",
    "SpeakProtocol",
    "SpeakReply",
    "SpeakRequest",
    "Start",
    "Started",
    "Text",
    "Word",
    "decode_speak_reply",
]

VERSION = 1
SPEEDS, HOTTEST, RATES = (0.25, 4.0), 10.0, (8000, 48000)
MAX_TEXT = 1_000_000  # characters of what is started once, by default


@dataclass(frozen=True, kw_only=True)
class Start(Message):
    """Begin to say something; without a ``sample_rate`` it is the model's own.

    With ``ahead_s`` audio comes at most so much sooner than it is heard, if this begins at once.
    """

    type = "start"
    version: int = VERSION
    voice: str | None = None  # by default the model's own
    speed: float = 1.0
    seed: int = 0
    temperature: float | None = None  # by default the model's own
    encoding: Encoding = "s16"
    sample_rate: int | None = None
    ahead_s: float | None = None  # by default as soon as it is made


@dataclass(frozen=True, kw_only=True)
class Text(Message):
    """The next piece of the text, cut anywhere."""

    type = "text"
    text: str


@dataclass(frozen=True, kw_only=True)
class Flush(Message):
    """Say all until here, as if the text ended here."""

    type = "flush"


@dataclass(frozen=True, kw_only=True)
class Finish(Message):
    """The text ends here."""

    type = "finish"


@dataclass(frozen=True, kw_only=True)
class Cancel(Message):
    """Be quiet, at once."""

    type = "cancel"


SpeakRequest = Start | Text | Flush | Finish | Cancel


@dataclass(frozen=True, kw_only=True)
class Started(Message):
    """Something will be said like this; ``voice`` is empty for the model's own."""

    type = "started"
    version: int = VERSION
    model: str
    voice: str
    seed: int
    encoding: Encoding
    sample_rate: int


@dataclass(frozen=True, kw_only=True)
class Word(Message):
    """A word as it was written, and when in the audio since ``started`` it is said."""

    type = "word"
    word: str
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Skipped(Message):
    """A piece of the text that can't be said."""

    type = "skipped"
    text: str


@dataclass(frozen=True, kw_only=True)
class Flushed(Message):
    """All before a flush was sent."""

    type = "flushed"
    samples: int


@dataclass(frozen=True, kw_only=True)
class Finished(Message):
    """All was sent; another ``start`` may follow."""

    type = "finished"
    samples: int


@dataclass(frozen=True, kw_only=True)
class Cancelled(Message):
    """Nothing more of it comes, ``samples`` having been sent; another ``start`` may follow."""

    type = "cancelled"
    samples: int


@dataclass(frozen=True, kw_only=True)
class Failure(Message):
    """The connection ends.

    Codes: ``bad-message`` (the client's mistake), ``voice`` (no such voice), ``limit`` (too much or
    too often), ``full`` and ``going`` (try again after ``retry_s``, or elsewhere), ``failed`` (the
    computation), ``idle`` (nothing was said by either side for long).
    """

    type = "error"
    code: str
    message: str
    retry_s: float = 0.0


SpeakReply = Started | Word | Skipped | Flushed | Finished | Cancelled | Failure

REQUESTS: dict[str, type[Message]] = {
    kind.type: kind for kind in (Start, Text, Flush, Finish, Cancel)
}
REPLIES: dict[str, type[Message]] = {
    kind.type: kind for kind in (Started, Word, Skipped, Flushed, Finished, Cancelled, Failure)
}


class SpeakProtocol:
    """A server's end of one connection: which requests are legal now, and what they say.

    Args:
        max_text: characters between a ``start`` and the next one.
    """

    def __init__(self, max_text: int = MAX_TEXT) -> None:
        self.state: Literal["new", "open", "finished"] = "new"
        self.max_text, self.num_characters = max_text, 0

    def receive(self, message: str | bytes) -> SpeakRequest:
        """Return what the client says.

        Raises:
            ProtocolError: nothing that is legal here and now; the state is as before.
        """
        if isinstance(message, bytes):
            raise ProtocolError("a client sends no binary messages here")
        request = cast(SpeakRequest, decode_message(message, REQUESTS))
        match request:
            case Cancel():
                self.state = "new"
            case Start():
                if self.state != "new":
                    raise ProtocolError("'start', but what was started before goes on")
                _check_start(request)
                self.state, self.num_characters = "open", 0
            case _ if self.state != "open":
                where = "before 'start'" if self.state == "new" else "after 'finish'"
                raise ProtocolError(f"{request.type!r} {where}")
            case Text():
                self._count(request.text)
            case Finish():
                self.state = "finished"
        return request

    def end(self) -> None:
        """Take note that all was said: something else may be started."""
        self.state = "new"

    def _count(self, text: str) -> None:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ProtocolError("a text with half a pair of surrogates") from None
        if self.num_characters + len(text) > self.max_text:
            raise ProtocolError(f"a text has {self.max_text} characters at most", "limit")
        self.num_characters += len(text)


def decode_speak_reply(message: str) -> SpeakReply:
    """Read what a server says as JSON.

    Raises:
        ProtocolError: nothing that a server of this version says.
    """
    # newer servers may tell more of each thing
    return cast(SpeakReply, decode_message(message, REPLIES, strict=False))


def _check_start(request: Start) -> None:
    if request.version != VERSION:
        raise ProtocolError(f"version {request.version}, but this server speaks {VERSION}")
    if request.encoding not in ENCODINGS:
        known = ", ".join(ENCODINGS)
        raise ProtocolError(f"encoding {request.encoding[:40]!r} is none of {known}")
    slowest, fastest = SPEEDS
    if not slowest <= request.speed <= fastest:
        raise ProtocolError(f"speed {request.speed:g} is outside {slowest}..{fastest:g}")
    if request.temperature is not None and request.temperature > HOTTEST:
        raise ProtocolError(f"temperature {request.temperature:g} is above {HOTTEST:g}")
    low, high = RATES
    if request.sample_rate is not None and not low <= request.sample_rate <= high:
        raise ProtocolError(f"sample rate {request.sample_rate} is outside {low}..{high} Hz")
