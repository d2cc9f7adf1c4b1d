"""Seats for speech: sessions whose frames are made together, in slots on one device."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiossm.decoding.sampling import Sampling
from audiossm.errors import ConfigError, SessionError
from audiossm.models import Voice
from audiossm.streaming.code_maker import check_seed
from audiossm.streaming.speaker import Speaker
from audiossm.streaming.speech import check_speed, ends_word, make_stretch, share_speed
from audiossm.streaming.speech_events import Skipped, Sound, SpeechEvent, SpokenWord
from audiossm.streaming.speech_plan import Sentence, SpeechPlan
from audiossm.streaming.speech_slots import SlotScript, SpeechSlots

__all__ = ["SeatedSpeech", "SpeechSeats"]

logger = logging.getLogger(__name__)

# when so few units wait in a slot, it is told more; and how many are read ahead of what is said
FEW_UNITS, READ_AHEAD = 32, 96
# steps of a turn; texts begin and end between turns, and a first sound needs a step a group
TURN_STEPS = 4
UNREAD = 25  # frames that wait for whoever reads them; with more a text isn't stepped


@dataclass(frozen=True)
class Made:
    """What a turn made for a text.

    Attributes:
        samples: (steps, frame_size) float32.
        sounds: (steps,) bool: which of them there are.
        units: (steps,) int64: how many of the sentence's units were said after each step.
        frames: (steps,) int64: of the sentence until then, as long as units are said.
        sentence: that was said; None is what the decoder had held back.
        is_end: whether nothing follows.
    """

    samples: NDArray[np.float32]
    sounds: NDArray[np.bool_]
    units: NDArray[np.int64]
    frames: NDArray[np.int64]
    sentence: Sentence | None
    is_end: bool


class SeatedSpeech:
    """A text that is said in a seat, as ``SpeechSession`` says it; one thread at a time may use it.

    Nobody waits for it: ``events`` yields what was made until now, and if it ``is_waiting`` for
    more, ``woken`` is called when there is some.

    Attributes:
        woken: is called in the seats' thread.
    """

    def __init__(
        self, seats: "SpeechSeats", plan: SpeechPlan, voice: Voice, stretched: float
    ) -> None:
        self.seats, self.plan, self.voice, self.stretched = seats, plan, voice, stretched
        self.stretch = make_stretch(seats.speaker, stretched)
        self.woken: Callable[[], None] = lambda: None
        self.failure: Exception | None = None
        self.ended = self.closed = False
        self._pending: deque[SpeechEvent] = deque()
        self._num_samples, self._to_drop = 0, seats.slots.codec.delay
        self._told: Sentence | None = None  # the one whose units are being told
        self._cursor = 0  # how many of them were
        self._begun = self._since = 0  # frames before the sentence, and before its next unit
        self._word_start: int | None = None
        # between both threads: each number is written by one of them
        self.inbox: deque[Made] = deque()
        self.num_made = self.num_read = 0  # steps
        # the seats' own
        self.place: int | None = None
        self.saying: Sentence | None = None
        self.is_draining = False
        # of the sentence: the unit that the slot counts from, how far it knows units, how many of
        # them it can say, and whether it knows all
        self.base = self.known = self.ready = 0
        self.knows_all = False

    def push(self, text: str) -> Iterator[SpeechEvent]:
        """Take more text, and yield what was made until now.

        Raises:
            SessionError: the session is finished.
        """
        self._check_open()
        self.plan.push(text)
        return self.events()

    def finish(self) -> Iterator[SpeechEvent]:
        """End the text, and yield what was made until now."""
        self._check_open()
        self.plan.finish()
        return self.events()

    def events(self) -> Iterator[SpeechEvent]:
        """Yield what was made until now.

        Raises:
            SessionError: a step failed, or the seats were closed.
        """
        while True:
            self._read_ahead()
            if self._pending:
                yield self._pending.popleft()
                continue
            if self.failure is not None:
                raise SessionError(f"speech can't go on: {self.failure}") from self.failure
            if not self.inbox:
                return
            made = self.inbox.popleft()
            was_full = self.is_full
            self.num_read += len(made.sounds)
            if was_full:
                self.seats.tell(self)
            self._take(made)

    @property
    def is_full(self) -> bool:
        """Whether so much waits that no more is made."""
        return self.num_made - self.num_read >= UNREAD

    @property
    def is_waiting(self) -> bool:
        """Whether more comes without more text."""
        if self.ended or self.closed:
            return False
        if self._pending or self.inbox or self.plan.finished or self.failure is not None:
            return True
        after = self.seats.slots.config.units_after
        said = tuple(self.plan.sentences)
        return any(each.is_whole or each.num_ready(after) > each.at for each in said)

    def close(self) -> None:
        """Say no more: the seat is somebody else's after the turn that it is in."""
        self.closed = True
        self.seats.tell(self)

    def _check_open(self) -> None:
        if self.plan.finished or self.closed:
            raise SessionError("this session is finished: begin another one")

    def _read_ahead(self) -> None:
        if self.closed or not self.plan.read(READ_AHEAD):
            return
        self._pending += [Skipped(text) for text in self.plan.skipped]
        self.plan.skipped.clear()
        if self.plan.num_units:
            self.seats.tell(self)
        elif self.plan.is_over:
            self.ended = True  # there is nothing in it that can be said

    def _take(self, made: Made) -> None:
        sentence = made.sentence
        if sentence is None:
            left = self._since * self.seats.speaker.frame_size - self._num_samples
            self.ended = made.is_end
            self._sound(made.samples[made.sounds].reshape(-1)[: max(left, 0)])
            return
        if sentence is not self._told:
            self._told, self._cursor, self._begun = sentence, 0, self._since
        for step, sounds in enumerate(made.sounds):
            if sounds:
                self._sound(made.samples[step])
            while self._cursor < made.units[step]:
                self._end_unit(sentence, self._begun + int(made.frames[step]))

    def _sound(self, samples: NDArray[np.float32]) -> None:
        drop = min(self._to_drop, len(samples))
        self._to_drop -= drop
        self._num_samples += len(samples) - drop
        samples = self.voice.amplify(samples[drop:])
        if self.stretch is not None:
            samples = self.stretch.push(samples, last=self.ended)
        self._pending.append(Sound(samples, self.seats.no_codes))

    def _end_unit(self, sentence: Sentence, now: int) -> None:
        unit = sentence.units[self._cursor]
        if self._word_start is None and not unit.is_pause:
            self._word_start = self._since
        self._cursor, self._since = self._cursor + 1, now
        follows = sentence.units[self._cursor] if self._cursor < len(sentence.units) else None
        if self._word_start is not None and ends_word(unit, follows):
            frame_s = (
                self.seats.speaker.frame_size / self.seats.speaker.sample_rate / self.stretched
            )
            span = self._word_start * frame_s, now * frame_s
            self._pending.append(SpokenWord(self.plan.words.pop(unit.word), *span))
            self._word_start = None


