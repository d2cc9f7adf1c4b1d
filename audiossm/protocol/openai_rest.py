"""OpenAI's ``POST /v1/audio/transcriptions``: the fields of a request, and the forms of its answer.

Any ``model`` name means the one that is served. ``prompt``, ``temperature`` and ``include`` are
accepted for the sake of clients and change nothing. Text is as it is written; with
``timestamp_granularities[]=word``, ``verbose_json`` has the words' times.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from audiossm.cues import TimedWord, make_cues
from audiossm.errors import ProtocolError
from audiossm.subtitles import format_srt, format_vtt

__all__ = ["Form", "TranscriptionRequest", "format_answer", "format_delta", "format_error"]

Form = Literal["json", "text", "srt", "verbose_json", "vtt"]
FORMS: tuple[Form, ...] = get_args(Form)
TYPES = {"text": "text/plain", "srt": "application/x-subrip", "vtt": "text/vtt"}


@dataclass(frozen=True)
class TranscriptionRequest:
    """What a request asks for, beside the file."""

    form: Form
    stream: bool
    word_times: bool

    @staticmethod
    def parse(fields: Mapping[str, Sequence[str]]) -> "TranscriptionRequest":
        """Read the fields of a form; each may come several times.

        Raises:
            ProtocolError: ``code`` names the field that is wrong.
        """

        def one(name: str, default: str) -> str:
            return fields[name][-1] if fields.get(name) else default

        form = one("response_format", "json")
        if form not in FORMS:
            raise ProtocolError(
                f"response_format {form[:40]!r} is none of {', '.join(FORMS)}", "response_format"
            )
        language = one("language", "en").lower()
        if language not in ("en", "english") and not language.startswith("en-"):
            raise ProtocolError(
                f"language {language[:40]!r}: this server understands English", "language"
            )
        stream = one("stream", "false").lower()
        if stream not in ("true", "false", "1", "0"):
            raise ProtocolError(f"stream {stream[:40]!r} is neither true nor false", "stream")
        grains = [
            *fields.get("timestamp_granularities[]", ()),
            *fields.get("timestamp_granularities", ()),
        ]
        for grain in grains:
            if grain not in ("word", "segment"):
                raise ProtocolError(
                    f"timestamp granularity {grain[:40]!r} is none of word, segment",
                    "timestamp_granularities",
                )
        return TranscriptionRequest(form, stream in ("true", "1"), "word" in grains)


def format_answer(
    request: TranscriptionRequest, words: Sequence[TimedWord], duration_s: float
) -> tuple[str, str]:
    """Return the media type and the body of an answer."""
    text = " ".join(word.text for word in words)
    usage = {"type": "duration", "seconds": round(duration_s, 3)}
    if request.stream:
        done = {"type": "transcript.text.done", "text": text, "usage": usage}
        return "text/event-stream", _event(done)
    match request.form:
        case "text":
            return TYPES["text"], text + "\n"
        case "srt":
            return TYPES["srt"], format_srt(words)
        case "vtt":
            return TYPES["vtt"], format_vtt(words)
        case "json":
            return "application/json", json.dumps({"text": text, "usage": usage})
    answer: dict[str, Any] = {
        "task": "transcribe",
        "language": "english",
        "duration": round(duration_s, 3),
        "text": text,
        "segments": [
            {
                "id": number,
                "seek": 0,
                "start": round(cue.start_s, 3),
                "end": round(cue.end_s, 3),
                "text": " ".join(cue.lines),
                "tokens": [],
                "temperature": 0.0,
                "avg_logprob": 0.0,
                "compression_ratio": 1.0,
                "no_speech_prob": 0.0,
            }
            for number, cue in enumerate(make_cues(words))
        ],
        "usage": usage,
    }
    if request.word_times:
        answer["words"] = [
            {"word": word.text, "start": round(word.start_s, 3), "end": round(word.end_s, 3)}
            for word in words
        ]
    return "application/json", json.dumps(answer)


def format_delta(word: TimedWord, first: bool) -> str:
    """Return the server-sent event of one word of a streamed answer."""
    delta = word.text if first else f" {word.text}"
    return _event({"type": "transcript.text.delta", "delta": delta})


def format_error(
    message: str, param: str | None = None, kind: str = "invalid_request_error"
) -> str:
    """Return the body of a refusal."""
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": None}})


def _event(value: dict[str, Any]) -> str:
    return f"event: {value['type']}\ndata: {json.dumps(value)}\n\n"
