"""Deepgram's live dialect, version 1 (``/v1/listen``), of samples, or of Opus in Ogg or WebM.

Settings are in the query: see ``Settings``. Binary messages are audio; text messages are

| client says | server says |
|---|---|
| ``KeepAlive`` | nothing |
| ``Finalize`` | ``Results`` with ``from_finalize``, always one |
| ``Configure`` with ``keyterms`` | ``ConfigureSuccess``, or ``ConfigureFailure`` |
| ``CloseStream`` | the last ``Results``, ``Metadata``, and the connection is closed |

Results that are final tile the audio; one that isn't repeats all that isn't final yet.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiossm.errors import ProtocolError
from audiossm.protocol.encoding import OPUS_RATE, Encoding, Opus, decode_samples, sample_width
from audiossm.protocol.heard import Heard, HeardWord

__all__ = [
    "Audio",
    "Close",
    "Configure",
    "DeepgramProtocol",
    "Finalize",
    "KeepAlive",
    "Request",
    "Settings",
    "format_prerecorded",
]

ENCODINGS: dict[str, Encoding] = {"linear16": "s16", "mulaw": "mulaw", "alaw": "alaw"}
CONTAINERS = ("opus", "ogg-opus", "webm-opus")  # or nothing is said
# an answer without these would be another one than was asked for
UNSUPPORTED = ("callback", "redact", "search", "replace", "diarize", "multichannel", "translate")
NO = ("", "false", "0")


@dataclass(frozen=True)
class Settings:
    """What the query asks for.

    Attributes:
        encoding: ``linear16``, ``mulaw`` or ``alaw``; None is Opus in Ogg or WebM.
        sample_rate: Hz; that of Opus is its own.
        interim_results: tell what isn't final, too.
        written: ``punctuate`` or ``smart_format``: text as people write it.
        endpointing_s: so much silence after a word ends an utterance; None never does.
        utterance_end_s: so much silence is told as ``UtteranceEnd``; None isn't.
        vad_events: tell ``SpeechStarted``.
        keyterms: hot words.
    """

    encoding: Encoding | None
    sample_rate: int
    interim_results: bool
    written: bool
    endpointing_s: float | None
    utterance_end_s: float | None
    vad_events: bool
    keyterms: tuple[tuple[str, float], ...]

    @staticmethod
    def parse(query: Mapping[str, Sequence[str]]) -> "Settings":
        """Read a query; each name may come several times.

        Raises:
            ProtocolError: something that isn't served.
        """

        def one(name: str, default: str) -> str:
            return query[name][-1] if query.get(name) else default

        for name in UNSUPPORTED:
            if one(name, "false").lower() not in NO:
                raise ProtocolError(f"{name} isn't served here")
        language = one("language", "en").lower()
        if language.partition("-")[0] not in ("en", "multi"):
            raise ProtocolError(f"language {language[:20]!r}: this server understands English")
        name = one("encoding", "")
        if name and name not in (*ENCODINGS, *CONTAINERS):
            known = ", ".join((*ENCODINGS, *CONTAINERS))
            raise ProtocolError(f"encoding {name[:20]!r} is none of {known}")
        if one("channels", "1") != "1":
            raise ProtocolError("a live stream has one channel here")
        rate = one("sample_rate", "16000")
        if not (rate.isdecimal() and len(rate) < 6 and 8000 <= int(rate) <= 48000):
            raise ProtocolError(f"sample_rate {rate[:20]!r} is outside 8000..48000")
        terms = [(term, 1.0) for term in query.get("keyterm", ())]
        for keyword in query.get("keywords", ()):
            word, _, _ = keyword.partition(":")
            terms.append((word, 1.0))
        return Settings(
            encoding=ENCODINGS.get(name),
            sample_rate=int(rate) if name in ENCODINGS else OPUS_RATE,
            interim_results=one("interim_results", "false").lower() not in NO,
            written=any(one(k, "false").lower() not in NO for k in ("punctuate", "smart_format")),
            endpointing_s=_milliseconds("endpointing", one("endpointing", "10")),
            utterance_end_s=_milliseconds("utterance_end_ms", one("utterance_end_ms", "false")),
            vad_events=one("vad_events", "false").lower() not in NO,
            keyterms=tuple(terms),
        )


def _milliseconds(name: str, text: str) -> float | None:
    if text.lower() == "false":
        return None
    if text.lower() == "true":
        return 0.01
    if not (text.isdecimal() and len(text) < 7):
        raise ProtocolError(f"{name} {text[:20]!r} is no number of milliseconds")
    return int(text) / 1000


@dataclass(frozen=True)
class Audio:
    """Samples (samples,) float32."""

    samples: NDArray[np.float32]


@dataclass(frozen=True)
class KeepAlive:
    """Nothing, but that somebody is there."""


@dataclass(frozen=True)
class Finalize:
    """Tell all that can be told now."""


@dataclass(frozen=True)
class Configure:
    """Have these hot words from here on; None leaves them as they are."""

    keyterms: tuple[tuple[str, float], ...] | None


@dataclass(frozen=True)
class Close:
    """Tell the rest."""


Request = Audio | Opus | KeepAlive | Finalize | Configure | Close


class DeepgramProtocol:
    """A server's end of one connection."""

    def __init__(self, settings: Settings, request_id: str, model: str) -> None:
        self.settings, self.request_id, self.model = settings, request_id, model
        self.words: list[HeardWord] = []  # told, and not final yet
        self.start_s = 0.0  # of what isn't final
        self.keyterms: tuple[tuple[str, float], ...] = settings.keyterms
        self.ended = False
        self._half = b""
        self._last_end_s: float | None = None
        self._speaking = False
        self._told = ""

    def receive(self, message: str | bytes) -> Request:
        """Return what the client says.

        Raises:
            ProtocolError: nothing of this dialect.
        """
        if self.ended:
            raise ProtocolError("a message after CloseStream")
        encoding = self.settings.encoding
        if isinstance(message, bytes):
            if encoding is None:
                return Opus(message)
            data, width = self._half + message, sample_width(encoding)
            whole = len(data) // width * width
            self._half = data[whole:]
            return Audio(decode_samples(data[:whole], encoding))
        try:
            values = json.loads(message)
        except (ValueError, RecursionError) as exc:
            raise ProtocolError("a text message is not JSON") from exc
        match values:
            case {"type": "KeepAlive"}:
                return KeepAlive()
            case {"type": "Finalize"}:
                return Finalize()
            case {"type": "CloseStream"}:
                self.ended = True
                return Close()
            case {"type": "Configure"}:
                terms = values.get("keyterms")
                if terms is not None:
                    if not (isinstance(terms, list) and all(isinstance(t, str) for t in terms)):
                        raise ProtocolError("keyterms is a list of texts")
                    self.keyterms = tuple((term, 1.0) for term in terms)
                return Configure(None if terms is None else self.keyterms)
        raise ProtocolError("type is none of KeepAlive, Finalize, Configure, CloseStream")

    def hear(self, heard: Heard) -> list[str]:
        """Answer audio."""
        out, settings = [], self.settings
        self.words += heard.words
        if (heard.words or heard.pending) and not self._speaking:
            self._speaking = True
            if settings.vad_events:
                at = heard.words[0].start_s if heard.words else heard.now_s
                out.append(_dump({"type": "SpeechStarted", "channel": [0], "timestamp": at}))
        if heard.words:
            self._last_end_s = heard.words[-1].end_s
        endpoint_s, end_s = settings.endpointing_s, settings.utterance_end_s
        ends = endpoint_s is not None and bool(self.words) and heard.ends(endpoint_s)
        if settings.interim_results and not ends:
            text = self._text(heard.pending)
            if text != self._told:
                self._told = text
                out.append(self._results(heard.pending, heard.now_s, is_final=False))
        if end_s is not None and self._speaking and self._last_end_s and heard.ends(end_s):
            self._speaking = False
            last = {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": self._last_end_s}
            if not self.words:
                out.append(_dump(last))
        return [*out, self.close_span((), heard.now_s, speech_final=True)] if ends else out

    def close_span(
        self,
        words: Sequence[HeardWord],
        now_s: float,
        *,
        speech_final: bool = False,
        from_finalize: bool = False,
    ) -> str:
        """Tell all until here as final."""
        self.words += words
        if words:
            self._last_end_s = words[-1].end_s
        text = self._results(
            "", now_s, is_final=True, speech_final=speech_final, from_finalize=from_finalize
        )
        self.words, self.start_s, self._told = [], now_s, ""
        return text

    def metadata(self, sha256: str, created: datetime.datetime, duration_s: float) -> str:
        """Tell the end."""
        return _dump(
            {
                "type": "Metadata",
                "transaction_key": "deprecated",
                "request_id": self.request_id,
                "sha256": sha256,
                "created": _format_time(created),
                "duration": round(duration_s, 4),
                "channels": 1,
            }
        )

    def configured(self, problem: str | None) -> str:
        """Answer ``Configure``."""
        if problem is not None:
            failure = {"code": "UNSUPPORTED", "description": problem}
            return _dump({"type": "ConfigureFailure", "request_id": self.request_id} | failure)
        return _dump(
            {
                "type": "ConfigureSuccess",
                "request_id": self.request_id,
                "keyterms": [term for term, _ in self.keyterms],
            }
        )

    def _text(self, tail: str) -> str:
        return " ".join([*(word.text for word in self.words), *tail.split()])

    def _results(
        self,
        tail: str,
        now_s: float,
        *,
        is_final: bool,
        speech_final: bool = False,
        from_finalize: bool = False,
    ) -> str:
        guessed = [HeardWord(word, now_s, now_s, 0.5) for word in tail.split()]
        words = [*self.words, *guessed]
        return _dump(
            {
                "type": "Results",
                "channel_index": [0, 1],
                "start": round(self.start_s, 4),
                "duration": round(now_s - self.start_s, 4),
                "is_final": is_final,
                "speech_final": speech_final,
                "from_finalize": from_finalize,
                "channel": {"alternatives": [_alternative(words, self.settings.written)]},
                "metadata": {
                    "request_id": self.request_id,
                    "model_uuid": self.request_id,
                    "model_info": {"name": self.model, "version": "1", "arch": "mamba3"},
                },
            }
        )


def format_prerecorded(
    words: Sequence[HeardWord],
    settings: Settings,
    *,
    request_id: str,
    model: str,
    sha256: str,
    created: datetime.datetime,
    duration_s: float,
) -> str:
    """Return the answer to a recording that was posted."""
    return _dump(
        {
            "metadata": {
                "transaction_key": "deprecated",
                "request_id": request_id,
                "sha256": sha256,
                "created": _format_time(created),
                "duration": round(duration_s, 4),
                "channels": 1,
                "models": [request_id],
                "model_info": {request_id: {"name": model, "version": "1", "arch": "mamba3"}},
            },
            "results": {"channels": [{"alternatives": [_alternative(words, settings.written)]}]},
        }
    )


def _alternative(words: Sequence[HeardWord], written: bool) -> dict[str, Any]:
    scores = [word.confidence for word in words]
    return {
        "transcript": " ".join(word.text for word in words),
        "confidence": round(sum(scores) / len(scores), 4) if scores else 0.0,
        "words": [
            {
                "word": word.plain or word.text,
                "start": round(word.start_s, 4),
                "end": round(word.end_s, 4),
                "confidence": round(word.confidence, 4),
            }
            | ({"punctuated_word": word.text} if written else {})
            for word in words
        ],
    }


def _format_time(time: datetime.datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def _dump(value: dict[str, Any]) -> str:
    return json.dumps(value)
