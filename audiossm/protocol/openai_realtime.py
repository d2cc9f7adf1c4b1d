"""OpenAI's Realtime dialect (``/v1/realtime?intent=transcription``), for transcription.

Every message is a JSON object with a ``type``; audio is base64 in it.

| client says | server says |
|---|---|
| (connects) | ``session.created`` |
| ``session.update`` with ``audio.input`` | ``session.updated`` with what holds now |
| ``input_audio_buffer.append`` | events of an item, below, as it is heard |
| ``input_audio_buffer.commit`` | the end of an item |
| ``input_audio_buffer.clear`` | ``input_audio_buffer.cleared``; what wasn't committed is gone |

An item is an utterance: ``input_audio_buffer.speech_started`` and ``speech_stopped`` around it with
turn detection, ``conversation.item.input_audio_transcription.delta`` with each word that became
final, ``input_audio_buffer.committed``, ``conversation.item.added`` and ``done``, and
``...transcription.completed`` with the text of all deltas. Without turn detection a commit ends it.

Formats are ``audio/pcm`` (16 bits, 24000 Hz, or another ``rate`` from 8000 to 48000),
``audio/pcmu`` and ``audio/pcma`` (8000 Hz), fixed by the first audio. ``keywords`` are hot words;
``delay`` chooses how far ahead the model looks; ``silence_duration_ms`` or ``eagerness`` say which
pause ends an utterance. Any ``model`` means the one that is served. ``prompt``,
``noise_reduction``, ``threshold``, ``prefix_padding_ms`` and ``idle_timeout_ms`` are accepted for
the sake of clients and change nothing. ``usage`` counts 100 ms of audio as a token, and each word
as one.

What can't be done is told as ``error``, which changes nothing and leaves the session open. The form
before, ``transcription_session.update`` with ``input_audio_format``, is understood, too; who asks
for it by the header ``OpenAI-Beta`` is answered in it.
"""

import base64
import json
import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiossm.errors import ProtocolError
from audiossm.protocol.encoding import Encoding, decode_samples, sample_width
from audiossm.protocol.heard import Heard, HeardWord

__all__ = ["Audio", "Clear", "Commit", "RealtimeProtocol", "Request", "Settings", "Update"]

FORMATS: dict[str, Encoding] = {"audio/pcm": "s16", "audio/pcmu": "mulaw", "audio/pcma": "alaw"}
OLD_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
LOOKAHEADS = {"minimal": 0, "low": 160, "medium": 320, "high": 320, "xhigh": 320}
PAUSES = {"high": 0.5, "medium": 0.8, "auto": 0.8, "low": 1.6}  # seconds, of each eagerness
LOGPROBS = "item.input_audio_transcription.logprobs"
TRANSCRIPTION = "conversation.item.input_audio_transcription"


@dataclass(frozen=True)
class Settings:
    """What a session was told.

    Attributes:
        format: of the audio, a key of ``FORMATS``.
        sample_rate: Hz.
        transcription: ``model``, ``language``, ``prompt``, ``keywords`` and ``delay``, as told.
        turn_detection: as told; None leaves ends to commits.
        noise_reduction: as told.
        include: as told.
    """

    format: str = "audio/pcm"
    sample_rate: int = 24000
    transcription: dict[str, Any] = field(default_factory=dict)
    turn_detection: dict[str, Any] | None = field(
        default_factory=lambda: {
            "type": "server_vad",
            "threshold": 0.5,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 500,
        }
    )
    noise_reduction: dict[str, Any] | None = None
    include: tuple[str, ...] = ()

    @property
    def keywords(self) -> tuple[str, ...]:
        """Hot words."""
        return tuple(self.transcription.get("keywords") or ())

    @property
    def lookahead_ms(self) -> int:
        """How far the model shall look ahead."""
        return LOOKAHEADS[self.transcription.get("delay") or "high"]

    @property
    def pause_s(self) -> float | None:
        """The pause that ends an utterance; None if commits do."""
        if self.turn_detection is None:
            return None
        if self.turn_detection["type"] == "semantic_vad":
            return PAUSES[self.turn_detection.get("eagerness") or "auto"]
        silence = self.turn_detection.get("silence_duration_ms")
        return 0.5 if silence is None else float(silence) / 1000


@dataclass(frozen=True)
class Update:
    """The settings changed; it is answered by ``updated``."""


@dataclass(frozen=True)
class Audio:
    """Samples (samples,) float32, in the session's rate."""

    samples: NDArray[np.float32]


