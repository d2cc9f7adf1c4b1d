"""The dialect of vosk-server: one text reply for each binary message.

| client says | server says |
|---|---|
| ``{"config": {"sample_rate", "words", "max_alternatives", "phrase_list"}}`` | nothing |
| binary: 16 bits, little endian, mono, at 8000 Hz or what was configured | ``{"partial": ...}``; at
an endpoint ``{"result": [{"conf", "start", "end", "word"}], "text": ...}`` |
| ``{"reset": 1}`` | the result of what was heard, and the stream goes on |
| ``{"eof": 1}`` | the last result, then the connection is closed |

A reply says what was heard of its own message: it comes after that was listened to.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiossm.errors import ProtocolError
from audiossm.protocol.encoding import decode_samples
from audiossm.protocol.heard import HeardWord

__all__ = ["Audio", "Config", "Eof", "Request", "Reset", "VoskProtocol"]

# an endpoint is so much silence after a word
ENDPOINT_S = 1.0


@dataclass(frozen=True)
class Config:
    """Settings; None leaves one as it was."""

    sample_rate: int | None
    phrases: tuple[str, ...] | None


@dataclass(frozen=True)
class Audio:
    """Samples (samples,) float32; they get a reply."""

    samples: NDArray[np.float32]


@dataclass(frozen=True)
class Reset:
    """Tell the result now and go on."""


@dataclass(frozen=True)
class Eof:
    """Tell the last result."""


Request = Config | Audio | Reset | Eof


class VoskProtocol:
    """A server's end of one connection."""

    def __init__(self) -> None:
        self.sample_rate = 8000
        self.shows_words = True
        self.max_alternatives = 0
        self.words: list[HeardWord] = []  # of this utterance
        self.ended = False
        self._half = b""  # a message may end within a sample

    def receive(self, message: str | bytes) -> Request:
        """Return what the client says.

        Raises:
            ProtocolError: nothing of this dialect; the state is as before.
        """
        if self.ended:
            raise ProtocolError("a message after eof")
        if isinstance(message, bytes):
            data = self._half + message
            whole = len(data) // 2 * 2
            self._half = data[whole:]
            return Audio(decode_samples(data[:whole], "s16"))
        try:
            values = json.loads(message)
        except (ValueError, RecursionError) as exc:
            raise ProtocolError("a text message is not JSON") from exc
        match values:
            case {"eof": _}:
                self.ended = True
                return Eof()
            case {"reset": _}:
                return Reset()
            case {"config": dict(config)}:
                return self._configure(config)
        raise ProtocolError("a text message is none of config, reset, eof")

    def hear(self, words: Sequence[HeardWord], tail: str, now_s: float) -> str:
        """Reply to audio: the words that became final by it, what isn't final, and the time."""
        self.words += words
        if self.words and not tail and now_s - self.words[-1].end_s >= ENDPOINT_S:
            return self.result()
        text = " ".join([*(word.text for word in self.words), *([tail] if tail else [])])
        return json.dumps({"partial": text})

    def result(self) -> str:
        """Reply with the utterance, and begin another one."""
        words, self.words = self.words, []
        text = " ".join(word.text for word in words)
        timed = [
            {"start": round(word.start_s, 3), "end": round(word.end_s, 3), "word": word.text}
            for word in words
        ]
        if self.max_alternatives:
            best: dict[str, Any] = {"text": text, "confidence": self._confidence(words)}
            if self.shows_words and words:
                best["result"] = timed
            return json.dumps({"alternatives": [best]})
        if not (self.shows_words and words):
            return json.dumps({"text": text})
        scores = [{"conf": round(word.confidence, 4)} for word in words]
        result = [score | item for score, item in zip(scores, timed, strict=True)]
        return json.dumps({"result": result, "text": text})

    def _configure(self, config: dict[str, Any]) -> Config:
        rate = config.get("sample_rate")
        if rate is not None:
            known = isinstance(rate, int | float) and not isinstance(rate, bool)
            if not known or not 8000 <= rate <= 48000:
                raise ProtocolError(f"sample rate {str(rate)[:20]} is outside 8000..48000 Hz")
        phrases = config.get("phrase_list")
        if isinstance(phrases, str):  # old clients send JSON within JSON
            phrases = [word for word in phrases.strip("[]").replace('"', "").split(",") if word]
        if phrases is not None and not (
            isinstance(phrases, list) and all(isinstance(phrase, str) for phrase in phrases)
        ):
            raise ProtocolError("phrase_list is a list of texts")
        self.sample_rate = self.sample_rate if rate is None else round(rate)
        self.shows_words = bool(config.get("words", self.shows_words))
        alternatives = config.get("max_alternatives")
        if isinstance(alternatives, int):
            self.max_alternatives = alternatives
        kept = None if phrases is None else tuple(p for p in phrases if p.strip() != "[unk]")
        return Config(None if rate is None else self.sample_rate, kept)

    def _confidence(self, words: Sequence[HeardWord]) -> float:
        return round(sum(word.confidence for word in words) / len(words), 4) if words else 0.0
