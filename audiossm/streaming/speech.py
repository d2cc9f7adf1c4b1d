"""One stream from text to speech, whose whole state is a value."""

import json
import math
from collections import deque
from collections.abc import Iterator
from copy import copy
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from audiossm.audio import Stretch
from audiossm.decoding import sampling as drawing
from audiossm.decoding.sampling import Sampling, draw, end_threshold, outlive
from audiossm.errors import AudioSSMError, ConfigError, SessionError, SnapshotError
from audiossm.models import LoadedGenerator, Voice
from audiossm.pronouncer import Pronouncer
from audiossm.script import Script, ScriptReader, cut_word
from audiossm.streaming.code_maker import CodeMaker
from audiossm.streaming.coding import DecoderSession
from audiossm.streaming.snapshot import Arrays, check_arrays, pack, unpack
from audiossm.streaming.speech_events import Skipped, Sound, SpeechEvent, SpokenWord
from audiossm.streaming.speech_snapshot import identity, pack_voice, unpack_voice
from audiossm.units import ENDS, Unit

__all__ = ["SpeechSession", "flush"]

SENTENCE_ENDS = (".", "?")
# frames of a unit at most, whatever the network says, and of the pause before a sentence
LONGEST_PHONE, LONGEST_PAUSE, LONGEST_LEAD = 40, 75, 10
SLOWEST, FASTEST = 0.25, 4.0
FOLLOWED = 0.32  # the network told to be a half as fast is 0.5 ** 0.32 = 0.8 as fast


# arrays of a snapshot whose sizes change
WAITING = ("decoder", "samples", "codes")
STRETCH = "stretch"  # likewise; at speed 1 there is none
# what a snapshot says of a session in plain numbers
COUNTERS = (
    "finished",
    "ended",
    "age",
    "survival",
    "threshold",
    "num_units",
    "num_frames",
    "num_sounded",
    "num_samples",
    "tail",
    "word_start",
)