class SpeechSeats:
    """Up to ``num_seats`` texts of a speaker that are said together by one thread.

    Threads use sessions as ever, each of them one at a time: texts are read and words are told by
    them, frames are made here, a step for everybody who has something to say. A session has a seat
    from its first words to its end, or waits for one.

    Args:
        speaker: the model; on another device than the CPU its weights are copied.
        num_seats: texts at once.
        device: where frames are made; on a CPU it gains nothing.
        max_units: of a sentence in a slot at once; a longer one is told bit by bit.

    Attributes:
        num_steps: until now.
        num_frames: made in them, of all texts.
    """

    def __init__(
        self, speaker: Speaker, num_seats: int, device: torch.device, *, max_units: int = 256
    ) -> None:
        self.speaker, self.device = speaker, device
        network, codec = speaker.network, speaker.codec.network
        if device.type != "cpu":
            network, codec = deepcopy(network).to(device), deepcopy(codec).to(device)
        self.slots = SpeechSlots(network, codec, num_slots=num_seats, max_units=max_units)
        self.no_codes = np.zeros((speaker.config.num_groups, 0), np.int64)
        self.num_steps = self.num_frames = 0
        self._free = deque(range(num_seats))
        self._line: deque[SeatedSpeech] = deque()  # who waits for a seat
        self._seated: set[SeatedSpeech] = set()
        self._told: dict[SeatedSpeech, None] = {}  # who has something new
        self._condition = threading.Condition()
        self._closed = False
        self._buffers = self._make_buffers()
        self.slots.step()  # a graph is captured while nobody else is here
        self._thread = threading.Thread(target=self._work, name="audiossm-speech", daemon=True)
        self._thread.start()

    @property
    def num_free(self) -> int:
        """Seats that nobody has."""
        return len(self._free)

    def session(
        self, *, voice: Voice, speed: float = 1.0, seed: int = 0, sampling: Sampling | None = None
    ) -> SeatedSpeech:
        """Begin a stream of text; see ``Speaker.session``.

        Raises:
            ConfigError: a number that can't be, or another ``top_k`` than the slots have.
        """
        check_speed(speed)
        slower, stretched = share_speed(speed)
        check_seed(seed)
        sampling = sampling or Sampling()
        if sampling.top_k != self.slots.sampling.top_k:
            raise ConfigError(f"top_k is {sampling.top_k}: in seats {self.slots.sampling.top_k}")
        plan = SpeechPlan(
            self.speaker,
            self.speaker.pronouncer,
            voice,
            pace=voice.pace + slower,
            sampling=sampling,
            seed=seed,
        )
        return SeatedSpeech(self, plan, voice, stretched)

    def tell(self, session: SeatedSpeech) -> None:
        """Look at a session before the next turn: it has more text, more room, or is closed."""
        with self._condition:
            self._told[session] = None
            self._condition.notify()

    def close(self) -> None:
        """End the thread; whoever is being said is told so."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    def _make_buffers(self) -> tuple[Tensor, ...]:
        """Return where a turn's results come to: samples, sounds, units and steps."""
        pinned = self.device.type == "cuda"
        parts = (self.slots.said.samples, self.slots.said.sounds, *self.slots.said[3:])
        return tuple(
            torch.empty((TURN_STEPS, *part.shape), dtype=part.dtype, pin_memory=pinned)
            for part in parts
        )

    def _work(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(
                    lambda: self._told or self._closed or any(map(_can_go, self._seated))
                )
                told, self._told = list(self._told), {}
            try:
                if self._closed:
                    raise SessionError("this engine was closed")
                self._settle(told)
                going = [session for session in self._seated if _can_go(session)]
                if going:
                    self._step(going)
            except Exception as exc:  # whoever waits must hear of it
                if not self._closed:
                    logger.exception("a step of speech failed", exc_info=exc)
                self._fail(told, exc)
                if self._closed:
                    return

    def _settle(self, told: list[SeatedSpeech]) -> None:
        """Give and take seats, and tell slots what they are to say."""
        fresh: list[int] = []
        for session in told:
            if session.closed:
                self._leave(session, fresh)
            elif session.place is None and not session.ended and session not in self._line:
                self._line.append(session)
        while self._free and self._line:
            session = self._line.popleft()
            session.place = self._free.popleft()
            self._seated.add(session)
            fresh.append(session.place)
        if fresh:
            self.slots.hush(fresh)
        begin: list[SeatedSpeech] = []
        extend: list[SeatedSpeech] = []
        drain: list[int] = []
        for session in self._seated:
            assert session.place is not None
            if session.is_draining:
                continue
            if session.saying is not None:
                if _wants_more(session):
                    extend.append(session)
                continue
            is_over = session.plan.is_over  # before it is known that no sentence is left
            after = self.slots.config.units_after
            if session.plan.sentences:
                if session.plan.sentences[0].num_ready(after) > 0:
                    session.saying = session.plan.sentences[0]
                    begin.append(session)
            elif is_over:
                session.is_draining = True
                drain.append(session.place)
        if begin:
            self._tell_slots(self.slots.begin, begin)
        if extend:
            self._tell_slots(self.slots.extend, extend)
        if drain:
            self.slots.drain(drain)

    def _tell_slots(
        self, tell: Callable[[list[int], list[SlotScript]], None], sessions: list[SeatedSpeech]
    ) -> None:
        config, scripts, places = self.slots.config, [], []
        for session in sessions:
            assert session.saying is not None and session.place is not None
            script = session.saying.script(
                session.plan.blank, config.units_before, self.slots.max_units
            )
            session.base = session.saying.at
            session.known = session.base + len(script.units) - script.first
            session.ready = session.base + script.num_ready(config.units_after)
            session.knows_all = script.is_whole
            scripts.append(script)
            places.append(session.place)
        tell(places, scripts)

    def _step(self, going: list[SeatedSpeech]) -> None:
        """Make some frames for all who can go on."""
        allowed = torch.zeros(self.slots.num_slots, dtype=torch.bool)
        allowed[[session.place for session in going if session.place is not None]] = True
        self.slots.allow(allowed)
        for step in range(TURN_STEPS):
            said = self.slots.step()
            parts = (said.samples, said.sounds, *said[3:])
            for buffer, part in zip(self._buffers, parts, strict=True):
                buffer[step].copy_(part, non_blocking=True)
        busy = self.slots.busy.cpu().numpy()  # waits for all that
        made = [buffer.numpy() for buffer in self._buffers]
        self.num_steps += TURN_STEPS
        for session in going:
            self._hand_out(session, made, bool(busy[session.place]))

    def _hand_out(self, session: SeatedSpeech, made: list[NDArray[Any]], is_busy: bool) -> None:
        samples, sounds, units, frames = (part[:, session.place].copy() for part in made)
        sentence, units = session.saying, units + session.base
        is_end = session.is_draining and not is_busy
        self.num_frames += int(sounds.sum())
        # in this order: who reads looks at the inbox last
        session.num_made += len(sounds)
        session.inbox.append(Made(samples, sounds, units, frames, sentence, is_end))
        if sentence is not None:
            sentence.at = int(units[-1])
            if not is_busy:
                session.plan.sentences.popleft()
                session.saying = None
                self.tell(session)  # there may be another one
        if is_end:
            self._leave(session, [])
        session.woken()

    def _leave(self, session: SeatedSpeech, places: list[int]) -> None:
        """Free a session's seat, and add it to those that are to be silent."""
        if session in self._line:
            self._line.remove(session)
        if session.place is not None:
            places.append(session.place)
            self._free.append(session.place)
            self._seated.discard(session)
            session.place = None

    def _fail(self, told: list[SeatedSpeech], exc: Exception) -> None:
        """Tell everybody, and begin anew."""
        for session in {*told, *self._line, *self._seated}:
            session.failure = exc
            session.woken()
        self._line.clear()
        for session in list(self._seated):
            self._leave(session, [])


def _can_go(session: SeatedSpeech) -> bool:
    """Whether a session's slot has a step to do that somebody has room for."""
    if session.is_full or session.closed:
        return False
    if session.saying is None:
        return session.is_draining
    return session.knows_all or session.saying.at < session.ready


def _wants_more(session: SeatedSpeech) -> bool:
    """Whether a session's slot is to be told more units of its sentence."""
    sentence = session.saying
    if sentence is None or session.knows_all or session.ready - sentence.at >= FEW_UNITS:
        return False
    return sentence.is_whole or len(sentence.units) > session.known
