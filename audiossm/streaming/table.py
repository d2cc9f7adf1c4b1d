"""Thousands of live streams of one recogniser, stepped together: arrays instead of sessions."""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from audiossm.audio.buffer import FrameBufferState
from audiossm.audio.samples import LOUDEST, check_samples
from audiossm.decoding import EndpointRules, GreedyDecoder, SegmentState, make_decoder
from audiossm.decoding.endpoints import Marks
from audiossm.decoding.greedy_rows import (
    RULES,
    FoundWords,
    GreedyRows,
    RowsFound,
    join_found,
    list_words,
)
from audiossm.errors import AudioError, BusyError, ConfigError, SessionError, ShapeError
from audiossm.models import LoadedRecogniser
from audiossm.models.recogniser_slots import RecogniserSlots, SlotLabels
from audiossm.nn import map_state
from audiossm.streaming.events import Endpoint, Word
from audiossm.streaming.session import DEFAULT_RULES, Session

__all__ = ["Heard", "StreamTable"]

Ints = NDArray[np.int64]
# steps given to the device before the labels of the first one are read
MAX_AHEAD = 2


class Heard(NamedTuple):
    """What one step brought.

    Attributes:
        found: pieces, words and endpoints, whose rows are slots.
        advanced: slots that were in the step.
        failed: slots whose state is no number any more: only ``close`` takes them.
        finished: slots that ``finish`` ended and that have told everything.
    """

    found: RowsFound
    advanced: Ints
    failed: Ints
    finished: Ints


class Flight(NamedTuple):
    """A step on its way."""

    slots: Ints
    labels: SlotLabels
    counted: NDArray[np.bool_]  # not a frame behind a stream's end
    last: NDArray[np.bool_]  # the last one of a stream that ends
    ended: NDArray[np.bool_]  # what it brings is of silence behind a stream's end