class SpeechSession:
    """Says a text that comes in pieces.

    What is said is a function of the text, the options and the seed: not of how the text was cut.
    A phone is said once the units behind it are known that shape it, or the text or the sentence
    has ended. Each sentence is said as a text of its own, if ``restart`` is true: so the last one
    is said as well as the first.

    Args:
        generator: the model.
        pronouncer: says how words are said.
        voice: who speaks.
        speed: 0.25 to 4. What the network says is stretched: asked by its pace to be faster, it is
            so by half of that, and is understood less. Slow speech is understood better by the
            pace, so it is told that, too, and only what is missing is stretched.
        sampling: how freely it is drawn.
        seed: of all that is drawn.
        restart: begin each sentence from the voice's state.
        frames_per_step: of the codec's decoder: 1 gives samples at once, more are faster.

    Raises:
        ConfigError: a number that can't be.
    """

    def __init__(
        self,
        generator: LoadedGenerator,
        pronouncer: Pronouncer,
        voice: Voice,
        *,
        speed: float = 1.0,
        sampling: Sampling | None = None,
        seed: int = 0,
        restart: bool = True,
        frames_per_step: int = 1,
    ) -> None:
        check_speed(speed)
        self.generator, self.voice, self.speed, self.restart = generator, voice, speed, restart
        self.sampling = sampling or Sampling()
        slower, self.stretched = share_speed(speed)
        self.maker = CodeMaker(
            generator,
            voice,
            pace=voice.pace + slower,
            sampling=self.sampling,
            seed=seed,
        )
        self.decoder = DecoderSession(generator.codec, frames_per_step=frames_per_step)
        self.stretch = make_stretch(generator, self.stretched)
        self.reader = ScriptReader(pronouncer)
        self.text, self.at = "", 0  # what came, and how much of it was read
        self.finished = self.ended = False
        self.ahead: deque[Unit] = deque()  # units that are known, and not begun
        self.words: dict[int, str] = {}  # that are known, and not told, by number
        self.before: tuple[tuple[int, int, int], ...] = ()  # rows of the newest units
        self.pending: deque[SpeechEvent] = deque()  # that wait to be taken
        self.unit: Unit | None = None  # the one that is being said
        self.window = np.zeros((generator.config.window, 3), np.int64)
        self.vector = generator.read(self.window)
        self.age, self.survival, self.threshold = 0, 1.0, 0.0
        self.num_units = self.num_frames = self.num_sounded = 0
        self.num_samples = 0  # that the codec made
        self.tail = 0  # steps until the sentence's last frame is whole
        self.word_start: int | None = None  # frame of the word that is being said
        self.last_codes = np.zeros((self.maker.num_groups, 1), np.int64)

    def push(self, text: str) -> Iterator[SpeechEvent]:
        """Take more text and yield what it makes, a frame at a time, as it is asked for.

        The text is taken at once, also if nobody asks. Who stops asking can go on with ``events``.

        Raises:
            SessionError: the session is finished.
        """
        self._check_open()
        self.text = self.text[self.at :] + text if self.at else self.text + text
        self.at = 0
        return self.events()

    def finish(self) -> Iterator[SpeechEvent]:
        """End the text, and yield the rest to the last sample."""
        self._check_open()
        self.finished = True
        return self.events()

    def events(self) -> Iterator[SpeechEvent]:
        """Yield what the text until now makes, from where the last iterator stood."""
        while self.pending or self._advance():
            if self.pending:
                yield self.pending.popleft()

    def fork(self) -> "SpeechSession":
        """Return a second session that goes on from here; neither disturbs the other."""
        fork = copy(self)
        fork.maker, fork.decoder = self.maker.fork(), self.decoder.fork()
        fork.stretch = None if self.stretch is None else self.stretch.fork()
        fork.reader, fork.ahead = replace(self.reader), deque(self.ahead)
        fork.words, fork.pending = dict(self.words), deque(self.pending)
        return fork

    def snapshot(self) -> bytes:
        """Return the session as bytes that ``restore`` goes on from, exactly."""
        header = identity(self.generator) | {"profile": self.profile}
        return pack(self._arrays(), header | {"speech": json.dumps(self._fields())})

    @classmethod
    def restore(
        cls, generator: LoadedGenerator, pronouncer: Pronouncer, data: bytes
    ) -> "SpeechSession":
        """Go on from ``snapshot`` bytes, in this process or another; the voice is in them.

        The state moves between numerics profiles, such as torch and graphs: that is logged.

        Raises:
            SnapshotError: not such a session, or one of another model or version.
        """
        arrays, header = unpack(data, identity(generator))
        try:
            fields = json.loads(header["speech"])
            voice = unpack_voice(generator, fields["voice"], arrays)
            options = fields["options"]
            sampling = Sampling(**options.pop("sampling"))
            session = cls(generator, pronouncer, voice, sampling=sampling, **options)
            decoder, samples, codes = (arrays.pop(name) for name in WAITING)
            stretched = arrays.pop(STRETCH) if session.stretch is not None else np.zeros(0)
            fresh = session._arrays()
            fresh.pop(STRETCH, None)
            check_arrays(arrays, {name: fresh[name] for name in fresh.keys() - set(WAITING)})
            session.decoder = DecoderSession.restore(generator.codec, decoder.tobytes())
            if session.stretch is not None:
                session.stretch.load(stretched)
            session.maker.load(arrays, header["profile"])
            session._load(fields, arrays, samples, codes)
        except (AudioSSMError, KeyError, TypeError, ValueError, AttributeError) as exc:
            if isinstance(exc, SnapshotError):
                raise
            raise SnapshotError(f"the snapshot's header is damaged ({exc!r})") from exc
        return session

    @property
    def profile(self) -> str:
        """Which arithmetic runs: a snapshot names it."""
        return self.maker.stepper.profile

    @property
    def seconds(self) -> float:
        """How long the speech is that was handed out."""
        count = self.num_samples if self.stretch is None else self.stretch.num_out
        return count / self.generator.sample_rate

    def _check_open(self) -> None:
        if self.finished:
            raise SessionError("this session is finished: begin another one")

    def _advance(self) -> bool:
        """Go on by one step, if there is something to say; tell whether anything happened."""
        if self.ended or not self._prepare():
            return False
        if not self.ended:
            (outputs,) = self.maker.stepper.step(self.tell())
            self.take(outputs)
        return True

    def tell(self) -> Tensor:
        """Return what the network is given for the next frame."""
        return self.maker.tell(None if self.tail else self.vector, self.age)

    def take(self, outputs: Tensor) -> None:
        """Take what the network made of ``tell``."""
        num_over = self.maker.num_groups - self.tail if self.tail else 0
        frame = self.maker.take(outputs, num_over=num_over)
        if frame is not None:
            self._sound(frame)
        if self.tail:
            self.tail -= 1
            if not self.tail:
                self._rest()
            return
        self.age, self.num_frames = self.age + 1, self.num_frames + 1
        if self._is_over():
            self._end_unit()

    def _is_over(self) -> bool:
        """Tell whether the unit ends with the newest frame."""
        assert self.unit is not None
        self.survival = outlive(self.survival, self.maker.end_logit)
        longest = LONGEST_PAUSE if self.unit.is_pause else LONGEST_PHONE
        if self.unit.symbol == "_":  # a text asks for it before sentences only
            longest = LONGEST_LEAD
        return self.age >= longest or 1.0 - self.survival >= self.threshold

    def _prepare(self) -> bool:
        """Begin a unit or the sentence's tail, if it is time; false if more text has to come."""
        if self.tail or self.unit is not None:
            return True
        self._read_ahead()
        if self.ahead:
            return self._begin_unit()
        if not self.finished:
            return False
        if self.maker.num_since and self.maker.num_groups > 1:
            self.tail = self.maker.num_groups - 1
            return True
        self._end()
        return True

    def _read_ahead(self) -> None:
        """Read words until enough units are known."""
        enough = self.generator.config.units_after + 1
        while len(self.ahead) < enough and not self._knows_end():
            word, self.text, self.at = cut_word(self.text, self.at)
            if word:
                self._know(self.reader.push(word))
                continue
            if not self.finished:
                return
            if self.at < len(self.text):
                self._know(self.reader.push(self.text[self.at :]))
                self.text, self.at = "", 0
            self._know(self.reader.finish())
            return

    def _knows_end(self) -> bool:
        """Tell whether the end of the sentence is known, beyond which nobody looks."""
        return self.restart and any(unit.symbol in SENTENCE_ENDS for unit in self.ahead)

    def _know(self, script: Script) -> None:
        self.ahead += script.units
        first = self.reader.num_words - len(script.words)
        said = {unit.word for unit in script.units if not unit.is_pause}
        for number, word in enumerate(script.words, first):
            if number in said:
                self.words[number] = word
            else:  # the pronouncer finds it silent
                self.pending.append(Skipped(word))
        self.pending += [Skipped(text) for text in script.skipped]

    def _begin_unit(self) -> bool:
        """Begin to say the next unit, if what shapes it is known."""
        config = self.generator.config
        if not self.maker.num_since and self.ahead[0].symbol != "_":
            self.ahead.appendleft(Unit("_", 0, 0, self.ahead[0].word))
        behind: list[Unit] = []
        for unit in list(self.ahead)[: config.units_after + 1]:
            behind.append(unit)
            if self.restart and unit.symbol in SENTENCE_ENDS:
                break
        else:
            if len(behind) <= config.units_after and not self.finished:
                return False
        rows = [self.generator.row(unit) for unit in behind]
        none = (0, 0, 0)
        before = ((none,) * config.units_before + self.before)[len(self.before) :]
        after = [none] * (config.units_after + 1 - len(rows))
        self.window = np.array([*before, *rows, *after], np.int64)
        self.vector = self.generator.read(self.window)
        self.before = (*self.before, rows[0])[-config.units_before :] if before else ()
        self.unit = self.ahead.popleft()
        self.age, self.survival = 0, 1.0
        uniform = float(draw(self.maker.seed, drawing.ENDS, self.num_units, 1)[0])
        self.threshold = end_threshold(uniform, self.sampling.spread)
        self.num_units += 1
        if self.word_start is None and not self.unit.is_pause:
            self.word_start = self.num_frames
        return True

    def _end_unit(self) -> None:
        unit, self.unit = self.unit, None
        assert unit is not None
        if ends_word(unit, self.ahead[0] if self.ahead else None):
            self._tell_word(unit.word)
        if self.restart and unit.symbol in SENTENCE_ENDS:
            self.tail = self.maker.num_groups - 1
            if not self.tail:
                self._rest()

    def _tell_word(self, number: int) -> None:
        assert self.word_start is not None
        frame_s = self.generator.frame_size / self.generator.sample_rate / self.stretched
        span = self.word_start * frame_s, self.num_frames * frame_s
        self.pending.append(SpokenWord(self.words.pop(number), *span))
        self.word_start = None

    def _rest(self) -> None:
        """Leave the sentence behind."""
        self.maker.restart()
        self.before = ()

    def _sound(self, frame: NDArray[np.int64]) -> None:
        self.last_codes = frame[:, np.newaxis]
        self.num_sounded += 1
        samples = self.decoder.push(self.last_codes[np.newaxis])[0]
        self._put(samples, self.last_codes)

    def _put(self, samples: NDArray[np.float32], codes: NDArray[np.int64]) -> None:
        self.num_samples += len(samples)
        samples = self.voice.amplify(samples)
        if self.stretch is not None:
            samples = self.stretch.push(samples, last=self.ended)
        self.pending.append(Sound(samples, codes))

    def _end(self) -> None:
        """Bring out what the decoder holds back, to the end of the last frame."""
        self.ended = True
        if not self.num_sounded:
            return
        missing = self.num_sounded * self.generator.frame_size - self.num_samples
        self._put(flush(self.decoder, self.last_codes)[:missing], self.last_codes[:, :0])

    def _arrays(self) -> Arrays:
        """Name every array that a snapshot stores."""
        sounds = [event for event in self.pending if isinstance(event, Sound)]
        none = Sound(np.zeros(0, np.float32), self.last_codes[:, :0])
        assert len(sounds) <= 1  # a step makes no more, and waits until it is taken
        waiting = sounds[0] if sounds else none
        stretched = {} if self.stretch is None else {STRETCH: self.stretch.state()}
        return {
            **stretched,
            **self.maker.arrays(),
            **pack_voice(self.voice),
            "window": self.window,
            "last_codes": self.last_codes,
            "samples": waiting.samples,
            "codes": waiting.codes,
            "decoder": np.frombuffer(self.decoder.snapshot(), np.uint8),
        }

    def _fields(self) -> dict[str, Any]:
        """Return what isn't an array, as what JSON can hold."""
        voice, reader = self.voice, self.reader
        return {
            "options": {
                "speed": self.speed,
                "sampling": asdict(self.sampling),
                "seed": self.maker.seed,
                "restart": self.restart,
                "frames_per_step": self.decoder.frames_per_step,
            },
            "voice": [
                *(voice.name, voice.pace, voice.origin, voice.licence),
                *(voice.state is not None, voice.gain_db),
            ],
            "counters": {name: getattr(self, name) for name in COUNTERS},
            "text": self.text[self.at :],
            "reader": [reader.rest, reader.num_words, reader.pause, reader.before],
            "ahead": [_pack_unit(unit) for unit in self.ahead],
            "unit": None if self.unit is None else _pack_unit(self.unit),
            "before": self.before,
            "words": list(self.words.items()),
            "pending": [_pack_event(event) for event in self.pending],
        }

    def _load(
        self,
        fields: dict[str, Any],
        arrays: Arrays,
        samples: NDArray[np.generic],
        codes: NDArray[np.generic],
    ) -> None:
        """Fill a fresh session with a snapshot's fields and arrays."""
        for name in COUNTERS:
            setattr(self, name, fields["counters"][name])
        self.text = str(fields["text"])
        # those of older snapshots end before "before"
        self.reader = ScriptReader(self.reader.pronouncer, *fields["reader"])
        self.ahead = deque(Unit(*unit) for unit in fields["ahead"])
        self.unit = None if fields["unit"] is None else Unit(*fields["unit"])
        self.before = tuple((row[0], row[1], row[2]) for row in fields["before"])
        self.words = dict(fields["words"])
        sound = Sound(np.asarray(samples, np.float32), np.asarray(codes, np.int64))
        kinds = {"word": SpokenWord, "skipped": Skipped}
        self.pending = deque(
            sound if kind == "sound" else kinds[kind](*args) for kind, *args in fields["pending"]
        )
        self.window = np.asarray(arrays["window"], np.int64)
        self.vector = self.generator.read(self.window)
        self.last_codes = np.asarray(arrays["last_codes"], np.int64)


