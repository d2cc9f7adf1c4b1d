"""Many streams on one machine: let in, listened to in turns by threads, kept, moved, revived."""

import asyncio
import contextlib
import itertools
import logging
import math
import os
import secrets
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from audiossm.audio.samples import check_samples
from audiossm.errors import AudioError, BusyError, SessionError, SnapshotError
from audiossm.hotwords import HotWord, check_hotwords
from audiossm.streaming.capacity import measure_capacity
from audiossm.streaming.meters import Meters
from audiossm.streaming.pool import Pool
from audiossm.streaming.slot import Progress, Slot, Wish
from audiossm.streaming.store import MemoryStore, SnapshotStore
from audiossm.streaming.stream import News, Stream
from audiossm.streaming.transcriber import Transcriber
from audiossm.streaming.turns import QUANTUM_S, EngineLimits, Outcome, Turns

__all__ = ["Copy", "Engine", "EngineLimits", "Progress"]

T = TypeVar("T")
Samples = NDArray[np.float32]
logger = logging.getLogger(__name__)

TICK_S = 0.25


class Copy(NamedTuple):
    """A kept copy of a stream, and where it stands."""

    name: str
    seq: int
    received: int
    controls: int


class Engine:
    """Streams of one transcriber on a CPU, for one event loop.

    ``async with Engine(transcriber) as engine``, then ``open`` gives the name of a stream, which is
    also the handle to resume it by: nobody can guess it. Nothing is computed on the event loop.
    What a stream tells depends on its own samples and controls alone, as ``Stream`` says.

    Calls that return a future take effect in the order in which they are made, whether or not
    somebody awaits each. They raise SessionError if the stream is not here, finished, or failed.

    Args:
        transcriber: the model; other threads may use it meanwhile.
        store: where snapshots go; without one they stay in this process.
        num_workers: threads that compute; by default as many as there are cores.
        limits: what it takes on.
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
        self.slots: dict[str, Slot] = {}
        self._turns = Turns(self)
        self._tokens = itertools.count(2)
        self._swept = time.monotonic()

    async def __aenter__(self) -> Self:
        """Warm the model up, measure the capacity if it isn't given, and begin."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._warm_up)
        self._pool: Pool[Slot] = Pool(self.num_workers, self._turn, self.meters.wait.add)
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

    # -- streams -------------------------------------------------------------------------------

    async def open(
        self,
        *,
        sample_rate: int = 16000,
        lookahead_ms: int = 320,
        hotwords: Iterable[str | HotWord] = (),
        keep_s: float = 0.0,
    ) -> str:
        """Begin a stream and return its name.

        Args:
            sample_rate: of the samples to come, in Hz.
            lookahead_ms: how long a label waits for the future; one of the model's choices.
            hotwords: words and phrases that are written more readily.
            keep_s: how far back ``rewind`` shall reach, at most ``limits.max_keep_s``.

        Raises:
            AudioError: a rate that isn't one.
            BusyError: there is no room now.
            ConfigError: no such look-ahead, or a decoder that can't weigh hot words.
            HotwordError: a hot word isn't one.
        """
        words = check_hotwords(hotwords)
        keep_s = min(keep_s, self.limits.max_keep_s)
        self._make_room()

        def begin() -> Stream:
            session = self.transcriber.session(sample_rate, lookahead_ms, words)
            return Stream(session, keep_s)

        name = await self._begin(begin, sample_rate)
        self.meters.opened += 1
        return name

    async def restore(self, data: bytes) -> str:
        """Begin a stream that goes on from ``snapshot`` bytes, and return its new name.

        Raises:
            BusyError: there is no room now.
            SnapshotError: not a stream, or one of another model, writer or version.
        """
        self._make_room()
        return await self._begin(lambda: Stream.restore(self.transcriber, data), 1)

    async def resume(self, name: str) -> int:
        """Take over a stream by its name, from memory or the store, and return a token.

        Who had it before owns it no longer: see ``owns``.

        Raises:
            BusyError: there is no room now.
            SessionError: nobody knows that name, or not any more.
            SnapshotError: what is kept can't be used.
        """
        slot = self.slots.get(name)
        if slot is not None:
            await slot.begun.wait()
        if slot is not None and slot.failure is None:
            slot.attached = next(self._tokens)
            slot.last_used = time.monotonic()
            slot.change()
            self.meters.resumed += 1
            return slot.attached
        self._make_room()
        if slot is not None:
            self._forget(slot)

        def revive() -> Stream:
            found = self.store.get(name)
            if found is None:
                raise SessionError("no such stream is kept: it is over, or it was never here")
            data, epoch = found
            revived.epoch = epoch + 1
            return Stream.restore(self.transcriber, data)

        revived = Slot(name, 1, 1, time.monotonic())
        await self._begin(revive, 1, revived)
        revived.attached = next(self._tokens)
        self.meters.resumed += 1
        return revived.attached

    def owns(self, name: str, token: int) -> bool:
        """Whether the token's holder still has the stream."""
        slot = self.slots.get(name)
        return slot is not None and slot.attached == token

    def token(self, name: str) -> int:
        """Return the token of whoever opened or resumed the stream last."""
        return self._find(name).attached

    def detach(self, name: str, token: int) -> None:
        """Say that nobody is on the other end now; the stream is kept for a while."""
        slot = self.slots.get(name)
        if slot is not None and slot.attached == token:
            slot.attached = 0

    def submit(self, name: str, samples: Samples) -> "asyncio.Future[list[News]]":
        """Do what ``push`` does, in the background, and return what will hold the news."""
        slot = self._usable(name)
        samples = np.asarray(samples)
        if samples.ndim != 1 or samples.dtype.kind != "f":
            raise AudioError(
                f"a stream takes one channel of float samples, got {samples.dtype} of shape "
                f"{samples.shape}"
            )
        check_samples(samples, slot.received, slot.rate)
        slot.received += len(samples)
        slot.backlog += len(samples)
        return self._ask(slot, Wish(self._loop.create_future(), samples=samples))

    async def push(self, name: str, samples: Samples) -> list[News]:
        """Take the next samples, (samples,) float in [-1, 1], and return what became final by them.

        Raises:
            AudioError: they are no sound; the stream is as before.
            BusyError: the stream slept, and there is no room to wake it.
        """
        return await self.submit(name, samples)

    def flush(self, name: str) -> "asyncio.Future[list[News]]":
        """Tell all that can be told of the samples so far; ``Flushed`` comes last."""
        return self._control(name, lambda stream: stream.flush())

    def set_hotwords(
        self, name: str, hotwords: Iterable[str | tuple[str, float]]
    ) -> "asyncio.Future[list[News]]":
        """Have these phrases, or (phrase, weight), from here on; ``HotwordsSet`` comes last.

        Or ``Refused``, which changes nothing.
        """
        words = list(hotwords)
        return self._control(name, lambda stream: stream.set_hotwords(words))

    def rewind(self, name: str, num_samples: int) -> "asyncio.Future[list[News]]":
        """Go back by so many samples; ``Rewound`` or ``Refused`` comes last."""
        return self._control(name, lambda stream: stream.rewind(num_samples), keep=True)

    def finish(self, name: str) -> "asyncio.Future[list[News]]":
        """Tell the rest and end the stream; ``Finished`` comes last."""
        future = self._control(name, lambda stream: stream.finish(), keep=True)
        self.slots[name].ending = True
        return future

    def snapshot(self, name: str) -> "asyncio.Future[bytes]":
        """Return the stream as bytes, after all that was asked of it until now."""
        return self._call(self._find(name), lambda stream: stream.snapshot())

    def fork(self, name: str) -> "asyncio.Future[Copy]":
        """Keep a copy of the stream as it is now; ``resume`` has it by its own name."""
        copy = secrets.token_urlsafe(18)

        def split(stream: Stream) -> Copy:
            self.store.put(copy, stream.fork().snapshot(), 1)
            return Copy(copy, stream.seq, stream.received, stream.controls)

        return self._call(self._usable(name), split)

    def sample_rate(self, name: str) -> int:
        """Return a stream's sample rate, in Hz."""
        return self._find(name).rate

    def confirm(self, name: str, seq: int) -> None:
        """Say that the events up to ``seq`` arrived: they needn't be kept."""
        slot = self._find(name)
        slot.confirmed = max(slot.confirmed, min(seq, slot.seq))
        while slot.news and slot.news[0].seq <= slot.confirmed:
            slot.news.popleft()

    def news(self, name: str, seq: int) -> list[News]:
        """Return the events above ``seq`` that are known now.

        Raises:
            SessionError: some of them were confirmed, or given up because nobody confirmed any.
        """
        slot = self._find(name)
        if slot.seq > seq and (not slot.news or slot.news[0].seq > seq + 1):
            raise SessionError(f"the events after number {seq} of this stream are gone")
        return [news for news in slot.news if news.seq > seq]

    def is_ending(self, name: str) -> bool:
        """Whether the wish to finish was taken in."""
        return self._find(name).ending

    def is_done(self, name: str) -> bool:
        """Whether the stream is finished and every event of it confirmed."""
        slot = self._find(name)
        return slot.finished and slot.confirmed == slot.seq

    def progress(self, name: str) -> Progress:
        """Say how a stream stands."""
        return self._find(name).progress()

    async def changed(self, name: str, turn: int) -> Progress:
        """Wait until a stream stands otherwise than it did at ``turn``."""
        slot = self._find(name)
        while slot.turn == turn:
            await slot.changed.wait()
        return slot.progress()

    async def room(self, name: str) -> None:
        """Wait until the stream may be sent samples without piling them up."""
        slot = self._find(name)
        while slot.backlog >= slot.max_backlog and slot.failure is None:
            await slot.changed.wait()

    async def close(self, name: str) -> None:
        """Forget a stream, here and in the store."""
        slot = self.slots.get(name)
        if slot is not None:
            self._forget(slot)
        await asyncio.to_thread(self.store.delete, name)

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
        if self.limits.capacity is None:
            self.capacity = measure_capacity(self.transcriber, self.num_workers)
            logger.info("measured a capacity of %d streams", self.capacity)
        else:
            session = self.transcriber.session()
            session.push(np.zeros(int(QUANTUM_S * 16000), np.float32))
            session.finish()

    async def _tick(self) -> None:
        """Look after what nobody else does."""
        while True:
            await asyncio.sleep(TICK_S)
            for slot in self._pool.abandon_stuck(self.limits.stuck_s):
                self.meters.stuck += 1
                self._fail(slot, f"a step took more than {self.limits.stuck_s:g} s: given up")
            now = time.monotonic()
            for slot in list(self.slots.values()):
                self._look_after(slot, now)
            if now - self._swept > 60:
                self._swept = now
                with contextlib.suppress(SnapshotError):
                    await asyncio.to_thread(self._care_for_store)

    def _look_after(self, slot: Slot, now: float) -> None:
        idle_s = now - slot.last_used
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
        slot.inbox.append(wish)
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
        wish = Wish(self._loop.create_future(), act=lambda: act(self._turns.awake(slot)), keep=keep)
        return self._ask(slot, wish)

    async def _begin(self, make: Callable[[], Stream], rate: int, slot: Slot | None = None) -> str:
        """Give a new stream a slot and keep it; what fails leaves no slot."""
        slot = slot or Slot(secrets.token_urlsafe(18), rate, 1, time.monotonic())
        self.slots[slot.name] = slot

        def begin() -> Stream:
            slot.stream = make()
            return slot.stream

        try:
            stream = await self._ask(slot, Wish(self._loop.create_future(), act=begin, keep=True))
        except BaseException:
            self._forget(slot)
            raise
        finally:
            slot.begun.set()
        slot.rate = stream.session.sample_rate
        slot.max_backlog = math.ceil(self.limits.max_backlog_s * slot.rate)
        slot.received, slot.controls = stream.received, stream.controls
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
