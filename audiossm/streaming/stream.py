"""A session whose news is numbered: what it tells, in order, and what nobody confirmed yet."""

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiossm.decoding import Reading
from audiossm.errors import ConfigError, HotwordError, SessionError, SnapshotError
from audiossm.hotwords import HotWord
from audiossm.models import LoadedRecogniser
from audiossm.streaming.events import Endpoint, Event, Word, WrittenWord
from audiossm.streaming.history import FLUSH, NOTHING, Act, History
from audiossm.streaming.session import Session

__all__ = ["Finished", "Flushed", "HotwordsSet", "News", "Refused", "Rewound", "Stream", "Told"]

Samples = NDArray[np.float32]

MAGIC = b"audiossm-stream2"
# who doesn't confirm so many events can't have the oldest ones again
MAX_UNCONFIRMED = 10_000


@dataclass(frozen=True)
class Flushed:
    """A flush was done after ``received`` samples: all words until then were told."""

    received: int


@dataclass(frozen=True)
class HotwordsSet:
    """From here on there are so many hot words."""

    count: int


@dataclass(frozen=True)
class Rewound:
    """The stream stands at sample ``position`` again; what came after event ``keep`` is undone."""

    position: int
    keep: int


@dataclass(frozen=True)
class Refused:
    """A wish that can't be granted; the stream is as before."""

    what: str  # hotwords or rewind
    message: str


@dataclass(frozen=True)
class Finished:
    """The stream ended after ``received`` samples; nothing follows."""

    received: int


Told = Word | WrittenWord | Endpoint | Flushed | HotwordsSet | Rewound | Refused | Finished
KINDS = {
    kind.__name__: kind
    for kind in (Word, WrittenWord, Endpoint, Flushed, HotwordsSet, Rewound, Refused, Finished)
}


@dataclass(frozen=True)
class News:
    """Event number ``seq`` of a stream, from 1 on."""

    seq: int
    event: Told


