"""Sentences that a generator says to be measured; a folder keeps them to be heard again."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from audiossm.audio import write_audio
from audiossm.decoding.sampling import Sampling
from audiossm.errors import ConfigError
from audiossm.evaluate.coders import draw_losses, run_codec
from audiossm.evaluate.recording import read_recording
from audiossm.manifest import Utterance
from audiossm.models import Voice
from audiossm.streaming import Speaker
from audiossm.streaming.code_files import FRAMES_PER_STEP

__all__ = ["Manner", "Studio", "Take", "cycle", "read_text"]

FULL = 2.0**15
NOBODY = "_nobody"  # no voice can have this name
ABOUT = "takes.json"

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How sentences are said."""

    sampling: Sampling = field(default_factory=Sampling)
    speed: float = 1.0
    restart: bool = True
    seed: int = 0  # of the first sentence; the next one's is one more


@dataclass(frozen=True, kw_only=True)
class Take:
    """A sentence that was said, or a recording of one that went through the codec."""

    key: str
    text: str
    voice: str  # empty: nobody's, or a recording's
    samples: Floats  # as 16 bits hold them
    sample_rate: int
    processing_s: float | None = None  # None: it came from the folder

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.sample_rate


class Studio:
    """Says sentences, and brings recordings through the generator's codec.

    Args:
        speaker: the generator.
        manner: how it speaks.
        folder: where takes are kept and looked for, ``VOICE/KEY.wav``.
        on_take: is called after each of them.

    Raises:
        ConfigError: the folder has takes of another model or manner.
    """

    def __init__(
        self,
        speaker: Speaker,
        manner: Manner,
        folder: Path | None = None,
        on_take: Callable[[Take], None] | None = None,
    ) -> None:
        self.speaker, self.manner, self.folder, self.on_take = speaker, manner, folder, on_take
        if folder is not None:
            self._claim(folder / ABOUT)

    @property
    def about(self) -> dict[str, Any]:
        """The manner, as a JSON object."""
        return asdict(self.manner)

    def say(self, utterance: Utterance, voice: Voice, number: int) -> Take:
        """Say a sentence; ``number`` is its place among those that are said."""
        text = read_text(utterance)
        samples, spent_s = self._find(voice.name or NOBODY, utterance.key), None
        if samples is None:
            started = time.perf_counter()
            speech = self.speaker.say(
                text,
                voice=voice,
                speed=self.manner.speed,
                seed=self.manner.seed + number,
                sampling=self.manner.sampling,
                restart=self.manner.restart,
                frames_per_step=FRAMES_PER_STEP,
            )
            spent_s = time.perf_counter() - started
            samples = self._keep(voice.name or NOBODY, utterance.key, speech.samples)
        return self._tell(
            Take(
                key=utterance.key,
                text=text,
                voice=voice.name,
                samples=samples,
                sample_rate=self.speaker.sample_rate,
                processing_s=spent_s,
            )
        )

    def replay(self, utterance: Utterance) -> Take:
        """Send a recording through the codec, with as many groups as the generator makes."""
        rate = self.speaker.sample_rate
        samples = self._find("_real", utterance.key)
        if samples is None:
            original = read_recording(utterance).at_rate(rate)
            coded = run_codec(
                self.speaker.codec,
                self.speaker.config.num_groups,
                FRAMES_PER_STEP,
                torch.from_numpy(original),
                draw_losses(utterance.key, len(original), 0.0),
            )
            samples = self._keep("_real", utterance.key, coded.samples.numpy())
        text = read_text(utterance)
        take = Take(key=utterance.key, text=text, voice="", samples=samples, sample_rate=rate)
        return self._tell(take)

    def _tell(self, take: Take) -> Take:
        if self.on_take is not None:
            self.on_take(take)
        return take

    def _claim(self, path: Path) -> None:
        here = {"model": self.speaker.hash, "codec": self.speaker.codec.hash, **self.about}
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(here), encoding="utf-8")
            return
        except (OSError, ValueError) as exc:
            raise ConfigError(f"{path}: doesn't say of what these takes are ({exc})") from exc
        if there != here:
            raise ConfigError(
                f"{path.parent} has takes of {json.dumps(there)}, but these are of "
                f"{json.dumps(here)}: give another folder"
            )

    def _find(self, whose: str, key: str) -> Floats | None:
        if self.folder is None:
            return None
        path = self.folder / whose / f"{key}.wav"
        if not path.exists():
            return None
        return read_recording(Utterance(key=key, text="", path=path)).samples

    def _keep(self, whose: str, key: str, samples: Floats) -> Floats:
        """Round to 16 bits, as a file does: takes from files are measured as others are."""
        rounded = np.clip(np.rint(samples * FULL), -FULL, FULL - 1).astype(np.float32) / FULL
        if self.folder is not None:
            path = self.folder / whose / f"{key}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_audio(path, rounded[np.newaxis], self.speaker.sample_rate)
        kept: Floats = rounded.astype(np.float32)
        return kept


def read_text(utterance: Utterance) -> str:
    """Return what is to be said: in small letters if all are capitals, which would be spelled."""
    return utterance.text.lower() if utterance.text.isupper() else utterance.text


def cycle(voices: Sequence[Voice], number: int) -> Voice:
    """Return whose turn it is to say a sentence."""
    return voices[number % len(voices)]
