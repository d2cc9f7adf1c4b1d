"""What is understood of generated speech, and which of its words can't be found in it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audiossm.errors import AlignmentError, DependencyError
from audiossm.evaluate.speech_takes import Take
from audiossm.evaluate.wer import WordErrors, count_word_errors
from audiossm.streaming import Transcriber, Word
from audiossm.streaming.aligner import align_samples
from audiossm.text import normalise_text

__all__ = ["Heard", "Hearing", "LostWord", "hear_takes", "hear_with_pocketsphinx"]

RARE = 0.01  # of the words of recordings are found with less confidence
POCKETSPHINX_RATE = 16000


@dataclass(frozen=True, kw_only=True)
class Heard:
    """A take as a recogniser understands it, and its words laid over it.

    ``confidences`` and ``starts_s`` are those of the text's words, as the aligner counts them; one
    that can't be found, as there is no room for the text, has confidence 0.
    """

    take: Take
    hypothesis: str
    errors: WordErrors
    words: tuple[str, ...]
    confidences: tuple[float, ...]
    starts_s: tuple[float, ...]


@dataclass(frozen=True)
class LostWord:
    """A word that is found with less confidence than all but few words of recordings."""

    key: str
    voice: str
    word: str
    start_s: float
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Hearing:
    """What a recogniser made of sentences that were said, and of recordings of them.

    ``rivals`` are PocketSphinx's errors in both, if it was asked.
    """

    said: tuple[Heard, ...]
    real: tuple[Heard, ...]
    recogniser: str
    rivals: tuple[WordErrors, WordErrors] | None = None

    @property
    def errors(self) -> tuple[WordErrors, WordErrors]:
        """In what was said, and in the recordings."""
        said, real = (
            sum((heard.errors for heard in part), WordErrors()) for part in (self.said, self.real)
        )
        return said, real

    @property
    def ratio(self) -> float | None:
        """Word error rate of what was said over that of recordings; None if the latter is 0."""
        return divide(self.errors)

    @property
    def rival_ratio(self) -> float | None:
        """The same by PocketSphinx; None also if it wasn't asked."""
        return None if self.rivals is None else divide(self.rivals)

    @property
    def least_confidence(self) -> float:
        """Below it are 1 % of the words of recordings."""
        found = [value for heard in self.real for value in heard.confidences]
        return float(np.quantile(found, RARE)) if found else 0.0

    @property
    def lost(self) -> list[LostWord]:
        """The words that are missing, or might as well be."""
        least = self.least_confidence
        return [
            LostWord(heard.take.key, heard.take.voice, *word)
            for heard in self.said
            for word in zip(heard.words, heard.starts_s, heard.confidences, strict=True)
            if word[-1] < least
        ]

    @property
    def lost_share(self) -> float:
        """Of the words that were to be said."""
        return len(self.lost) / max(sum(len(heard.words) for heard in self.said), 1)

    def by_voice(self) -> dict[str, WordErrors]:
        """Return the errors in what each voice said."""
        voices: dict[str, WordErrors] = {}
        for heard in self.said:
            name = heard.take.voice
            voices[name] = voices.get(name, WordErrors()) + heard.errors
        return dict(sorted(voices.items()))

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as a JSON object; rates and shares are fractions."""
        said, real = self.errors
        found: dict[str, Any] = {
            "recogniser": self.recogniser,
            "sentences": len(self.said),
            "said_s": round(sum(heard.take.seconds for heard in self.said), 2),
            "real_s": round(sum(heard.take.seconds for heard in self.real), 2),
            "wer": said.rate,
            "real_wer": real.rate,
            "wer_over_real": self.ratio,
            "errors": name_errors(said),
            "real_errors": name_errors(real),
            "per_voice": {name: name_errors(item) for name, item in self.by_voice().items()},
            "least_confidence": self.least_confidence,
            "lost_share": self.lost_share,
            "lost": [vars(word) for word in self.lost],
            "heard": [
                {
                    "key": heard.take.key,
                    "voice": heard.take.voice,
                    "seconds": round(heard.take.seconds, 2),
                    "real_seconds": round(real.take.seconds, 2),
                    "text": normalise_text(heard.take.text),
                    "said": heard.hypothesis,
                    "real": real.hypothesis,
                }
                for heard, real in zip(self.said, self.real, strict=True)
            ],
        }
        if self.rivals is not None:
            mine, theirs = self.rivals
            found["pocketsphinx"] = {
                "wer": mine.rate,
                "real_wer": theirs.rate,
                "wer_over_real": self.rival_ratio,
            }
        return found


def hear_takes(
    transcriber: Transcriber, takes: Iterable[Take], on_take: Callable[[], None] | None = None
) -> tuple[Heard, ...]:
    """Have takes transcribed, and their texts laid over them.

    Raises:
        DependencyError: jiwer is not installed.
    """
    found = []
    for take in takes:
        session = transcriber.session(take.sample_rate)
        events = [*session.push(take.samples), *session.finish()]
        hypothesis = " ".join(event.word for event in events if isinstance(event, Word))
        found.append(
            Heard(
                take=take,
                hypothesis=hypothesis,
                errors=count_word_errors(take.text, hypothesis),
                **find_words(transcriber, take),
            )
        )
        if on_take is not None:
            on_take()
    return tuple(found)


def find_words(transcriber: Transcriber, take: Take) -> dict[str, Any]:
    """Lay the words of a take's text over it."""
    try:
        alignment = align_samples(
            transcriber, take.samples, take.text, sample_rate=take.sample_rate, phones=False
        )
    except AlignmentError:  # there is no room for it
        words = tuple(normalise_text(take.text).split())
        nothing = (0.0,) * len(words)
        return {"words": words, "confidences": nothing, "starts_s": nothing}
    told = [word for word in alignment.words if word.confidence is not None]
    return {
        "words": tuple(word.word for word in told),
        "confidences": tuple(word.confidence for word in told),
        "starts_s": tuple(round(word.start_s, 3) for word in told),
    }


def hear_with_pocketsphinx(
    takes: Sequence[Take], on_take: Callable[[], None] | None = None
) -> WordErrors:
    """Decode takes with PocketSphinx's default English model, and count its word errors.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import pocketsphinx
    except ImportError as exc:
        raise DependencyError("PocketSphinx is not installed: pip install pocketsphinx") from exc
    decoder = pocketsphinx.Decoder(samprate=POCKETSPHINX_RATE, loglevel="FATAL")
    errors = WordErrors()
    for take in takes:
        data = (take.samples.clip(-1, 1) * 32767).astype("<i2").tobytes()
        decoder.start_utt()
        decoder.process_raw(data, full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        errors += count_word_errors(take.text, found.hypstr if found else "")
        if on_take is not None:
            on_take()
    return errors


def divide(errors: tuple[WordErrors, WordErrors]) -> float | None:
    """Return one word error rate over the other."""
    said, real = errors
    return said.rate / real.rate if real.rate else None


def name_errors(errors: WordErrors) -> dict[str, float]:
    """Return the counts as a JSON object."""
    return {"wer": errors.rate, **vars(errors)}
