"""A client's end of the native protocol: what it keeps, sends, sends again, and leaves out."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audiossm.errors import ProtocolError
from audiossm.protocol.encoding import (
    OPUS_PREROLL,
    Encoding,
    encode_samples,
    sample_width,
)
from audiossm.protocol.native import (
    EVENTS,
    Ack,
    Failure,
    Finish,
    Finished,
    Flush,
    Fork,
    Forked,
    Hotwords,
    Message,
    Reply,
    Resume,
    Resumed,
    Rewind,
    Seen,
    Start,
    Started,
    decode_reply,
    encode,
)

__all__ = ["ClientProtocol"]

SEEN_EVERY = 16  # events
MAX_MESSAGE = 32000  # bytes of audio in one message


@dataclass(frozen=True)
class _Entry:
    """Something that was sent or shall be: audio, or a control, which has a number."""

    start: int  # samples before it
    controls: int  # controls before it
    samples: int = 0
    audio: bytes | None = None
    control: Message | None = None

    @property
    def end(self) -> int:
        """Samples up to its end."""
        return self.start + self.samples


class ClientProtocol:
    """Keeps what a server may lose, and hands on each event once.

    Call ``connected`` with each new connection; put what the server says into ``receive`` and send
    what ``outgoing`` returns after any call. Audio goes out as far as the server's credit reaches.

    Args:
        start: the stream's settings.
        head: with the encoding ``opus`` only: what the container begins with. It is sent first on
            each connection; after it come pages from ``OPUS_PREROLL`` before what the server has.

    Attributes:
        handle: to resume the stream by, once the server has told it.
        seq: number of the newest event that was handed on.
        durable: samples that needn't be kept.
        finished: the last event came.
    """

    def __init__(self, start: Start, head: bytes = b"") -> None:
        if (start.encoding == "opus") != bool(head):
            raise ProtocolError("Opus has a head, and nothing else has one")
        self.start, self.head = start, head
        self.encoding: Encoding | None = None if start.encoding == "opus" else start.encoding
        self.preroll = 0 if self.encoding else OPUS_PREROLL
        self.handle: str | None = None
        self.seq = self.durable = self.durable_controls = 0
        self.taken = self.controls = 0  # what the caller has put in
        self.finished = self.finishing = False
        self._log: deque[_Entry] = deque()
        self._next: int | None = None  # of the log; None before the server is ready
        self._limit = 0  # samples that the server takes
        self._out: list[str | bytes] = []
        self._seen = 0

    @classmethod
    def of_fork(cls, start: Start, fork: Forked) -> "ClientProtocol":
        """Return the client of a copy, whose audio goes on where the copy stands.

        Raises:
            ProtocolError: of Opus: who goes on has to begin with packets of before.
        """
        if start.encoding == "opus":
            raise ProtocolError("a copy goes on with samples: start anew with another encoding")
        client = cls(start)
        client.handle, client.seq = fork.handle, fork.seq
        client.durable = client.taken = fork.received
        client.durable_controls = client.controls = fork.controls
        return client

    @property
    def kept_bytes(self) -> int:
        """Audio that a server may still lose."""
        return sum(len(entry.audio) for entry in self._log if entry.audio is not None)

    @property
    def waiting(self) -> int:
        """Samples that aren't sent yet."""
        if self._next is None:
            return self.taken - self.durable
        if self._next == len(self._log):
            return 0
        return self.taken - self._log[self._next].start

    def connected(self) -> None:
        """Begin with a new connection; what was said on the one before may be lost."""
        self._next = None
        self._out.clear()
        if self.handle is None:
            self._out.append(encode(self.start))
            return
        start = self.start
        resume = Resume(
            handle=self.handle, seq=self.seq, encoding=start.encoding, partials=start.partials
        )
        self._out.append(encode(resume))

    def send_audio(self, samples: NDArray[np.float32]) -> None:
        """Take samples in [-1, 1], in the stream's rate."""
        if self.encoding is None:
            raise ProtocolError("this stream is Opus: it takes pages")
        self.send_bytes(encode_samples(samples, self.encoding))

    def send_bytes(self, data: bytes) -> None:
        """Take audio that is encoded already: whole samples."""
        if self.encoding is None:
            raise ProtocolError("this stream is Opus: it takes pages")
        width = sample_width(self.encoding)
        if len(data) % width:
            raise ProtocolError(f"{len(data)} bytes are not whole samples of {width} bytes")
        step = MAX_MESSAGE // width * width
        for at in range(0, len(data), step):
            part = data[at : at + step]
            self._add_audio(part, len(part) // width)

    def send_page(self, data: bytes, num_samples: int) -> None:
        """Take a page of Opus, after which a decoder has so many samples (48000 Hz) more."""
        if self.encoding is not None:
            raise ProtocolError(f"this stream is {self.encoding}: it takes no pages")
        self._add_audio(data, num_samples)

    def flush(self) -> None:
        """Ask for all that can be told now."""
        self._control(Flush())

    def set_hotwords(self, hotwords: Iterable[str | tuple[str, float]]) -> None:
        """Ask for these hot words from here on."""
        pairs = tuple((item, 1.0) if isinstance(item, str) else item for item in hotwords)
        self._control(Hotwords(hotwords=pairs))

    def rewind(self, seconds: float) -> None:
        """Ask to go back."""
        self._control(Rewind(seconds=seconds))

    def finish(self) -> None:
        """Say that no more comes."""
        self._control(Finish())
        self.finishing = True

    def fork(self) -> None:
        """Ask for a copy, in place; who loses the connection before ``forked`` has to ask again."""
        self._check_open()
        self._log.append(_Entry(self.taken, self.controls, control=Fork()))

    def receive(self, message: str | bytes) -> list[Reply]:
        """Take what the server says; return what is new in it.

        Raises:
            ProtocolError: nothing that a server says.
        """
        reply = decode_reply(message)
        match reply:
            case Started():
                self.handle = reply.handle
                self._go_on(0, 0, reply.credit)
            case Resumed():
                self._go_on(reply.received, reply.controls, reply.credit)
            case Ack():
                self._limit = reply.received + reply.credit
                self._trim(reply.durable, reply.controls)
            case Failure(code="unknown") if self.can_restart:
                # all that was ever sent is still here: the same events come with the same numbers
                self.handle = None
                return []
        if isinstance(reply, EVENTS):
            if reply.seq <= self.seq:
                return []
            if reply.seq != self.seq + 1:
                raise ProtocolError(f"event {reply.seq} came after event {self.seq}")
            self.seq = reply.seq
            if isinstance(reply, Finished):
                self.finished = True
            if self.finished or self.seq - self._seen >= SEEN_EVERY:
                self._seen = self.seq
                self._out.append(encode(Seen(seq=self.seq)))
        return [reply]

    @property
    def can_restart(self) -> bool:
        """Whether nothing was given up yet, so that a server that knows nothing can begin anew."""
        return self.durable == 0 and self.durable_controls == 0

    def outgoing(self) -> list[str | bytes]:
        """Return what to send now; it counts as sent."""
        out, self._out = self._out, []
        if self._next is None:
            return out
        while self._next < len(self._log):
            entry = self._log[self._next]
            if entry.audio is not None:
                if entry.end > self._limit:
                    if entry.start >= self._limit:
                        break
                    if self.encoding is not None:
                        self._split(self._next, self._limit - entry.start)
                        continue
                out.append(entry.audio)
            elif entry.control is not None:
                out.append(encode(entry.control))
            self._next += 1
        return out

    def _check_open(self) -> None:
        if self.finishing:
            raise ProtocolError("the stream is finished: nothing may follow")

    def _add_audio(self, data: bytes, num_samples: int) -> None:
        self._check_open()
        self._log.append(_Entry(self.taken, self.controls, num_samples, audio=data))
        self.taken += num_samples

    def _control(self, message: Message) -> None:
        self._check_open()
        self._log.append(_Entry(self.taken, self.controls, control=message))
        self.controls += 1

    def _go_on(self, received: int, controls: int, credit: int) -> None:
        """Send again what the server doesn't have."""
        self._limit = received + credit
        if received < self.durable or controls < self.durable_controls:
            raise ProtocolError("the server stands before what it called durable")
        self._next = len(self._log)
        for number, entry in enumerate(self._log):
            if entry.audio is not None and entry.end > received:
                if entry.start < received and self.encoding is not None:
                    self._split(number, received - entry.start)
                    number += 1
                self._next = number
                break
            if isinstance(entry.control, Fork):
                continue  # who asked was told that it is lost
            if entry.control is not None and entry.controls >= controls:
                self._next = number
                break
        if self.encoding is None:
            self._begin_container(self._next, received)

    def _begin_container(self, number: int, received: int) -> None:
        """Send what a decoder needs before it can take the log from a number on."""
        log = list(self._log)
        if self.finishing and not any(entry.audio for entry in log[number:]):
            return  # nothing of it comes any more, and the server may be past its end
        self._out.append(self.head)
        before = received - self.preroll
        self._out += [entry.audio for entry in log[:number] if entry.audio and entry.end > before]

    def _split(self, number: int, samples: int) -> None:
        entry = self._log[number]
        assert entry.audio is not None and self.encoding is not None
        at = samples * sample_width(self.encoding)
        self._log[number] = _Entry(entry.start, entry.controls, samples, audio=entry.audio[:at])
        rest = entry.samples - samples
        self._log.insert(
            number + 1,
            _Entry(entry.start + samples, entry.controls, rest, audio=entry.audio[at:]),
        )

    def _trim(self, durable: int, controls: int) -> None:
        """Forget what the server will not lose."""
        self.durable = max(self.durable, durable)
        self.durable_controls = max(self.durable_controls, controls)
        while self._log and (self._next is None or self._next > 0):
            first = self._log[0]
            if first.audio is not None:
                if first.end > self.durable - self.preroll:
                    break
            elif isinstance(first.control, Fork):
                if first.start > self.durable:
                    break
            elif first.controls >= self.durable_controls:
                break
            self._log.popleft()
            if self._next is not None:
                self._next -= 1
