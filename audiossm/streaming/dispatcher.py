"""Behind an engine's face: places for streams, wishes to threads, and what comes back."""

import asyncio
import contextlib
import logging
import math
import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from statistics import fmean
from typing import Any, Self, TypeVar

from audiossm.errors import BusyError, SessionError, SnapshotError
from audiossm.streaming.capacity import measure_capacity, warm_up
from audiossm.streaming.meters import Meters
from audiossm.streaming.pool import Pool
from audiossm.streaming.slot import Slot, Wish
from audiossm.streaming.store import MemoryStore, SnapshotStore
from audiossm.streaming.stream import News, Stream
from audiossm.streaming.transcriber import Transcriber
from audiossm.streaming.turns import EngineLimits, Outcome, Turns

__all__ = ["Dispatcher"]

T = TypeVar("T")
logger = logging.getLogger(__name__)

TICK_S = 0.25


class Dispatcher:
    """Keeps slots, asks threads for turns of them, and takes up what the turns bring.

    ``Engine`` is its face, and says what the arguments are.
    """

    def __init__(
        self,
        transcriber: Transcriber,
        store: SnapshotStore | None = None,
        num_workers: int | None = None,
        limits: EngineLimits | None = None,
    ) -> None:
        self.transcriber, self.limits = transcriber, limits or EngineLimits()
        self.store: SnapshotStore = MemoryStore() if store is None else store
        self.num_workers = num_workers or os.cpu_count() or 1
        self.capacity = self.limits.capacity or 0
        self.meters = Meters()
        self.draining = False
        self.is_coarse = False  # live audio is listened to in larger pieces
        self.slots: dict[str, Slot] = {}
        self._turns = Turns(self)
        self._swept = time.monotonic()

    async def __aenter__(self) -> Self:
        """Warm the model up, measure the capacity if it isn't given, and begin."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._warm_up)
        self._pool: Pool[Slot] = Pool(
            self.num_workers, self._turn, self.meters.wait.add, lambda slot: slot.is_urgent
        )
        self.writer: Executor = ThreadPoolExecutor(2, "audiossm-store")
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop. Streams that aren't kept are lost: ``drain`` keeps them."""
        self._ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._ticking
        await asyncio.to_thread(self._pool.close)
        await asyncio.to_thread(self.writer.shutdown)

    # -- the whole -----------------------------------------------------------------------------

    @property
    def num_resident(self) -> int:
        """Streams with a state in memory."""
        return sum(slot.resident for slot in self.slots.values())

    @property
    def backlog_s(self) -> float:
        """Audio that waits, in seconds, of all streams."""
        return sum(slot.backlog / slot.rate for slot in self.slots.values())

    @property
    def lag_s(self) -> float:
        """Audio of a live stream that waits, in seconds, on average."""
        now = time.monotonic()
        lags = [slot.backlog / slot.rate for slot in self.slots.values() if slot.is_live(now)]
        return fmean(lags) if lags else 0.0

    @property
    def is_full(self) -> bool:
        """Whether a new stream would be refused."""
        try:
            self._find_room()
        except BusyError:
            return True
        return False

    async def drain(self, timeout_s: float = 10.0) -> None:
        """Let nobody in any more, finish what waits, and keep every stream.

        What doesn't get done in time is what came after each stream's last snapshot.
        """
        self.draining = True
        waiting = [
            self._ask(slot, Wish(self._loop.create_future(), act=lambda: None, keep=True))
            for slot in self.slots.values()
            if slot.resident and slot.failure is None
        ]
        if waiting:
            await asyncio.wait(waiting, timeout=timeout_s)

    def _warm_up(self) -> None:
        """Load and compile what the first stream would wait for."""
        warm_up(self.transcriber)
        if self.limits.capacity is None:
            self.capacity = measure_capacity(self.transcriber, self.num_workers)
            logger.info("measured a capacity of %d streams", self.capacity)

    async def _tick(self) -> None:
        """Look after what nobody else does."""
        while True:
            await asyncio.sleep(TICK_S)
            for slot in self._pool.abandon_stuck(self.limits.stuck_s):
                self.meters.stuck += 1
                self._fail(slot, f"a step took more than {self.limits.stuck_s:g} s: given up")
            now = time.monotonic()
            self.is_coarse = self.num_resident > self.num_workers
            for slot in list(self.slots.values()):
                self._look_after(slot, now)
            if now - self._swept > 60:
                self._swept = now
                with contextlib.suppress(SnapshotError):
                    await asyncio.to_thread(self._care_for_store)

    def _look_after(self, slot: Slot, now: float) -> None:
        idle_s = now - slot.last_used
        if slot.inbox and idle_s > TICK_S:
            slot.hurry = True  # what would complete the piece may never come
            self._pool.wake(slot)
        if slot.inbox or slot.backlog or (slot.failure and slot.attached):
            return
        if slot.failure or (idle_s > self.limits.idle_s and not (slot.resident or slot.attached)):
            self._forget(slot)
        elif not slot.resident:
            return
        elif idle_s > self.limits.idle_s:
            self._lull(slot)
        elif idle_s > self.limits.snapshot_s and (
            (slot.received, slot.controls) != (slot.durable, slot.durable_controls)
        ):
            slot.last_used = now  # a store that takes nothing isn't asked all the time
            self._ask(slot, Wish(self._loop.create_future(), act=lambda: None, keep=True))

    def _care_for_store(self) -> None:
        self.store.sweep()
        for name in list(self.slots):
            self.store.renew(name)

    # -- room ----------------------------------------------------------------------------------

    def _make_room(self) -> None:
        """Raise BusyError unless one more stream can have a state in memory."""
        try:
            idle = self._find_room()
        except BusyError:
            self.meters.refused += 1
            raise
        if idle is not None:
            self._lull(idle)

    def _find_room(self) -> Slot | None:
        """Return None if there is room, else whose room can be had."""
        retry_s = self.limits.retry_s
        if self.draining:
            raise BusyError("this server is going down: try another one, or again soon", retry_s)
        wait_s = self.meters.wait.recent_s if self._pool.num_waiting else 0.0
        if wait_s > self.limits.max_wait_s:
            raise BusyError(f"overloaded: audio waits for {wait_s:.1f} s", retry_s)
        if (lag_s := self.lag_s) > self.limits.max_lag_s:
            raise BusyError(f"overloaded: {lag_s:.1f} s of a stream's audio wait", retry_s)
        if self.num_resident < self.capacity:
            return None
        now = time.monotonic()
        idle = [
            slot
            for slot in self.slots.values()
            if slot.resident
            and not slot.inbox
            and not slot.backlog
            and now - slot.last_used > self.limits.spare_s
        ]
        if not idle:
            raise BusyError(f"all {self.capacity} places for streams are taken", retry_s)
        return min(idle, key=lambda slot: slot.last_used)

    def _lull(self, slot: Slot) -> None:
        """Move an idle stream to the store; the next call wakes it."""

        def sleep() -> None:
            # a store that takes nothing keeps nobody's stream: it stays
            if self._turns.keep(slot):
                slot.stream = None

        self._ask(slot, Wish(self._loop.create_future(), act=sleep), used=False)
        slot.resident = False
        self.meters.hibernated += 1

    # -- wishes --------------------------------------------------------------------------------

    def _find(self, name: str) -> Slot:
        slot = self.slots.get(name)
        if slot is None:
            raise SessionError("no such stream is here: it is over, or it was never here")
        return slot

    def _usable(self, name: str) -> Slot:
        """Return a slot that takes samples and controls, awake or about to be."""
        slot = self._find(name)
        if slot.failure is not None:
            raise SessionError(f"this stream failed: {slot.failure}")
        if slot.ending or slot.finished:
            raise SessionError("this stream is finished: begin another one")
        if not slot.resident:
            self._make_room()
            slot.resident = True
            self.meters.woken += 1
        return slot

    def _ask(self, slot: Slot, wish: Wish, used: bool = True) -> "asyncio.Future[Any]":
        if used:
            slot.last_used = time.monotonic()
        # whoever doesn't look at a future needn't hear of what went wrong: the slot tells
        wish.future.add_done_callback(_look_at)
        slot.put(wish)
        self._pool.wake(slot)
        return wish.future

    def _call(self, slot: Slot, act: Callable[[Stream], T]) -> "asyncio.Future[T]":
        wish = Wish(self._loop.create_future(), act=lambda: act(self._turns.awake(slot)))
        return self._ask(slot, wish)

    def _control(
        self, name: str, act: Callable[[Stream], list[News]], keep: bool = False
    ) -> "asyncio.Future[list[News]]":
        slot = self._usable(name)
        slot.controls += 1
        wish = Wish(
            self._loop.create_future(),
            act=lambda: act(self._turns.awake(slot)),
            keep=keep,
            urgent=slot.favour(time.monotonic()),  # somebody waits for the answer
        )
        return self._ask(slot, wish)

    async def _begin(self, make: Callable[[], Stream], rate: int, slot: Slot | None = None) -> str:
        """Give a new stream a slot and keep it; what fails leaves no slot."""
        slot = slot or Slot(secrets.token_urlsafe(18), rate, 1, time.monotonic())
        self.slots[slot.name] = slot

        def begin() -> Stream:
            slot.stream = make()
            return slot.stream

        try:
            wish = Wish(self._loop.create_future(), act=begin, keep=True, urgent=True)
            stream = await self._ask(slot, wish)
        except BaseException:
            self._forget(slot)
            raise
        finally:
            slot.begun.set()
        slot.rate = stream.session.sample_rate
        slot.max_backlog = math.ceil(self.limits.max_backlog_s * slot.rate)
        slot.received, slot.controls = stream.received, stream.controls
        slot.base, slot.since = stream.received, time.monotonic()
        slot.ending = stream.finished
        return slot.name

    def _forget(self, slot: Slot) -> None:
        if self.slots.get(slot.name) is slot:
            del self.slots[slot.name]
        if slot.failure is None:
            slot.failure = "it was closed"
        self._let_go(slot)

    def _fail(self, slot: Slot, reason: str) -> None:
        """Take a stream out of service; the others go on."""
        logger.error("a stream failed: %s", reason)
        self.meters.failed += 1
        slot.failure = reason
        self._let_go(slot)

    def _let_go(self, slot: Slot) -> None:
        """Tell everybody who waits for a stream that failed or was closed."""
        slot.resident, slot.backlog = False, 0
        for wish in slot.clear():
            if not wish.future.done():
                wish.future.set_exception(SessionError(f"this stream failed: {slot.failure}"))
        slot.change()

    def is_abandoned(self) -> bool:
        """Whether the calling thread was given up: what it brings is left out."""
        return self._pool.is_abandoned()

    def told_kept(self, slot: Slot, error: Exception | None) -> None:
        """Take note, in another thread, of a snapshot that was put into the store, or wasn't."""

        def take_up() -> None:
            if error is not None and slot.failure is None:
                self._fail(slot, str(error) or repr(error))
            slot.durable, slot.durable_controls = (max(0, count) for count in slot.kept)
            slot.change()

        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(take_up)

    # -- what came of turns ----------------------------------------------------------------------

    def _turn(self, slot: Slot) -> bool:
        """Let a worker do a turn, and have the event loop take up what it brought."""
        outcome = self._turns.take(slot)
        if outcome is None:
            return False
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._settle, outcome)
        return bool(slot.inbox)

    def _settle(self, outcome: Outcome) -> None:
        """Take up what a turn brought, on the event loop."""
        slot = outcome.slot
        if slot.failure is not None:
            outcome.error = outcome.error or SessionError(f"this stream failed: {slot.failure}")
        for news in outcome.news:
            if news.seq > slot.confirmed:
                slot.news.append(news)
        slot.seq = max(slot.seq, outcome.seq)
        slot.partial, slot.tail = outcome.partial, outcome.tail
        slot.durable, slot.durable_controls = (max(0, count) for count in outcome.durable)
        if outcome.finished:
            slot.finished, slot.resident = True, False
        for wish in outcome.wishes:
            if wish.samples is not None:
                slot.backlog = max(0, slot.backlog - len(wish.samples))
                self.meters.audio_s += len(wish.samples) / slot.rate
            if wish.future.done():
                continue
            if outcome.error is not None:
                wish.future.set_exception(outcome.error)
            elif wish.whole:
                wish.future.set_result(wish.told if wish.samples is not None else outcome.result)
        if outcome.error is not None and slot.failure is None:
            self._fail(slot, str(outcome.error) or repr(outcome.error))
        slot.change()


def _look_at(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()