def check_speed(speed: float) -> None:
    """Refuse a speed that can't be.

    Raises:
        ConfigError: it is none from a quarter to four.
    """
    if not SLOWEST <= speed <= FASTEST:
        raise ConfigError(f"speed is {speed}, must be {SLOWEST} to {FASTEST:g}")


def share_speed(speed: float) -> tuple[float, float]:
    """Return what the network's pace is told, and by how much its speech is stretched after that.

    Both together make slow speech ``speed`` times as fast, as nearly as the network does what it
    is told: some per cent.
    """
    return (-math.log(speed), speed ** (1 - FOLLOWED)) if speed < 1 else (0.0, speed)


def make_stretch(generator: LoadedGenerator, speed: float) -> Stretch | None:
    """Return what makes speech faster or slower, if it is to be."""
    return None if speed == 1.0 else Stretch(generator.sample_rate, speed)


def ends_word(unit: Unit, follows: Unit | None) -> bool:
    """Whether a written word ends with a unit, if that one follows."""
    if unit.is_pause or not unit.place & ENDS:
        return False
    return follows is None or follows.is_pause or follows.word != unit.word


def flush(decoder: DecoderSession, codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return what a decoder holds back, and more: what it makes of the last frame once again.

    Args:
        decoder: is finished then.
        codes: (groups, 1) of the last frame.
    """
    codec = decoder.codec
    more = np.repeat(codes, -(-codec.network.delay // codec.config.frame_size), axis=1)
    # one that steps by several frames waits with what it has
    return np.concatenate([decoder.push(more[np.newaxis])[0], decoder.finish()[0]])


def _pack_unit(unit: Unit) -> list[Any]:
    return [unit.symbol, unit.stress, unit.place, unit.word]


def _pack_event(event: SpeechEvent) -> list[Any]:
    match event:
        case Sound():
            return ["sound"]
        case SpokenWord():
            return ["word", event.word, event.start_s, event.end_s]
    return ["skipped", event.text]
