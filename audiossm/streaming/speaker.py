"""The generator as people use it: texts whole, streams as sessions, audio that goes on."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiossm import __version__
from audiossm.codec import Codes
from audiossm.decoding.sampling import Sampling
from audiossm.errors import ConfigError, PronunciationError
from audiossm.models import LoadedGenerator, Voice, find_voice, list_voices
from audiossm.models.voices import make_nobody
from audiossm.pronouncer import Pronouncer
from audiossm.streaming.continuation import UNTOLD, continue_sound
from audiossm.streaming.speech import SpeechSession
from audiossm.streaming.speech_events import Skipped, Sound, SpeechEvent, SpokenWord

__all__ = ["Speaker", "Speech"]


@dataclass(frozen=True, kw_only=True)
class Speech:
    """What was said.

    Attributes:
        samples: (samples,) float32, in [-1, 1] or a little beyond.
        sample_rate: Hz.
        words: as they were written, with their times.
        codes: (groups, frames) int64, of which the samples were made.
        skipped: what of the text couldn't be said, in its order.
    """

    samples: NDArray[np.float32]
    sample_rate: int
    words: tuple[SpokenWord, ...]
    codes: NDArray[np.int64]
    skipped: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.sample_rate


class Speaker(LoadedGenerator):
    """A generator with its weights: ``Speaker.load()``, then ``say``, ``session`` or others."""

    @cached_property
    def pronouncer(self) -> Pronouncer:
        """Says how words are said."""
        return Pronouncer.load()

    @property
    def voices(self) -> list[str]:
        """The names of the voices that there are."""
        return list_voices(self)

    def voice(self, voice: str | Path | Voice | None = None) -> Voice:
        """Return a voice by its name or its file; the model's own without one.

        Raises:
            ModelError: there is no such voice, it is damaged or another model's.
        """
        return voice if isinstance(voice, Voice) else find_voice(self, voice)

    def session(
        self,
        *,
        voice: str | Path | Voice | None = None,
        speed: float = 1.0,
        seed: int = 0,
        temperature: float | None = None,
        sampling: Sampling | None = None,
        restart: bool = True,
        frames_per_step: int = 1,
    ) -> SpeechSession:
        """Begin a stream of text; see ``SpeechSession``.

        Args:
            voice: its name or its file; the model's own by default.
            speed: 0.25 to 4, from slow to fast.
            seed: the same one says the same.
            temperature: of codes, 0.7 by default: below, speech varies less; 0 draws no codes.
            sampling: all that can be said of it, instead of the temperature.
            restart: begin each sentence from the voice's state.
            frames_per_step: of the codec: 1 gives samples at once, more are faster.

        Raises:
            ConfigError: a number that can't be.
            ModelError: there is no such voice.
        """
        return SpeechSession(
            self,
            self.pronouncer,
            self.voice(voice),
            speed=speed,
            sampling=choose_sampling(temperature, sampling),
            seed=seed,
            restart=restart,
            frames_per_step=frames_per_step,
        )

    def restore(self, data: bytes) -> SpeechSession:
        """Go on from a session's ``snapshot`` bytes.

        Raises:
            SnapshotError: not such a session, or one of another model or version.
        """
        return SpeechSession.restore(self, self.pronouncer, data)

    def say(
        self,
        text: str,
        *,
        voice: str | Path | Voice | None = None,
        speed: float = 1.0,
        seed: int = 0,
        temperature: float | None = None,
        sampling: Sampling | None = None,
        restart: bool = True,
        frames_per_step: int = 1,
    ) -> Speech:
        """Say a text; options are those of ``session``.

        Raises:
            ConfigError: a number that can't be.
            ModelError: there is no such voice.
            PronunciationError: nothing of the text can be said.
        """
        session = self.session(
            voice=voice,
            speed=speed,
            seed=seed,
            temperature=temperature,
            sampling=sampling,
            restart=restart,
            frames_per_step=frames_per_step,
        )
        speech = self._join([*session.push(text), *session.finish()])
        if not speech.codes.shape[1]:
            raise PronunciationError(explain_silence(text))
        return speech

    def continue_stream(
        self,
        samples: NDArray[np.float32],
        sample_rate: int,
        seconds: float,
        *,
        voice: str | Path | Voice | None = None,
        seed: int = 0,
        temperature: float | None = None,
        sampling: Sampling | None = None,
    ) -> Iterator[Sound]:
        """Yield how a recording goes on, frame by frame; see ``continue_audio``."""
        num_frames = round(seconds * self.sample_rate / self.frame_size)
        if num_frames < 1:
            raise ConfigError(f"{seconds:g} seconds: a frame is the least that can be added")
        return continue_sound(
            self,
            make_nobody(self) if voice is None else self.voice(voice),
            samples,
            sample_rate=sample_rate,
            num_frames=num_frames,
            sampling=choose_sampling(temperature, sampling, UNTOLD),
            seed=seed,
        )

    def continue_audio(
        self,
        samples: NDArray[np.float32],
        sample_rate: int,
        seconds: float,
        *,
        voice: str | Path | Voice | None = None,
        seed: int = 0,
        temperature: float | None = None,
        sampling: Sampling | None = None,
    ) -> Speech:
        """Return how a recording goes on, without the recording itself.

        Args:
            samples: (samples,) float32 in [-1, 1]: the prompt, of any rate.
            sample_rate: Hz.
            seconds: how much to add, in whole frames.
            voice: what the network is told of whoever speaks; nobody's by default. What is added
                is as loud as the prompt: a voice's gain is for texts.
            seed: the same one goes on in the same way.
            temperature: of codes, 1 by default: all as the network says.
            sampling: all that can be said of it, instead of the temperature.

        Raises:
            AudioError: the prompt is shorter than a frame, or has values that aren't samples.
            ConfigError: a number that can't be.
            ModelError: there is no such voice.
        """
        return self._join(
            self.continue_stream(
                samples,
                sample_rate,
                seconds,
                voice=voice,
                seed=seed,
                temperature=temperature,
                sampling=sampling,
            )
        )

    def as_codes(self, speech: Speech) -> Codes:
        """Return what was said as a recording of codes, marked; it knows no gain and no speed."""
        form = self.codec.describe(num_groups=len(speech.codes))
        return Codes(
            form=form,
            codes=speech.codes[np.newaxis],
            num_samples=speech.codes.shape[1] * self.frame_size,
            comment=describe_speech(self.name),
        )

    def _join(self, events: Iterable[SpeechEvent]) -> Speech:
        samples = [np.zeros(0, np.float32)]
        codes = [np.zeros((self.config.num_groups, 0), np.int64)]
        words: list[SpokenWord] = []
        skipped: list[str] = []
        for event in events:
            match event:
                case Sound():
                    samples.append(event.samples)
                    codes.append(event.codes)
                case SpokenWord():
                    words.append(event)
                case Skipped():
                    skipped.append(event.text)
        return Speech(
            samples=np.concatenate(samples),
            sample_rate=self.sample_rate,
            words=tuple(words),
            codes=np.concatenate(codes, axis=1),
            skipped=tuple(skipped),
        )


def choose_sampling(
    temperature: float | None, sampling: Sampling | None, default: Sampling | None = None
) -> Sampling:
    """Return how to draw.

    Raises:
        ConfigError: both are given, or the temperature can't be.
    """
    if sampling is None:
        if temperature is None:
            return default or Sampling()
        if default is None:
            return Sampling(temperature=temperature)
        return replace(default, temperature=temperature, later_temperature=temperature)
    if temperature is not None:
        raise ConfigError("give either a temperature or a sampling, which has one")
    return sampling


def describe_speech(model: str, voice: str = "") -> str:
    """Mark what is generated: the comment of its file."""
    whose = f", voice {voice}" if voice else ""
    return f"generated by audiossm {__version__}, model {model}{whose}"


def explain_silence(text: str) -> str:
    """Say why nothing of a text is said."""
    if not text.strip():
        return "the text is empty: there is nothing to say"
    return f"there is nothing in {text.strip()[:40]!r} that can be said in English"