@dataclass(frozen=True)
class Commit:
    """End the item here."""


@dataclass(frozen=True)
class Clear:
    """Forget what wasn't committed."""


Request = Update | Audio | Commit | Clear


class RealtimeProtocol:
    """A server's end of one connection.

    Args:
        session_id: the session's name, ``sess_...``.
        beta: answer in the form that ``OpenAI-Beta: realtime=v1`` asks for.
    """

    def __init__(self, session_id: str, *, beta: bool = False) -> None:
        self.session_id, self.beta = session_id, beta
        self.settings = Settings()
        self.began = False  # audio came: its format holds
        self.item: str | None = None  # the one that is being heard
        self.speaking = False  # speech_started was told
        self.words: list[HeardWord] = []  # of the item
        self._fresh = False  # audio came after the last commit
        self._previous: str | None = None
        self._num_events = self._num_items = 0
        self._start_s = 0.0  # of the item, or of what isn't committed
        self._half = b""  # a message may end within a sample
        self._client_event: str | None = None

    def greet(self) -> str:
        """Open the session."""
        return self._session("created")

    def updated(self) -> str:
        """Answer an update."""
        return self._session("updated")

    def receive(self, message: str | bytes) -> Request:
        """Return what the client says.

        Raises:
            ProtocolError: nothing of this dialect, or not now; the state is as before. ``error``
                makes the answer of it.
        """
        self._client_event = None
        if isinstance(message, bytes):
            raise ProtocolError("messages are JSON: audio is base64 within it")
        try:
            values = json.loads(message)
        except (ValueError, RecursionError) as exc:
            raise ProtocolError("a message is not JSON", "invalid_json") from exc
        if not isinstance(values, dict):
            raise ProtocolError("a message is not a JSON object", "invalid_json")
        event = values.get("event_id")
        self._client_event = event if isinstance(event, str) else None
        match values.get("type"):
            case "session.update":
                return self._update(_dict(values, "session"))
            case "transcription_session.update":
                return self._update(_modernise(_dict(values, "session")))
            case "input_audio_buffer.append":
                return self._append(values.get("audio"))
            case "input_audio_buffer.commit":
                if not self._fresh:
                    raise ProtocolError(
                        "there is no audio to commit", "input_audio_buffer_commit_empty"
                    )
                return Commit()
            case "input_audio_buffer.clear":
                self._half = b""
                return Clear()
        name = str(values.get("type"))[:60]
        raise ProtocolError(f"{name!r} isn't served: this session transcribes", "unknown_event")

    def hear(self, heard: Heard) -> list[str]:
        """Answer audio."""
        pause_s = self.settings.pause_s
        out = []
        if heard.words or (heard.tail and pause_s is not None):
            out += self._begin(heard, told=pause_s is not None)
        out += self._deltas(heard.words)
        if self.item is not None and pause_s is not None and heard.ends(pause_s):
            out += self.complete((), heard.now_s)
        return out

    def complete(self, words: tuple[HeardWord, ...], now_s: float) -> list[str]:
        """End the item with these words; without one, it is an empty one."""
        out = []
        if self.item is None:
            heard = Heard(words, "", "", now_s, 0.0)
            out += self._begin(heard, told=bool(words) and self.settings.pause_s is not None)
        out += self._deltas(words)
        item = self.item
        if self.speaking:
            end_s = self.words[-1].end_s if self.words else now_s
            out.append(
                self._event(
                    "input_audio_buffer.speech_stopped", item_id=item, audio_end_ms=_ms(end_s)
                )
            )
        place = {"previous_item_id": self._previous}
        out.append(self._event("input_audio_buffer.committed", item_id=item, **place))
        content = {
            "id": item,
            "object": "realtime.item",
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        for name in ("created",) if self.beta else ("added", "done"):
            out.append(self._event(f"conversation.item.{name}", item=content, **place))
        num_audio, num_words = math.ceil((now_s - self._start_s) * 10), len(self.words)
        usage = {
            "type": "tokens",
            "input_tokens": num_audio,
            "output_tokens": num_words,
            "total_tokens": num_audio + num_words,
            "input_token_details": {"audio_tokens": num_audio, "text_tokens": 0},
        }
        text = " ".join(word.text for word in self.words)
        out.append(
            self._event(
                f"{TRANSCRIPTION}.completed",
                item_id=item,
                content_index=0,
                transcript=text,
                usage=usage,
                **self._logprobs(self.words),
            )
        )
        self._previous = item
        self._forget(now_s)
        return out

    def cleared(self, now_s: float) -> str:
        """Forget the item that is being heard, and answer ``Clear``."""
        self._forget(now_s)
        return self._event("input_audio_buffer.cleared")

    def error(self, message: str, code: str, kind: str = "invalid_request_error") -> str:
        """Tell what can't be done about the newest message."""
        fault = {
            "type": kind,
            "code": code,
            "message": message,
            "param": None,
            "event_id": self._client_event,
        }
        return self._event("error", error=fault)

    def _forget(self, now_s: float) -> None:
        self.item, self.words, self.speaking = None, [], False
        self._fresh, self._start_s = False, now_s

    def _begin(self, heard: Heard, told: bool) -> list[str]:
        """Begin an item, unless there is one."""
        if self.item is not None:
            return []
        self._num_items += 1
        self.item = f"item_{self.session_id.removeprefix('sess_')}_{self._num_items}"
        if not told:
            return []
        self.speaking = True
        self._start_s = heard.words[0].start_s if heard.words else heard.now_s
        return [
            self._event(
                "input_audio_buffer.speech_started",
                item_id=self.item,
                audio_start_ms=_ms(self._start_s),
            )
        ]

    def _deltas(self, words: tuple[HeardWord, ...]) -> list[str]:
        out = []
        for word in words:
            out.append(
                self._event(
                    f"{TRANSCRIPTION}.delta",
                    item_id=self.item,
                    content_index=0,
                    delta=f" {word.text}" if self.words else word.text,
                    **self._logprobs([word]),
                )
            )
            self.words.append(word)
        return out

    def _logprobs(self, words: list[HeardWord]) -> dict[str, Any]:
        if LOGPROBS not in self.settings.include:
            return {}
        return {
            "logprobs": [
                {
                    "token": word.text,
                    "bytes": list(word.text.encode()),
                    # a probability can round to 0
                    "logprob": round(math.log(max(word.confidence, 1e-30)), 4),
                }
                for word in words
            ]
        }

    def _append(self, audio: Any) -> Audio:
        if not isinstance(audio, str):
            raise ProtocolError("audio is a text, in base64", "invalid_value")
        try:
            data = self._half + base64.b64decode(audio, validate=True)
        except ValueError as exc:
            raise ProtocolError("audio is not base64", "invalid_value") from exc
        encoding = FORMATS[self.settings.format]
        whole = len(data) // sample_width(encoding) * sample_width(encoding)
        self._half = data[whole:]
        if whole:
            self._fresh = self.began = True
        return Audio(decode_samples(data[:whole], encoding))

    def _update(self, session: dict[str, Any]) -> Update:
        if session.get("type", "transcription") != "transcription":
            raise ProtocolError("this server has sessions of type transcription", "invalid_value")
        settings = self.settings
        given = _dict(_dict(session, "audio", {}), "input", {})
        if given.get("format") is not None:
            settings = _set_format(settings, _dict(given, "format"))
        if "transcription" in given:
            settings = replace(settings, transcription=_read_transcription(given["transcription"]))
        if "turn_detection" in given:
            settings = replace(settings, turn_detection=_read_turns(given["turn_detection"]))
        if "noise_reduction" in given:
            noise = given["noise_reduction"]
            if noise is not None and not isinstance(noise, dict):
                raise ProtocolError("noise_reduction is an object or null", "invalid_value")
            settings = replace(settings, noise_reduction=noise)
        if "include" in session:
            settings = replace(settings, include=_texts("include", session["include"]))
        before = self.settings
        if self.began and (
            (settings.format, settings.sample_rate) != (before.format, before.sample_rate)
            or settings.lookahead_ms != before.lookahead_ms
        ):
            raise ProtocolError("format and delay hold since the first audio", "invalid_value")
        self.settings = settings
        return Update()

    def _session(self, what: str) -> str:
        s = self.settings
        shown = {"id": self.session_id, "object": "realtime.transcription_session"}
        if self.beta:
            old = {new: name for name, new in OLD_FORMATS.items()}
            return self._event(
                f"transcription_session.{what}",
                session=shown
                | {
                    "expires_at": 0,
                    "input_audio_format": old[s.format],
                    "input_audio_transcription": s.transcription,
                    "input_audio_noise_reduction": s.noise_reduction,
                    "turn_detection": s.turn_detection,
                    "include": [*s.include],
                },
            )
        form: dict[str, Any] = {"type": s.format}
        if s.format == "audio/pcm":
            form["rate"] = s.sample_rate
        heard = {
            "format": form,
            "transcription": s.transcription,
            "noise_reduction": s.noise_reduction,
            "turn_detection": s.turn_detection,
        }
        return self._event(
            f"session.{what}",
            session=shown
            | {
                "type": "transcription",
                "expires_at": 0,
                "audio": {"input": heard},
                "include": [*s.include] or None,
            },
        )

    def _event(self, kind: str, **fields: Any) -> str:
        self._num_events += 1
        return json.dumps({"type": kind, "event_id": f"evt_{self._num_events}"} | fields)


def _set_format(settings: Settings, given: dict[str, Any]) -> Settings:
    name, rate = given.get("type", settings.format), given.get("rate")
    if not (isinstance(name, str) and name in FORMATS):
        raise ProtocolError(
            f"format {str(name)[:40]!r} is none of {', '.join(FORMATS)}", "invalid_value"
        )
    usual = 24000 if name == "audio/pcm" else 8000
    if rate is None:
        rate = usual
    allowed = range(8000, 48001) if name == "audio/pcm" else (8000,)
    if not isinstance(rate, int) or isinstance(rate, bool) or rate not in allowed:
        raise ProtocolError(f"{name} has no rate of {str(rate)[:20]} Hz here", "invalid_value")
    return replace(settings, format=name, sample_rate=rate)


def _read_transcription(given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ProtocolError("transcription is an object or null", "invalid_value")
    read: dict[str, Any] = {}
    for name in ("model", "language", "prompt", "delay"):
        value = given.get(name)
        if value is not None and not isinstance(value, str):
            raise ProtocolError(f"{name} is a text", "invalid_value")
        if value is not None:
            read[name] = value
    for name in ("keywords", "languages"):
        if given.get(name) is not None:
            read[name] = [*_texts(name, given[name])]
    if read.get("delay", "high") not in LOOKAHEADS:
        raise ProtocolError(f"delay is none of {', '.join(LOOKAHEADS)}", "invalid_value")
    languages = [name for name in (read.get("language"), *read.get("languages", ())) if name]
    if languages and not any(name.lower().split("-")[0] in ("en", "english") for name in languages):
        raise ProtocolError(
            f"language {languages[0][:20]!r}: this server understands English", "invalid_value"
        )
    return read


def _read_turns(given: Any) -> dict[str, Any] | None:
    if given is None:
        return None
    kinds = ("server_vad", "semantic_vad")
    if not isinstance(given, dict) or given.get("type", "server_vad") not in kinds:
        raise ProtocolError(f"turn_detection is null or one of {', '.join(kinds)}", "invalid_value")
    read: dict[str, Any] = {"type": given.get("type", "server_vad")}
    if read["type"] == "semantic_vad":
        eagerness = given.get("eagerness") or "auto"
        if not (isinstance(eagerness, str) and eagerness in PAUSES):
            raise ProtocolError(f"eagerness is none of {', '.join(PAUSES)}", "invalid_value")
        return read | {"eagerness": eagerness}
    for name in ("threshold", "prefix_padding_ms", "silence_duration_ms", "idle_timeout_ms"):
        value = given.get(name)
        if value is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and 0 <= value <= 60_000):
            raise ProtocolError(f"{name} {str(value)[:20]} is outside 0..60000", "invalid_value")
        read[name] = value
    return read


def _modernise(session: dict[str, Any]) -> dict[str, Any]:
    """Turn the settings of the form before into today's."""
    names = {
        "input_audio_transcription": "transcription",
        "input_audio_noise_reduction": "noise_reduction",
        "turn_detection": "turn_detection",
    }
    given = {new: session[old] for old, new in names.items() if old in session}
    form = session.get("input_audio_format")
    if form is not None:
        if not (isinstance(form, str) and form in OLD_FORMATS):
            raise ProtocolError(
                f"input_audio_format is none of {', '.join(OLD_FORMATS)}", "invalid_value"
            )
        given["format"] = {"type": OLD_FORMATS[form]}
    kept = {"include": session["include"]} if "include" in session else {}
    return {"audio": {"input": given}} | kept


def _dict(values: dict[str, Any], name: str, default: dict[str, Any] | None = None) -> Any:
    value = values.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, dict):
        raise ProtocolError(f"{name} is an object", "invalid_value")
    return value


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        raise ProtocolError(f"{name} is a list of texts", "invalid_value")
    return tuple(value)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
