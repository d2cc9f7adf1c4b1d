"""Many texts that are said at once on one machine: let in, and said in turns by threads."""

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from audiossm.errors import AudioSSMError, BusyError, ModelError, SessionError
from audiossm.streaming.pool import Pool
from audiossm.streaming.speaker import Speaker, choose_sampling
from audiossm.streaming.speech import SpeechSession
from audiossm.streaming.speech_events import Skipped, Sound, SpokenWord
from audiossm.streaming.speech_seats import SeatedSpeech, SpeechSeats

__all__ = [
    "Packed",
    "Packer",
    "SaidAll",
    "SpeechEngine",
    "SpeechLimits",
    "SpeechMeters",
    "SpeechOrder",
    "Told",
    "Utterance",
]

logger = logging.getLogger(__name__)

Samples = NDArray[np.float32]

# a turn ends after so much time or so much speech: then it is somebody else's
TURN_S, TURN_SOUND_S = 0.1, 0.2
TRIAL = "The first light."  # short: it is said before anybody is let in
# of the threads' time: the rest is for those who listen, the event loop and pages
SHARE = 0.7
# with seats: texts, unless somebody says how many, and threads, which take turns with Python itself
NUM_SEATS, NUM_READERS = 32, 4
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class SpeechLimits:
    """What an engine takes on.

    Attributes:
        capacity: texts that are said at once; None measures what the machine can do in time.
        max_ahead_s: speech that may wait for whoever asked for it; then nothing more is made.
        retry_s: what is said to those who are refused.
    """

    capacity: int | None = None
    max_ahead_s: float = 10.0
    retry_s: float = 5.0


@dataclass(frozen=True, kw_only=True)
class SpeechOrder:
    """How something is to be said; see ``Speaker.session``.

    Without a ``voice`` it is the model's own one or, if it has none, the first of its voices.
    """

    voice: str | None = None
    speed: float = 1.0
    seed: int = 0
    temperature: float | None = None


@dataclass(frozen=True)
class Packed:
    """The next bytes, and how many of the model's samples went into the packer for them."""

    data: bytes
    num_samples: int


@dataclass(frozen=True)
class SaidAll:
    """Everything before a flush, or before the end, was told; samples in all, at the model's rate.

    After the end, nothing follows.
    """

    num_samples: int
    is_end: bool


Told = Packed | SpokenWord | Skipped | SaidAll


class Packer(Protocol):
    """Makes bytes of samples, in the threads that make these."""

    def write(self, samples: Samples) -> bytes:
        """Take the next samples (samples,), float32 at the model's rate."""

    def finish(self) -> bytes:
        """Return what ends it."""


@dataclass
class SpeechMeters:
    """Counts since the engine's start."""

    begun: int = 0
    refused: int = 0
    cancelled: int = 0
    failed: int = 0
    audio_s: float = 0.0