class Stream:
    """A session for somebody far away, who may lose what was told and ask for it once more.

    The events and their numbers are a function of the samples and of where the controls (flush, new
    hot words, rewind) stand among them. Somebody who keeps samples and controls above those of a
    snapshot can therefore go on from it, anywhere, and leave out the numbers that came already.
    A stream isn't thread safe.

    Args:
        session: at its begin.
        keep_s: how far back ``rewind`` reaches, in seconds, also in a fork and after ``restore``;
            it costs a copy of the state for every 2 s, and a snapshot has one more state and the
            samples (4 bytes each).

    Attributes:
        received: samples that came, those before a rewind counted.
        controls: controls that came.
        seq: number of the newest event.
        unconfirmed: the newest events, oldest first.
    """

    def __init__(self, session: Session, keep_s: float = 0.0) -> None:
        self.session, self.keep_s = session, keep_s
        self.received = self.controls = self.seq = 0
        self.unconfirmed: deque[News] = deque(maxlen=MAX_UNCONFIRMED)
        keep = round(keep_s * session.sample_rate)
        self._history = History(keep, session, 0) if keep else None

    @property
    def finished(self) -> bool:
        """Nothing more can come."""
        return self.session.finished

    @property
    def tail(self) -> str:
        """What was heard after the last plain word; it may change."""
        return self.session.partial.strip()

    @property
    def partial(self) -> str:
        """What was heard and isn't told yet as it is written; it may change."""
        words = (*(word.word for word in self.session.unwritten), self.tail)
        return " ".join(word for word in words if word)

    def push(self, samples: Samples) -> list[News]:
        """Take the next samples, (samples,) float32 in [-1, 1].

        Raises:
            AudioError: they are no sound; the stream is as before.
            SessionError: the stream is finished, or its state is spoiled.
        """
        events = self.session.push(samples)
        self.received += len(samples)
        news = self._tell(events)
        if self._history is not None:
            self._history.push(samples, self.session, self.seq)
        return news

    def flush(self) -> list[News]:
        """Tell all that can be told of the samples so far."""
        return self._control([*self.session.flush(), Flushed(self.received)], FLUSH)

    def set_hotwords(self, hotwords: Iterable[str | tuple[str, float]]) -> list[News]:
        """Have these phrases, or (phrase, weight), from here on.

        Those that can't be are told as ``Refused``.
        """
        try:
            self.session.set_hotwords(
                [word if isinstance(word, str) else HotWord(*word) for word in hotwords]
            )
        except (ConfigError, HotwordError) as exc:
            return self._control([Refused("hotwords", str(exc))])
        words = self.session.hotwords
        return self._control(
            [HotwordsSet(len(words))], [(word.phrase, word.weight) for word in words]
        )

    def rewind(self, num_samples: int) -> list[News]:
        """Stand where the stream stood ``num_samples`` ago; too far is told as ``Refused``."""
        if self.finished:
            raise SessionError("this stream is finished: it can't be rewound")
        now, rate = self.session.samples_received, self.session.sample_rate
        target, begin = now - num_samples, now if self._history is None else self._history.begin
        if num_samples < 0 or target < begin or self._history is None:
            message = (
                f"can't rewind by {num_samples / rate:g} s: {(now - begin) / rate:g} s are kept"
            )
            return self._control([Refused("rewind", message)])
        self.session, keep = self._history.rewind(target, self.session)
        return self._control([Rewound(target, keep)])

    def finish(self) -> list[News]:
        """Tell the rest and end the stream."""
        return self._control([*self.session.finish(), Finished(self.received)])

    def confirm(self, seq: int) -> None:
        """Forget the events up to ``seq``: they arrived."""
        while self.unconfirmed and self.unconfirmed[0].seq <= seq:
            self.unconfirmed.popleft()

    def fork(self) -> "Stream":
        """Return a second stream that goes on from here, with the same counts."""
        fork = Stream(self.session.fork())
        fork.keep_s = self.keep_s
        fork.received, fork.controls, fork.seq = self.received, self.controls, self.seq
        fork.unconfirmed.extend(self.unconfirmed)
        fork._history = None if self._history is None else self._history.copy()
        return fork

    def snapshot(self) -> bytes:
        """Return the stream as bytes that ``restore`` goes on from."""
        history = b""
        if self._history is not None and not self.finished:
            history = self._history.pack()
        header = json.dumps(
            {
                "received": self.received,
                "controls": self.controls,
                "seq": self.seq,
                "keep_s": self.keep_s,
                "history": len(history),
                "unconfirmed": [
                    [news.seq, type(news.event).__name__, asdict(news.event)]
                    for news in self.unconfirmed
                ],
            }
        ).encode()
        size = len(header).to_bytes(8, "little")
        return b"".join([MAGIC, size, header, history, self.session.snapshot()])

    @classmethod
    def restore(cls, transcriber: LoadedRecogniser, data: bytes) -> "Stream":
        """Go on from ``snapshot`` bytes, in this process or another.

        Raises:
            SnapshotError: not a stream, or one of another model, writer or version.
        """
        if data[: len(MAGIC)] != MAGIC:
            raise SnapshotError(
                "these bytes are no snapshot of a stream, or one of another version"
            )
        start = len(MAGIC) + 8
        end = start + int.from_bytes(data[len(MAGIC) : start], "little")
        try:
            header: dict[str, Any] = json.loads(data[start:end])
            counts = [int(header[name]) for name in ("received", "controls", "seq")]
            keep_s, size = float(header["keep_s"]), int(header["history"])
            unconfirmed = [
                News(int(seq), _read_event(kind, fields))
                for seq, kind, fields in header["unconfirmed"]
            ]
        except (KeyError, TypeError, ValueError, RecursionError) as exc:
            raise SnapshotError(f"the stream's snapshot is damaged ({exc!r})") from exc
        stream = cls(Session.restore(transcriber, data[end + size :], same_numerics=True))
        stream.keep_s = keep_s
        stream.received, stream.controls, stream.seq = counts
        stream.unconfirmed.extend(unconfirmed)
        if size:
            stream._history = History.unpack(transcriber, data[end : end + size])
        return stream

    def _tell(self, events: Iterable[Event | Told]) -> list[News]:
        """Number the events that are told; tokens are within the partial text."""
        news = []
        for event in events:
            if isinstance(event, Told):
                self.seq += 1
                news.append(News(self.seq, event))
        self.unconfirmed.extend(news)
        return news

    def _control(self, events: Iterable[Event | Told], act: Act = NOTHING) -> list[News]:
        self.controls += 1
        news = self._tell(events)
        if self._history is not None and not self.finished:
            self._history.control(act, self.session, self.seq)
        return news


def _read_event(kind: str, fields: dict[str, Any]) -> Told:
    """Turn what a snapshot has of an event into the event."""
    if readings := fields.get("readings"):
        fields["readings"] = tuple(Reading(**reading) for reading in readings)
    elif kind == "Endpoint":
        fields["readings"] = ()
    return KINDS[kind](**fields)
