"""A session whose news is numbered: what it tells, in order, and what nobody confirmed yet."""

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiossm.errors import ConfigError, HotwordError, SessionError, SnapshotError
from audiossm.hotwords import HotWord
from audiossm.models import LoadedRecogniser
from audiossm.streaming.events import Event, Word, WrittenWord
from audiossm.streaming.session import Session

__all__ = ["Finished", "Flushed", "HotwordsSet", "News", "Refused", "Rewound", "Stream", "Told"]

Samples = NDArray[np.float32]

MAGIC = b"audiossm-stream1"
# who doesn't confirm so many events can't have the oldest ones again
MAX_UNCONFIRMED = 10_000
# a rewind starts at one of these, and listens again from there
CHECKPOINT_S = 2.0


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


Told = Word | WrittenWord | Flushed | HotwordsSet | Rewound | Refused | Finished
KINDS = {
    kind.__name__: kind
    for kind in (Word, WrittenWord, Flushed, HotwordsSet, Rewound, Refused, Finished)
}


@dataclass(frozen=True)
class News:
    """Event number ``seq`` of a stream, from 1 on."""

    seq: int
    event: Told


@dataclass(frozen=True)
class _Checkpoint:
    """Where a rewind can start: only samples came between this one and the next."""

    position: int
    seq: int
    session: Session


class Stream:
    """A session for somebody far away, who may lose what was told and ask for it once more.

    The events and their numbers are a function of the samples and of where the controls (flush, new
    hot words, rewind) stand among them. Somebody who keeps samples and controls above those of a
    snapshot can therefore go on from it, anywhere, and leave out the numbers that came already.
    A stream isn't thread safe.

    Args:
        session: at its begin.
        keep_s: how far back ``rewind`` reaches, in seconds; it costs a copy of the state for every
            ``CHECKPOINT_S``. It is counted anew after ``restore``.

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
        self._checkpoints: deque[_Checkpoint] = deque()
        self._kept: deque[Samples] = deque()  # what came after the first checkpoint
        self._check_in()

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
        if self.keep_s:
            self._kept.append(np.array(samples, np.float32))
            last, rate = self._checkpoints[-1], self.session.sample_rate
            if self.session.samples_received - last.position >= CHECKPOINT_S * rate:
                self._check_in()
        return news

    def flush(self) -> list[News]:
        """Tell all that can be told of the samples so far."""
        return self._control([*self.session.flush(), Flushed(self.received)])

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
        return self._control([HotwordsSet(len(self.session.hotwords))])

    def rewind(self, num_samples: int) -> list[News]:
        """Stand where the stream stood ``num_samples`` ago; too far is told as ``Refused``."""
        if self.finished:
            raise SessionError("this stream is finished: it can't be rewound")
        now, rate = self.session.samples_received, self.session.sample_rate
        target, first = now - num_samples, self._checkpoints[0].position if self.keep_s else now
        if num_samples < 0 or target < first:
            message = (
                f"can't rewind by {num_samples / rate:g} s: {(now - first) / rate:g} s are kept"
            )
            return self._control([Refused("rewind", message)])
        kept = np.concatenate([np.zeros(0, np.float32), *self._kept])[: target - first]
        while self._checkpoints[-1].position > target:
            self._checkpoints.pop()
        last = self._checkpoints[-1]
        self.session = last.session.fork()
        again = _count(self.session.push(kept[last.position - first :]))
        self._kept = deque([kept])
        return self._control([Rewound(target, last.seq + again)])

    def finish(self) -> list[News]:
        """Tell the rest and end the stream."""
        return self._control([*self.session.finish(), Finished(self.received)])

    def confirm(self, seq: int) -> None:
        """Forget the events up to ``seq``: they arrived."""
        while self.unconfirmed and self.unconfirmed[0].seq <= seq:
            self.unconfirmed.popleft()

    def fork(self) -> "Stream":
        """Return a second stream that goes on from here, with the same counts."""
        fork = Stream(self.session.fork(), self.keep_s)
        fork.received, fork.controls, fork.seq = self.received, self.controls, self.seq
        fork.unconfirmed.extend(self.unconfirmed)
        fork._restart_history()
        return fork

    def snapshot(self) -> bytes:
        """Return the stream as bytes that ``restore`` goes on from; without what a rewind needs."""
        header = json.dumps(
            {
                "received": self.received,
                "controls": self.controls,
                "seq": self.seq,
                "keep_s": self.keep_s,
                "unconfirmed": [
                    [news.seq, type(news.event).__name__, asdict(news.event)]
                    for news in self.unconfirmed
                ],
            }
        ).encode()
        return MAGIC + len(header).to_bytes(8, "little") + header + self.session.snapshot()

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
            keep_s = float(header["keep_s"])
            unconfirmed = [
                News(int(seq), KINDS[kind](**fields)) for seq, kind, fields in header["unconfirmed"]
            ]
        except (KeyError, TypeError, ValueError, RecursionError) as exc:
            raise SnapshotError(f"the stream's snapshot is damaged ({exc!r})") from exc
        stream = cls(Session.restore(transcriber, data[end:]), keep_s)
        stream.received, stream.controls, stream.seq = counts
        stream.unconfirmed.extend(unconfirmed)
        stream._restart_history()
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

    def _control(self, events: Iterable[Event | Told]) -> list[News]:
        self.controls += 1
        news = self._tell(events)
        self._check_in()
        return news

    def _check_in(self) -> None:
        """Keep a place that a rewind can start from, and forget those too far back."""
        if not self.keep_s:
            return
        position = self.session.samples_received
        self._checkpoints.append(_Checkpoint(position, self.seq, self.session.fork()))
        oldest = position - self.keep_s * self.session.sample_rate
        if len(self._checkpoints) > 1 and self._checkpoints[1].position <= oldest:
            kept = np.concatenate([np.zeros(0, np.float32), *self._kept])
            first = self._checkpoints[0].position
            while len(self._checkpoints) > 1 and self._checkpoints[1].position <= oldest:
                self._checkpoints.popleft()
            self._kept = deque([kept[self._checkpoints[0].position - first :]])

    def _restart_history(self) -> None:
        self._checkpoints.clear()
        self._kept.clear()
        self._check_in()


def _count(events: Iterable[Event]) -> int:
    return sum(isinstance(event, Told) for event in events)
