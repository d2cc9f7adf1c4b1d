"""Many streams on one machine: let in, listened to in turns by threads, kept, moved, revived."""

import asyncio
import itertools
import secrets
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from audiossm.audio.samples import check_samples
from audiossm.errors import AudioError, SessionError
from audiossm.hotwords import HotWord, check_hotwords
from audiossm.streaming.dispatcher import Dispatcher
from audiossm.streaming.seats import CardSeats
from audiossm.streaming.slot import Progress, Slot, Wish
from audiossm.streaming.store import SnapshotStore, next_epoch
from audiossm.streaming.stream import News, Stream
from audiossm.streaming.transcriber import Transcriber
from audiossm.streaming.turns import EngineLimits

__all__ = ["Copy", "Engine", "EngineLimits", "Progress"]

Samples = NDArray[np.float32]

# on a card, where nobody says how many; and threads that wait for steps there
NUM_SEATS, NUM_WAITING = 512, 64


class Copy(NamedTuple):
    """A kept copy of a stream, and where it stands."""

    name: str
    seq: int
    received: int
    controls: int


class Engine(Dispatcher):
    """Streams of one transcriber, on a CPU or with their states on a card, for one event loop.

    ``async with Engine(transcriber) as engine``, then ``open`` gives the name of a stream, which is
    also the handle to resume it by: nobody can guess it. Nothing is computed on the event loop.
    What a stream tells depends on its own samples and controls alone, as ``Stream`` says.

    Calls that return a future take effect in the order in which they are made, whether or not
    somebody awaits each. They raise SessionError if the stream is not here, finished, or failed.

    Args:
        transcriber: the model; other threads may use it meanwhile.
        store: where snapshots go; without one they stay in this process.
        num_workers: threads that compute; by default as many as there are cores, or with seats as
            many as there are of those, up to 64.
        limits: what it takes on; with seats the capacity is their number by default.
        num_seats: streams that stay on the transcriber's device and step together: see
            ``CardSeats``. By default as many as the capacity, or 512, on a CUDA device, and none
            on a CPU or for a backbone with attention.
    """

    def __init__(
        self,
        transcriber: Transcriber,
        store: SnapshotStore | None = None,
        num_workers: int | None = None,
        limits: EngineLimits | None = None,
        num_seats: int | None = None,
    ) -> None:
        limits = limits or EngineLimits()
        if num_seats is None:
            # seats take no attention: such streams are stepped alone, by torch
            hybrid = bool(transcriber.config.backbone.attention_layers)
            on_card = transcriber.device.type == "cuda" and not hybrid
            num_seats = (limits.capacity or NUM_SEATS) if on_card else 0
        if num_seats:
            limits = replace(limits, capacity=limits.capacity or num_seats)
            num_workers = num_workers or min(num_seats, NUM_WAITING)
        super().__init__(transcriber, store, num_workers, limits)
        self._tokens = itertools.count(2)
        self.num_seats = num_seats
        self._seats: CardSeats | None = None

    async def __aenter__(self) -> Self:
        """Prepare the device, warm the model up, measure the capacity if need be, and begin."""
        if self.num_seats:
            self._seats = await asyncio.to_thread(CardSeats, self.transcriber, self.num_seats)
        return await super().__aenter__()

    async def __aexit__(self, *details: object) -> None:
        """Stop. Streams that aren't kept are lost: ``drain`` keeps them."""
        await super().__aexit__(*details)
        if self._seats is not None:
            await asyncio.to_thread(self._seats.close)

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
            revived.epoch = next_epoch(epoch)
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

    def submit(
        self, name: str, samples: Samples, *, prompt: bool = False
    ) -> "asyncio.Future[list[News]]":
        """Do what ``push`` does, in the background, and return what will hold the news.

        Where there are many streams, samples may wait a moment for more, unless ``prompt``.
        """
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
        wish = Wish(self._loop.create_future(), samples=samples, prompt=prompt)
        return self._ask(slot, wish)

    async def push(self, name: str, samples: Samples) -> list[News]:
        """Take the next samples, (samples,) float in [-1, 1], and return what became final by them.

        Raises:
            AudioError: they are no sound; the stream is as before.
            BusyError: the stream slept, and there is no room to wake it.
        """
        return await self.submit(name, samples, prompt=True)

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
        future = self._control(name, lambda stream: stream.finish())
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
        if slot is None:
            await asyncio.to_thread(self.store.delete, name)
            return
        self._forget(slot)
        await asyncio.to_thread(self._turns.drop, slot)
