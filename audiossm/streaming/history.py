"""Where a stream can be rewound to: places that it passed, and the samples since."""

import json
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiossm.errors import SnapshotError
from audiossm.hotwords import HotWord
from audiossm.models import LoadedRecogniser
from audiossm.streaming.events import Endpoint, Event, Word, WrittenWord
from audiossm.streaming.session import Session

__all__ = ["FLUSH", "NOTHING", "Act", "History"]

Samples = NDArray[np.float32]
# what a control did to the session: FLUSH, NOTHING, or these hot words
Act = Sequence[tuple[str, float]] | str

FLUSH, NOTHING = "flush", ""
# a rewind starts at one of these, and listens again from there
CHECKPOINT_S = 2.0


@dataclass(frozen=True)
class _Place:
    """A place in the stream: only samples came between this one and the next."""

    position: int
    seq: int  # of the newest event there
    act: Act | None  # what the control did that stands here; None is no control
    session: Session | None  # how it was there; None if that is to be found again


class History:
    """What a stream needs to go back by ``keep`` samples at most.

    Args:
        keep: samples.
        session: the stream's, at its begin.
        seq: number of its newest event.
    """

    def __init__(self, keep: int, session: Session, seq: int) -> None:
        self.keep = keep
        self.farthest = session.samples_received  # that the stream has been
        self._places = deque([_Place(self.farthest, seq, None, session.fork())])
        self._samples: deque[Samples] = deque()  # what came after the first place
        self._first: bytes | None = None  # the first place's session as a snapshot

    @property
    def begin(self) -> int:
        """The first sample that one can go back to: a function of samples and controls alone."""
        return max(0, self.farthest - self.keep)

    @property
    def num_places(self) -> int:
        """How many states are kept, or are to be found again."""
        return len(self._places)

    def push(self, samples: Samples, session: Session, seq: int) -> None:
        """Take note of samples, after which the session is as it is."""
        self._samples.append(np.array(samples, np.float32))
        self.farthest = max(self.farthest, session.samples_received)
        if session.samples_received - self._places[-1].position >= (
            CHECKPOINT_S * session.sample_rate
        ):
            self._add(_Place(session.samples_received, seq, None, session.fork()))

    def control(self, act: Act, session: Session, seq: int) -> None:
        """Take note of a control and of what it did."""
        self._add(_Place(session.samples_received, seq, act, session.fork()))

    def rewind(self, target: int, now: Session) -> tuple[Session, int]:
        """Return the session as it was at sample ``target``, and the newest event there."""
        for place in self._places:
            # one that had not begun goes on as the stream did, not by the size of what it is told
            if place.session is not None and now.frames_taken:
                place.session.stepper.stay_with(now.profile)
        first = self._places[0].position
        kept = self._join()[: target - first]
        while self._places[-1].position > target:
            self._places.pop()
        self._find_sessions(kept)
        last = self._places[-1]
        assert last.session is not None
        session = last.session.fork()
        again = _count(session.push(kept[last.position - first :]))
        self._samples = deque([kept])
        return session, last.seq + again

    def copy(self) -> "History":
        """Return a second one; neither disturbs the other."""
        copy = History.__new__(History)
        copy.keep, copy.farthest, copy._first = self.keep, self.farthest, self._first
        copy._places, copy._samples = self._places.copy(), self._samples.copy()
        return copy

    def pack(self) -> bytes:
        """Return it as bytes: one state, the samples since, and where controls stood in them."""
        first = self._places[0]
        if self._first is None:
            assert first.session is not None
            self._first = first.session.snapshot()
        samples = self._join().astype("<f4").tobytes()
        marks = [place for place in [*self._places][1:] if place.act is not None]
        head = json.dumps(
            {
                "keep": self.keep,
                "farthest": self.farthest,
                "first": [first.position, first.seq],
                "marks": [[mark.position, mark.seq, mark.act] for mark in marks],
                "sizes": [len(self._first), len(samples)],
            }
        ).encode()
        return len(head).to_bytes(8, "little") + head + self._first + samples

    @classmethod
    def unpack(cls, transcriber: LoadedRecogniser, data: bytes) -> "History":
        """Read what ``pack`` wrote.

        Raises:
            SnapshotError: it is damaged, or of another model.
        """
        end = 8 + int.from_bytes(data[:8], "little")
        try:
            head: dict[str, Any] = json.loads(data[8:end])
            sizes = [int(size) for size in head["sizes"]]
            if sizes[0] < 0 or sizes[1] % 4 or end + sum(sizes) != len(data):
                raise ValueError(f"{len(data)} bytes, but they should be {end + sum(sizes)}")
            keep, farthest = int(head["keep"]), int(head["farthest"])
            position, seq = (int(number) for number in head["first"])
            marks = [
                _Place(int(at), int(number), _read_act(act), None)
                for at, number, act in head["marks"]
            ]
        except (KeyError, TypeError, ValueError, RecursionError) as exc:
            raise SnapshotError(f"the stream's history is damaged ({exc!r})") from exc
        first = data[end : end + sizes[0]]
        history = cls(keep, Session.restore(transcriber, first, same_numerics=True), seq)
        if history._places[0].position != position:
            raise SnapshotError("the stream's history is damaged: it begins elsewhere")
        history.farthest, history._first = farthest, first
        history._places.extend(marks)
        history._samples.append(np.frombuffer(data[end + sizes[0] :], "<f4").astype(np.float32))
        return history

    def _add(self, place: _Place) -> None:
        """Keep a place, and forget those that lie too far back."""
        self._places.append(place)
        oldest = self.farthest - self.keep
        count = 0
        for number, past in enumerate(self._places):
            if past.position > oldest:
                break
            if past.session is not None:
                count = number
        if count:
            start = self._places[count].position - self._places[0].position
            for _ in range(count):
                self._places.popleft()
            self._samples, self._first = deque([self._join()[start:]]), None

    def _find_sessions(self, kept: Samples) -> None:
        """Pass the places again whose state is not known: a snapshot has only the first one."""
        first = self._places[0].position
        session: Session | None = None
        for number, place in enumerate(self._places):
            if place.session is None:
                assert session is not None
                session = session.fork()
                session.push(kept[session.samples_received - first : place.position - first])
                if place.act == FLUSH:
                    session.flush()
                elif place.act is not None and not isinstance(place.act, str):
                    session.set_hotwords([HotWord(*pair) for pair in place.act])
                self._places[number] = replace(place, session=session)
            session = self._places[number].session

    def _join(self) -> Samples:
        return np.concatenate([np.zeros(0, np.float32), *self._samples])


def _read_act(act: Any) -> Act:
    if act in (FLUSH, NOTHING):
        return str(act)
    return [(str(phrase), float(weight)) for phrase, weight in act]


def _count(events: Iterable[Event]) -> int:
    """Count the events that are told, and so have numbers."""
    return sum(isinstance(event, Word | WrittenWord | Endpoint) for event in events)