class StreamTable:
    """Greedy decoding of up to ``num_slots`` streams, each step on one device for all at once.

    ``open`` gives slots, ``push`` brings samples, ``start`` gives the device one backbone frame of
    every stream that has one, and ``collect`` tells what it heard; between the two the caller may
    push, and start a second step. What a stream is told is what a ``Session`` with the decoder
    ``greedy`` and no writer tells: of its own samples alone, up to rounding. A stream moves into a
    session with ``take_out``, and so into a snapshot, and back with ``put_in``. A stream that rests
    costs its memory and nothing else. Not thread safe.

    Args:
        transcriber: the model, on the device that is to run it.
        num_slots: streams at most.
        max_rows: streams in a step at most; all by default.
        buffer_frames: backbone frames of audio that a stream may have waiting.
        endpoints: when a segment ends.
        state_dtype: as in ``RecogniserSlots``.
        layer_dtype: likewise.
        tf32: likewise.
    """

    def __init__(
        self,
        transcriber: LoadedRecogniser,
        num_slots: int,
        *,
        max_rows: int | None = None,
        buffer_frames: int = 4,
        endpoints: EndpointRules | None = DEFAULT_RULES,
        state_dtype: torch.dtype = torch.float32,
        layer_dtype: torch.dtype = torch.float32,
        tf32: bool = False,
    ) -> None:
        self.transcriber, self.endpoints = transcriber, endpoints
        self.slots = RecogniserSlots(
            transcriber.network,
            num_slots,
            max_rows=max_rows,
            buffer_frames=buffer_frames,
            state_dtype=state_dtype,
            layer_dtype=layer_dtype,
            tf32=tf32,
        )
        config = transcriber.config
        self.frame_size, self.stack = config.frame_size, config.stack
        self.capacity = buffer_frames * self.frame_size
        decoder = make_decoder("greedy", transcriber.vocabulary)
        assert isinstance(decoder, GreedyDecoder)
        self.rows = GreedyRows(decoder, endpoints, transcriber.label_frame_s, num_slots)
        self.free = deque(range(num_slots))
        self.head = np.zeros(num_slots, np.int64)  # where a stream's audio begins, in frames
        self.have = np.zeros(num_slots, np.int64)  # samples that wait
        self.received = np.zeros(num_slots, np.int64)
        self.taken = np.zeros(num_slots, np.int64)  # backbone frames of the stream's own
        self.right = np.zeros(num_slots, np.int64)  # look-ahead, backbone frames
        self.behind = np.zeros(num_slots, np.int64)  # frames of silence still to come
        self.open_slots = np.zeros(num_slots, bool)
        self.failed = np.zeros(num_slots, bool)
        self.ending = np.zeros(num_slots, bool)
        self.done: list[int] = []  # ended without a step
        self.flights: deque[Flight] = deque()

    @property
    def num_free(self) -> int:
        """Streams that may still be opened."""
        return len(self.free)

    @property
    def profile(self) -> str:
        """Which arithmetic makes the states: a snapshot names it."""
        slots = self.slots
        products = "tf32" if slots.tf32 and slots.device.type == "cuda" else "float32"
        kept = slots.state.encoder.ssm.ssm.dtype
        layers = slots.blocks[0].norm.weight.dtype
        if kept != torch.float32 or layers != torch.float32:
            products += f"-{str(layers).removeprefix('torch.')}"
            products += f"-{str(kept).removeprefix('torch.')}"
        return f"slots-{products}-{slots.device.type}"

    def open(self, count: int = 1, lookahead_ms: int = 320) -> Ints:
        """Begin streams and return their slots.

        Raises:
            BusyError: there are fewer free slots.
            ConfigError: no such look-ahead.
        """
        right = self.transcriber.lookahead_frames(lookahead_ms)
        if count > len(self.free):
            raise BusyError(f"{count} streams, but {len(self.free)} slots are free", 1.0)
        slots = np.array([self.free.popleft() for _ in range(count)], np.int64)
        if count:
            self.slots.begin(slots.tolist(), right)
        state = self._segment_state(right)
        for slot in slots.tolist():
            self._settle_in(slot, right, state)
        return slots

    def push(self, slots: Ints, samples: NDArray[np.float32]) -> None:
        """Take the next samples of some streams; all or nothing.

        Args:
            slots: (streams,), none twice.
            samples: (streams, samples) float32 in [-1, 1] at the model's rate.

        Raises:
            AudioError: a stream's samples are no sound.
            BusyError: a stream has too much waiting: ``start`` and ``collect`` first.
            SessionError: a slot isn't open, failed or ended.
            ShapeError: not a row of float32 for each slot.
        """
        slots = np.asarray(slots)
        if samples.ndim != 2 or len(samples) != len(slots) or samples.dtype != np.float32:
            raise ShapeError(
                f"push takes ({len(slots)}, samples) float32, got {samples.dtype} of shape "
                f"{samples.shape}"
            )
        usable = self.open_slots[slots] & ~self.failed[slots] & ~self.ending[slots]
        if not usable.all():
            raise SessionError(f"slots {slots[~usable][:3].tolist()} take no samples: {self._why}")
        count = samples.shape[1]
        if count == 0:
            return
        if self.have[slots].max(initial=0) + count > self.capacity:
            raise BusyError(
                f"{count} samples more than {self.have[slots].max()} that wait, but a stream may "
                f"have {self.capacity}",
                self.frame_size / self.transcriber.sample_rate,
            )
        x = torch.from_numpy(np.require(samples, requirements=("C", "W")))
        low, high = (float(end) for end in x.aminmax()) if len(slots) else (0.0, 0.0)
        if not max(-low, high) <= LOUDEST:
            self._refuse(slots, samples)
        self._put(slots, x)
        self.have[slots] += count
        self.received[slots] += count

    def finish(self, slots: Iterable[int]) -> None:
        """Let streams end with what they have: ``collect`` tells the rest, step by step.

        Raises:
            SessionError: a slot isn't open, failed or ended.
        """
        for slot in slots:
            if not self.open_slots[slot] or self.failed[slot] or self.ending[slot]:
                raise SessionError(f"slot {slot} can't end: {self._why}")
            self.ending[slot] = True
            rest = -int(self.have[slot]) % self.frame_size
            if rest:
                self._put(np.array([slot]), torch.zeros(1, rest))
                self.have[slot] += rest
            if self.taken[slot] or self.have[slot]:
                self.behind[slot] = self.right[slot] + self.transcriber.tail_frames
            if not self.have[slot] and not self.behind[slot]:
                self._end_after_flights(slot)

    def close(self, slots: Iterable[int]) -> None:
        """Forget streams; their slots are free. Steps on their way are waited for first.

        Raises:
            SessionError: a slot isn't open.
        """
        slots = [int(slot) for slot in slots]
        for slot in slots:
            if not self.open_slots[slot]:
                raise SessionError(f"slot {slot} isn't open")
            self._check_landed(slot)
        for slot in slots:
            self.open_slots[slot] = False
            self.have[slot] = self.behind[slot] = 0
            self.free.append(slot)

    def start(self) -> int:
        """Give the device a frame of every stream that has one; return of how many.

        With more of them than ``max_rows``, those go first that have most waiting.

        Raises:
            SessionError: two steps are on their way: ``collect`` first.
        """
        if len(self.flights) >= MAX_AHEAD:
            raise SessionError(f"{MAX_AHEAD} steps are on their way: collect first")
        sounds = self.have >= self.frame_size
        ready = np.nonzero((sounds | (self.ending & (self.behind > 0))) & ~self.failed)[0]
        if not len(ready):
            return 0
        if len(ready) > self.slots.max_rows:
            order = np.argsort(-self.have[ready], kind="stable")[: self.slots.max_rows]
            ready = np.sort(ready[order])
        counted = sounds[ready]
        heads = np.where(counted, self.head[ready], -1)
        own, late = ready[counted], ready[~counted]
        ended = ~counted & (self.behind[ready] <= self.transcriber.tail_frames)
        self.have[own] -= self.frame_size
        self.head[own] = (self.head[own] + 1) % self.slots.buffer_frames
        self.taken[own] += 1
        self.behind[late] -= 1
        last = self.ending[ready] & (self.have[ready] == 0) & (self.behind[ready] == 0)
        labels = self.slots.take(torch.from_numpy(ready), torch.from_numpy(heads))
        self.flights.append(Flight(ready, labels, counted, last, ended))
        return len(ready)

    def collect(self) -> Heard | None:
        """Wait for the oldest step that was started, and tell what it heard; None without any."""
        nobody = np.zeros(0, np.int64)
        ended, self.done = np.array(self.done, np.int64), []
        if not self.flights:
            if not len(ended):
                return None
            return Heard(self._end(ended, []), nobody, nobody, ended)
        flight = self.flights.popleft()
        labels, scores, fresh = (part.numpy() for part in flight.labels.read())
        sane = labels[:, 0] >= 0
        spoiled = flight.slots[~sane]
        failed = spoiled[~self.failed[spoiled]]
        self.failed[spoiled] = True
        found = self.rows.step(
            flight.slots[sane], labels[sane], scores[sane], fresh[sane], flight.ended[sane]
        )
        finished = np.concatenate([flight.slots[flight.last & sane], ended])
        if len(finished):
            found = self._end(finished, [found])
        return Heard(found, flight.slots, failed, finished)

    def tick(self) -> Heard | None:
        """``start``, then ``collect``."""
        self.start()
        return self.collect()

    def events(self, heard: Heard) -> list[tuple[int, Word | Endpoint]]:
        """Return the words of a step with their slots, and then its endpoints, as sessions do."""
        span, words = self.transcriber.word_span, heard.found.words
        frame_ms = 1000 * self.frame_size // self.transcriber.sample_rate
        events: list[tuple[int, Word | Endpoint]] = []
        rate = self.transcriber.sample_rate
        lengths = np.where(self.ending, self.received / rate, np.inf)
        lookaheads = self.right[words.rows] * frame_ms
        for ms in np.unique(lookaheads).tolist():
            some = FoundWords._make(part[lookaheads == ms] for part in words)
            spans = self.transcriber.word_spans(
                some.starts, some.lasts + 1, ms, length_s=lengths[some.rows]
            )
            spelled = list_words(self.transcriber.vocabulary, some)
            for (slot, word), start, end in zip(
                spelled, *(part.tolist() for part in spans), strict=True
            ):
                events.append((slot, Word(word.word, start, end, word.confidence)))
        rights = (self.right * frame_ms).tolist() if len(heard.found.endpoints.rows) else []
        for slot, rule, frame, first, end in zip(
            *(part.tolist() for part in heard.found.endpoints), strict=True
        ):
            time_s = span(frame, frame + 1, rights[slot])[0]
            if RULES[rule] == "end":
                time_s = float(self.received[slot]) / rate
            start_s = end_s = None
            if end >= 0:
                start_s, end_s = span(first, end, rights[slot], length_s=float(lengths[slot]))
                time_s = max(time_s, end_s)
            events.append((slot, Endpoint(RULES[rule], time_s, start_s, end_s, ())))
        return events

    def take_out(self, slot: int) -> Session:
        """Return a stream as a session, which may be kept; it stays in the table until ``close``.

        Raises:
            SessionError: a slot isn't open, failed or ended, or has a frame waiting or on its way.
        """
        if not self.open_slots[slot] or self.failed[slot] or self.ending[slot]:
            raise SessionError(f"slot {slot} can't be taken out: {self._why}")
        self._check_landed(slot)
        waiting = int(self.have[slot])
        if waiting >= self.frame_size:
            raise SessionError(f"slot {slot} has a frame waiting: start and collect first")
        transcriber = self.transcriber
        session = Session(
            transcriber,
            transcriber.sample_rate,
            self._lookahead_ms(slot),
            endpoints=self.endpoints,
        )
        taken = self.slots.read(slot)
        settled = transcriber.ways.step.settle(taken.network)
        session.network_state = map_state(lambda part: part.to(transcriber.device), settled)
        session.stepper.come_from(self.profile)
        session.decoder_state = self.rows.read(slot)
        at = int(self.head[slot]) * self.frame_size
        rest = torch.zeros(1, self.frame_size)
        rest[0, :waiting] = self.slots.read_audio(slot)[at : at + waiting]
        session.buffer_state = FrameBufferState(rest, torch.tensor([waiting]))
        session.samples_received = int(self.received[slot])
        session.frames_taken = int(self.taken[slot]) * self.stack
        return session

    def put_in(self, session: Session) -> int:
        """Let a session's stream go on in a slot; the session itself isn't used any more.

        Raises:
            BusyError: no slot is free.
            ConfigError: the session has another sample rate, decoder, endpoints, or readings or a
                writer.
            SessionError: it is finished.
        """
        if session.finished:
            raise SessionError("this session is finished: it can't go on")
        wanted = (self.transcriber.sample_rate, "greedy", self.endpoints, 0, None)
        found = (
            session.sample_rate,
            session.decoder_name,
            session.endpoints,
            session.nbest,
            session.writer,
        )
        if found != wanted or session.transcriber.hash != self.transcriber.hash:
            raise ConfigError(f"a table of streams {wanted} can't take a session of {found}")
        if not self.free:
            raise BusyError(f"all {self.slots.num_slots} slots are taken", 1.0)
        slot = self.free.popleft()
        right = self.transcriber.lookahead_frames(session.lookahead_ms)
        state = session.decoder_state
        self._settle_in(slot, right, state)
        self.slots.write(
            [slot],
            session.stepper.state,
            int(state.decoder.previous),
            int(state.decoder.frame),
        )
        waiting = int(session.buffer_state.length[0])
        self._put(np.array([slot]), session.buffer_state.rest[:, :waiting])
        self.have[slot] = waiting
        self.received[slot] = session.samples_received
        self.taken[slot] = session.frames_taken // self.stack
        return slot

    @property
    def _why(self) -> str:
        return "it isn't open, it failed, or it was ended"

    def _put(self, slots: Ints, samples: torch.Tensor) -> None:
        """Write samples behind those that wait."""
        ends = (self.head[slots] * self.frame_size + self.have[slots]) % self.capacity
        self.slots.put(torch.from_numpy(slots), torch.from_numpy(ends), samples)

    def _lookahead_ms(self, slot: int) -> int:
        return int(self.right[slot]) * 1000 * self.frame_size // self.transcriber.sample_rate

    def _segment_state(self, right: int) -> SegmentState:
        late = right * self.stack
        return SegmentState(self.rows.decoder.init_state(late), Marks(-late, 0, 0).pack())

    def _settle_in(self, slot: int, right: int, state: SegmentState) -> None:
        self.rows.write(slot, state)
        self.open_slots[slot] = True
        self.failed[slot] = self.ending[slot] = False
        self.right[slot] = right
        self.head[slot] = self.have[slot] = self.received[slot] = self.taken[slot] = 0
        self.behind[slot] = 0

    def _check_landed(self, slot: int) -> None:
        if any(slot in flight.slots for flight in self.flights):
            raise SessionError(f"slot {slot} is in a step on its way: collect first")

    def _refuse(self, slots: Ints, samples: NDArray[np.float32]) -> None:
        """Say which stream's samples are no sound."""
        for slot, row in zip(slots.tolist(), samples, strict=True):
            try:
                check_samples(row, int(self.received[slot]), self.transcriber.sample_rate)
            except AudioError as exc:
                raise AudioError(f"slot {slot}: {exc}") from exc

    def _end_after_flights(self, slot: int) -> None:
        for flight in reversed(self.flights):
            at = np.nonzero(flight.slots == slot)[0]
            if len(at):
                flight.last[at] = True
                return
        self.done.append(slot)

    def _end(self, slots: Ints, parts: list[RowsFound]) -> RowsFound:
        """Add to what was found what the ends of streams bring."""
        return join_found([*parts, *(self.rows.finish(slot) for slot in slots.tolist())])
