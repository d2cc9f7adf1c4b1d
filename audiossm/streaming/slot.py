"""A stream's place in an engine: what waits for it, what it told, how far it is kept."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiossm.streaming.stream import MAX_UNCONFIRMED, News, Stream

__all__ = ["Progress", "Slot", "Wish"]

Samples = NDArray[np.float32]

LIVE_PACE = 1.25
FAVOUR_S = 0.5
MAX_BEFORE = 8  # wishes


@dataclass(frozen=True)
class Progress:
    """How a stream stands.

    Attributes:
        turn: counts the changes.
        seq: number of the newest event.
        partial: what was heard and isn't told yet, as written words where there is a writer.
        tail: what was heard after the last plain word.
        received: samples that were taken in, perhaps not yet listened to.
        heard: samples that were listened to.
        controls: controls that were taken in.
        durable: samples that a kept snapshot has listened to.
        durable_controls: controls that it has.
        credit: samples that may come now.
        state_bytes: how large the newest snapshot is.
        finished: the last event is told.
        failure: why the stream can't go on here, if it can't.
    """

    turn: int
    seq: int
    partial: str
    tail: str
    received: int
    heard: int
    controls: int
    durable: int
    durable_controls: int
    credit: int
    state_bytes: int
    finished: bool
    failure: str | None


@dataclass(eq=False)
class Wish:
    """Something to do for a stream, and whom to tell: push samples, or call ``act``."""

    future: asyncio.Future[Any]
    act: Callable[[], Any] | None = None
    samples: Samples | None = None
    keep: bool = False  # a snapshot afterwards
    prompt: bool = False  # samples whose news somebody waits for
    urgent: bool = False  # it, and what is before it, goes before other streams' wishes
    whole: bool = True  # False: more samples of this push come in another turn
    told: list[News] = field(default_factory=list)


class Slot:
    """One stream's place.

    Workers touch ``stream``, ``epoch``, ``kept``, ``state_bytes`` and ``posted``, in a turn; the
    event loop all the rest; both the inbox, whose ends are safe.
    """

    def __init__(self, name: str, rate: int, max_backlog: int, now: float) -> None:
        self.name, self.rate, self.max_backlog = name, rate, max_backlog
        self.stream: Stream | None = None
        self.epoch = 1
        self.inbox: deque[Wish] = deque()
        self.current: list[Wish] = []  # of the newest turn
        self.lock = threading.Lock()  # of these two
        self.hurry = False  # samples waited long enough for others
        self.favoured = -FAVOUR_S  # when a wish was urgent
        self.resident = True  # has a state in memory, or is about to
        self.ending = False  # the wish to finish was taken in
        self.attached = 1  # who is on the other end; 0 is nobody
        self.last_used = self.since = now
        self.base = 0  # samples that it had received then
        self.turn = self.seq = self.received = self.controls = self.backlog = 0
        self.durable = self.durable_controls = 0
        self.kept = (-1, -1)  # received and controls of the newest snapshot in the store
        self.keeping = threading.Lock()  # held while one is written
        self.writing = False  # one is about to be
        self.state_bytes = 0  # of the newest snapshot
        self.dropped = False  # nothing shall be kept any more
        self.posted = 0  # number of the newest event that the event loop knows
        self.confirmed = 0
        self.partial = self.tail = ""
        self.finished = False
        self.failure: str | None = None
        self.news: deque[News] = deque(maxlen=MAX_UNCONFIRMED)
        self.changed = asyncio.Event()
        self.begun = asyncio.Event()

    def is_live(self, now: float) -> bool:
        """Whether samples come at the pace of speech, or slower: a file comes faster."""
        return self.received - self.base <= self.rate * (LIVE_PACE * (now - self.since) + 1.0)

    def put(self, wish: Wish) -> None:
        """Add a wish."""
        with self.lock:
            self.inbox.append(wish)

    def favour(self, now: float) -> bool:
        """Whether a wish may go before those of others: now and then, so that nobody starves."""
        if now - self.favoured < FAVOUR_S:
            return False
        self.favoured = now
        return True

    @property
    def is_urgent(self) -> bool:
        """Whether it has an urgent wish, and little before that."""
        with self.lock:
            for place, wish in enumerate(self.inbox):
                if wish.urgent:
                    return place < MAX_BEFORE
        return False

    def take(self, quantum: int, grain: int = 1) -> list[Wish]:
        """Take the wishes of one turn: some pushes, ``quantum`` samples in all, or one other.

        While nobody waits for the news of a push, a turn has a multiple of ``grain`` samples, and
        there is none before there are so many.
        """
        with self.lock:
            if not self.hurry and not any(w.samples is None or w.prompt for w in self.inbox):
                there = sum(len(w.samples) for w in self.inbox if w.samples is not None)
                quantum = min(quantum, there // grain * grain)
            self.hurry = False
            self.current = self._take(quantum)
            return self.current

    def clear(self) -> list[Wish]:
        """Take all wishes away, those of a turn that goes on, too; no other turn finds any."""
        with self.lock:
            wishes = [*self.current, *self.inbox]
            self.inbox.clear()
        return wishes

    def _take(self, quantum: int) -> list[Wish]:
        turn: list[Wish] = []
        left = quantum
        while self.inbox and left > 0:
            wish = self.inbox[0]
            if wish.samples is None:
                if not turn:
                    turn.append(self.inbox.popleft())
                break
            if len(wish.samples) > left:
                part = Wish(wish.future, samples=wish.samples[:left], whole=False, told=wish.told)
                wish.samples = wish.samples[left:]
                turn.append(part)
                break
            left -= len(wish.samples)
            turn.append(self.inbox.popleft())
        return turn

    def progress(self) -> Progress:
        """Say how it stands."""
        return Progress(
            turn=self.turn,
            seq=self.seq,
            partial=self.partial,
            tail=self.tail,
            received=self.received,
            heard=self.received - self.backlog,
            controls=self.controls,
            durable=self.durable,
            durable_controls=self.durable_controls,
            credit=max(0, self.max_backlog - self.backlog),
            state_bytes=self.state_bytes,
            finished=self.finished,
            failure=self.failure,
        )

    def change(self) -> None:
        """Wake everybody who waits for a change."""
        self.turn += 1
        self.changed.set()
        self.changed = asyncio.Event()