class SpeechEngine:
    """Texts that one speaker says, for one event loop, on which nothing is computed.

    ``async with SpeechEngine(speaker) as engine``, then ``begin``. Threads give each text a turn
    after the other, whoever waits for the first sound before all others. With seats, what is said
    at the same time is stepped together on a device, and threads only read and tell.

    Args:
        speaker: the model; other threads may use it meanwhile.
        num_workers: threads; by default as many as there are cores, with seats up to 4.
        limits: what it takes on; with seats the capacity is 32 by default.
        device: a CUDA device has a seat for each text.
        has_seats: whether texts have seats; by default where the device isn't the CPU.
    """

    def __init__(
        self,
        speaker: Speaker,
        num_workers: int | None = None,
        limits: SpeechLimits | None = None,
        *,
        device: torch.device = CPU,
        has_seats: bool | None = None,
    ) -> None:
        self.speaker, self.limits, self.device = speaker, limits or SpeechLimits(), device
        self.has_seats = device.type != "cpu" if has_seats is None else has_seats
        self.seats: SpeechSeats | None = None
        if self.has_seats:
            self.limits = replace(self.limits, capacity=self.limits.capacity or NUM_SEATS)
        self.num_workers = num_workers or os.cpu_count() or 1
        if self.has_seats and num_workers is None:
            self.num_workers = min(self.num_workers, NUM_READERS)
        self.capacity = self.limits.capacity or 1
        self.meters = SpeechMeters()
        self.saying: set[Utterance] = set()

    async def __aenter__(self) -> Self:
        """Warm the model up, and measure the capacity if need be."""
        self._loop = asyncio.get_running_loop()
        if self.has_seats:
            assert self.limits.capacity is not None
            self.seats = await asyncio.to_thread(
                SpeechSeats, self.speaker, self.limits.capacity, self.device
            )
        measured = await asyncio.to_thread(self._measure)
        self.capacity = self.limits.capacity or measured
        self._pool: Pool[Utterance] = Pool(
            self.num_workers, _take_turn, lambda _: None, lambda job: not job.num_samples
        )
        return self

    async def __aexit__(self, *details: object) -> None:
        """Stop, in the middle of what is being said."""
        for utterance in list(self.saying):
            utterance.close()
        await asyncio.to_thread(self._pool.close)
        if self.seats is not None:
            await asyncio.to_thread(self.seats.close)

    @property
    def is_full(self) -> bool:
        """Whether nothing more can be said now."""
        return len(self.saying) >= self.capacity

    async def begin(self, order: SpeechOrder, make_packer: Callable[[int], Packer]) -> "Utterance":
        """Begin to say something; its text is yet to come.

        Args:
            order: how.
            make_packer: of what is told instead of samples, given their rate in Hz.

        Raises:
            BusyError: there is no room now.
            ConfigError: a number that can't be.
            ModelError: there is no such voice.
            AudioSSMError: the packer can't be made.
        """
        if self.is_full:
            self.meters.refused += 1
            raise BusyError(f"all {self.capacity} places for speech are taken", self.limits.retry_s)
        utterance = Utterance(self)
        self.saying.add(utterance)  # it has its place from here on
        try:
            await asyncio.to_thread(utterance.prepare, order, make_packer)
        except BaseException:
            self.saying.discard(utterance)
            raise
        self.meters.begun += 1
        return utterance

    def _measure(self) -> int:
        """Have all threads say something; return for how many this would be in time."""
        self._try_out()
        if self.limits.capacity is not None:
            return self.limits.capacity
        with ThreadPoolExecutor(self.num_workers) as pool:
            started = time.perf_counter()
            turns = [pool.submit(self._try_out) for _ in range(self.num_workers)]
            said_s = sum(turn.result() for turn in turns)
            spent_s = time.perf_counter() - started
        return max(1, int(SHARE * said_s / spent_s))

    def _try_out(self) -> float:
        session = self.speaker.session()
        for _ in session.push(TRIAL):
            pass
        for _ in session.finish():
            pass
        return session.seconds


