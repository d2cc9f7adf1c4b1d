"""What an engine's threads do: one turn of one stream, and keeping what it came to."""

import logging
import time
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from audiossm.errors import SessionError, SnapshotError
from audiossm.streaming.meters import Meters
from audiossm.streaming.slot import Slot, Wish
from audiossm.streaming.store import SnapshotStore, SupersededError
from audiossm.streaming.stream import News, Stream
from audiossm.streaming.transcriber import Transcriber

__all__ = ["GRAIN_S", "QUANTUM_S", "EngineLimits", "Outcome", "Turns"]

logger = logging.getLogger(__name__)

# so much audio a turn: less than a graph's threshold, so that live streams stay with the graphs
QUANTUM_S = 0.48
# where there are more streams than threads, audio waits until there is so much: the graph of four
# frames takes half the time of four times that of one
GRAIN_S = 0.16


@dataclass(frozen=True, kw_only=True)
class EngineLimits:
    """What an engine takes on.

    Attributes:
        capacity: streams with a state in memory; None measures what the machine can do.
        max_backlog_s: audio of one stream that may wait.
        max_wait_s: while turns wait longer in the line than this, nobody new is let in.
        max_lag_s: nor while live streams have more audio than this waiting, on average.
        idle_s: a stream that is used as long ago moves to the store.
        spare_s: the same, when somebody else needs its room.
        snapshot_s: so much audio, or so much time, between a stream's snapshots.
        stuck_s: a turn that takes longer is given up, and its stream with it.
        max_keep_s: how far back streams may ask to rewind.
        retry_s: what is said to those who are refused.
    """

    capacity: int | None = None
    max_backlog_s: float = 10.0
    max_wait_s: float = 0.25
    max_lag_s: float = 0.35
    idle_s: float = 60.0
    spare_s: float = 5.0
    snapshot_s: float = 3.0
    stuck_s: float = 30.0
    max_keep_s: float = 30.0
    retry_s: float = 5.0


class Outcome:
    """What a turn brought."""

    def __init__(self, slot: Slot, wishes: list[Wish]) -> None:
        self.slot, self.wishes = slot, wishes
        self.result: Any = None
        self.error: Exception | None = None
        self.news: list[News] = []
        self.seq = 0
        self.partial = self.tail = ""
        self.finished = False
        self.durable = (0, 0)


class Owner(Protocol):
    """What is asked of the engine."""

    transcriber: Transcriber
    store: SnapshotStore
    limits: EngineLimits
    meters: Meters
    writer: Executor
    is_coarse: bool

    def is_abandoned(self) -> bool: ...
    def told_kept(self, slot: Slot, error: Exception | None) -> None: ...


class Turns:
    """The turns of an engine's streams, each run by one of its threads."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner

    def take(self, slot: Slot) -> Outcome | None:
        """Do one turn of a stream's wishes, if it has some, and return what came of it."""
        grain = max(1, round(GRAIN_S * slot.rate)) if self.owner.is_coarse else 1
        wishes = slot.take(max(1, round(QUANTUM_S * slot.rate)), grain)
        if not wishes:
            return None
        started = time.monotonic()
        outcome = Outcome(slot, wishes)
        try:
            if wishes[0].samples is None:
                assert wishes[0].act is not None
                outcome.result = wishes[0].act()
            else:
                parts = [wish.samples for wish in wishes if wish.samples is not None]
                samples = parts[0] if len(parts) == 1 else np.concatenate(parts)
                wishes[-1].told.extend(self.awake(slot).push(samples))
            if self.owner.is_abandoned():
                return None
            if any(wish.keep for wish in wishes):
                self.keep(slot)
            elif self._is_due(slot):
                self.keep_later(slot)
        except Exception as exc:  # whatever breaks one stream must not break the others
            outcome.error = exc
            if not isinstance(exc, SessionError | SnapshotError):
                logger.exception("a stream failed", exc_info=exc)
        if self.owner.is_abandoned():
            return None
        self.owner.meters.turn.add(time.monotonic() - started)
        stream = slot.stream
        if stream is not None:
            outcome.news = [news for news in stream.unconfirmed if news.seq > slot.posted]
            slot.posted = outcome.seq = stream.seq
            outcome.partial, outcome.tail = stream.partial, stream.tail
            outcome.finished = stream.finished
            if stream.finished:
                slot.stream = None
        outcome.durable = slot.kept
        return outcome

    def awake(self, slot: Slot) -> Stream:
        """Return a slot's stream, from the store if it sleeps."""
        if slot.stream is None:
            found = self.owner.store.get(slot.name)
            if found is None:
                raise SessionError("it slept too long: it is kept no longer")
            data, epoch = found
            if epoch != slot.epoch:
                raise SupersededError
            slot.stream = Stream.restore(self.owner.transcriber, data)
        return slot.stream

    def keep(self, slot: Slot) -> bool:
        """Put a stream's snapshot into the store; what goes wrong there costs durability only.

        Raises:
            SupersededError: somebody else has the stream now.
        """
        stream = slot.stream
        if stream is None:
            return True
        stream.confirm(slot.confirmed)
        return self._write(slot, stream.snapshot(), (stream.received, stream.controls))

    def keep_later(self, slot: Slot) -> None:
        """Make a snapshot now, and have another thread put it into the store: disks are slow."""
        stream = slot.stream
        if stream is None:
            return
        stream.confirm(slot.confirmed)
        slot.writing = True
        data, counts = stream.snapshot(), (stream.received, stream.controls)

        def write() -> None:
            error: Exception | None = None
            try:
                self._write(slot, data, counts)
            except Exception as exc:  # told on the event loop, as a turn's
                error = exc
            slot.writing = False
            self.owner.told_kept(slot, error)

        self.owner.writer.submit(write)

    def drop(self, slot: Slot) -> None:
        """Forget what is kept of a stream, and what is about to be."""
        with slot.keeping:
            slot.dropped = True
            self.owner.store.delete(slot.name)

    def _write(self, slot: Slot, data: bytes, counts: tuple[int, int]) -> bool:
        with slot.keeping:
            slot.state_bytes = len(data)
            if slot.dropped or counts < slot.kept:
                return True  # nobody wants it, or a newer one was faster
            try:
                self.owner.store.put(slot.name, data, slot.epoch)
            except SupersededError:
                raise
            except SnapshotError as exc:
                self.owner.meters.lost_snapshots += 1
                logger.warning("a snapshot couldn't be kept: %s", exc)
                return False
            slot.kept = counts
        self.owner.meters.snapshots += 1
        return True

    def _is_due(self, slot: Slot) -> bool:
        stream = slot.stream
        if stream is None:
            return False
        if stream.finished:
            return True
        return (
            not slot.writing
            and stream.received - slot.kept[0] >= self.owner.limits.snapshot_s * slot.rate
        )