class Utterance:
    """Something that is said for somebody: give it texts, and read ``events`` meanwhile.

    Attributes:
        num_samples: made until now, at the model's rate.
    """

    def __init__(self, engine: SpeechEngine) -> None:
        self.engine = engine
        self.closed = False
        self.num_samples = 0
        self._failure: Exception | None = None
        self._wishes: deque[str | SaidAll] = deque()
        self._lock = threading.Lock()  # of what both sides count
        self._told: deque[Told] = deque()
        self._ahead = 0  # samples that were made and not read
        self._news = asyncio.Event()
        self._before = self._flushes = 0
        self._doing: SaidAll | None = None
        self._ended = False
        self._pending: list[Told] = []  # of the turn
        self._seated: SeatedSpeech | None = None  # what it says now, if that has a seat

    def prepare(self, order: SpeechOrder, make_packer: Callable[[int], Packer]) -> None:
        """Make what is needed, in a thread."""
        speaker = self.engine.speaker
        voices = speaker.voices
        name = order.voice or speaker.default_voice or next(iter(voices), None)
        if name is not None and name not in voices:  # never a path: it comes from a client
            raise ModelError(f"no voice {name[:40]!r}: there are {', '.join(voices) or 'none'}")
        self._order, self._voice = order, speaker.voice(name)
        self._packer = make_packer(speaker.sample_rate)
        self._max_ahead = round(self.engine.limits.max_ahead_s * speaker.sample_rate)
        self._turn_sound = round(TURN_SOUND_S * speaker.sample_rate)
        self._session = self._make_session()

    @property
    def voice(self) -> str:
        """The name of the voice, "" if the model has none at all."""
        return self._voice.name

    def push(self, text: str) -> None:
        """Say this next: its last words once more comes, or a flush or the end."""
        self._ask(text)

    def flush(self) -> None:
        """Say all of the text until now to its end, as if nothing came after it."""
        self._ask(SaidAll(0, is_end=False))

    def finish(self) -> None:
        """Say the rest; nothing may follow."""
        self._ask(SaidAll(0, is_end=True))

    async def events(self) -> AsyncIterator[Told]:
        """Yield what is made, to the end; nothing more once it was closed.

        Raises:
            SessionError: it failed.
        """
        while True:
            while self._told and not self.closed:
                told = self._told.popleft()
                if isinstance(told, Packed):
                    self._read(told.num_samples)
                yield told
                if isinstance(told, SaidAll) and told.is_end:
                    self.close()
                    return
            if self.closed:
                return
            if self._failure is not None:
                raise SessionError(f"this can't be said any further: {self._failure}")
            self._news.clear()
            await self._news.wait()

    def close(self) -> None:
        """Stop at once: what was made and not read is dropped, and the place is free."""
        if self in self.engine.saying:
            self.engine.saying.discard(self)
            self.engine.meters.cancelled += not self._ended
            self.engine.meters.audio_s += self.num_samples / self.engine.speaker.sample_rate
        self.closed = True
        if self._seated is not None:
            self._seated.close()
        self._told.clear()
        self._news.set()

    def _ask(self, wish: str | SaidAll) -> None:
        if self.closed or self._failure is not None:
            return  # whoever reads the events is told
        self._wishes.append(wish)
        self.engine._pool.wake(self)

    def _read(self, num_samples: int) -> None:
        with self._lock:
            was_full = self._ahead >= self._max_ahead
            self._ahead -= num_samples
            wakes = was_full and self._ahead < self._max_ahead
        if wakes:
            self.engine._pool.wake(self)

    def _make_session(self) -> SpeechSession | SeatedSpeech:
        order, seats = self._order, self.engine.seats
        # what follows a flush is drawn anew, and the same each time
        seed = (order.seed + self._flushes) % 2**63
        sampling = choose_sampling(order.temperature, None)
        if seats is None:
            return self.engine.speaker.session(
                voice=self._voice, speed=order.speed, seed=seed, sampling=sampling
            )
        session = seats.session(voice=self._voice, speed=order.speed, seed=seed, sampling=sampling)
        session.woken = partial(self.engine._pool.wake, self)
        self._seated = session
        return session

    def take_turn(self) -> bool:
        """Go on for a while, in a thread; tell whether there is more to do now."""
        try:
            more = self._advance()
        except Exception as exc:  # whatever breaks one text must not break the others
            if not isinstance(exc, AudioSSMError):
                logger.exception("a text failed", exc_info=exc)
            self._tell(exc)
            return False
        self._tell(None)
        return more and not self.closed

    def _advance(self) -> bool:
        until, sound_until = time.monotonic() + TURN_S, self.num_samples + self._turn_sound
        sounds: list[Samples] = []
        first = not self.num_samples
        while not (self.closed or self._ended):
            with self._lock:
                full = self._ahead + sum(map(len, sounds)) >= self._max_ahead
            if full or time.monotonic() > until or self.num_samples >= sound_until:
                self._pack(sounds)
                return not full
            event = next(self._session.events(), None)
            match event:
                case Sound():
                    if len(event.samples):
                        sounds.append(event.samples)
                        self.num_samples += len(event.samples)
                        if first:  # somebody waits for it
                            self._pack(sounds)
                            return True
                case SpokenWord():
                    self._pack(sounds)
                    shift_s = self._before / self.engine.speaker.sample_rate
                    span = event.start_s + shift_s, event.end_s + shift_s
                    self._pending.append(SpokenWord(event.word, *span))
                case Skipped():
                    self._pack(sounds)
                    self._pending.append(event)
                case None:
                    if self._seated is not None and self._seated.is_waiting:
                        self._pack(sounds)
                        return False  # it wakes this one
                    if not self._take_wish(sounds):
                        return False
        return False

    def _take_wish(self, sounds: list[Samples]) -> bool:
        """Go on to the next wish, as this one is done; tell whether there is one."""
        if self._doing is not None:
            self._pack(sounds, is_end=self._doing.is_end)
            self._pending.append(SaidAll(self.num_samples, self._doing.is_end))
            if self._doing.is_end:
                self._ended = True
                return False
            self._doing = None
            self._before, self._flushes = self.num_samples, self._flushes + 1
            self._session = self._make_session()
        if not self._wishes:
            self._pack(sounds)
            return False
        wish = self._wishes.popleft()
        if isinstance(wish, str):
            self._session.push(wish)  # taken at once, and made above
        else:
            self._session.finish()
            self._doing = wish
        return True

    def _pack(self, sounds: list[Samples], is_end: bool = False) -> None:
        data = b"".join(self._packer.write(samples) for samples in sounds)
        if is_end and self.num_samples:
            data += self._packer.finish()
        num_samples = sum(map(len, sounds))
        sounds.clear()
        if data or num_samples:
            self._pending.append(Packed(data, num_samples))

    def _tell(self, failure: Exception | None) -> None:
        told, self._pending = self._pending, []
        with self._lock:
            self._ahead += sum(item.num_samples for item in told if isinstance(item, Packed))
        if told or failure is not None:
            self.engine._loop.call_soon_threadsafe(self._post, told, failure)

    def _post(self, told: list[Told], failure: Exception | None) -> None:
        if self.closed:
            return
        self._told += told
        if failure is not None:
            self._failure = failure
            self.engine.meters.failed += 1
        self._news.set()


def _take_turn(utterance: Utterance) -> bool:
    return utterance.take_turn()
