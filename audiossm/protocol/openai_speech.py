"""OpenAI's REST dialect for speech: ``POST /v1/audio/speech`` with a JSON object.

| field | what it does |
|---|---|
| ``input`` | the text, 100000 characters (some two hours) at most; OpenAI's limit is 4096 |
| ``voice`` | a name, or an object with an ``id``; OpenAI's own names are the model's own voice |
| ``model`` | nothing: there is one |
| ``response_format`` | ``mp3`` (the default), ``opus``, ``flac``, ``wav`` or ``pcm``; no ``aac`` |
| ``speed`` | 0.25 to 4 |
| ``stream_format`` | ``audio``: the bytes; ``sse``: events with the bytes in base64 |
| ``instructions`` | nothing; a header says so |
| ``seed``, ``temperature`` | of this server's own |

``pcm`` is 16 bits, little endian, mono, at 24000 Hz, as clients expect it. The body is sent while
it is made. Events are ``speech.audio.delta`` with ``audio``, then ``speech.audio.done`` with
``usage``.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

from audiossm.errors import ProtocolError
from audiossm.protocol.speak import HOTTEST, SPEEDS

__all__ = [
    "MAX_INPUT",
    "MEDIA_TYPES",
    "OPENAI_VOICES",
    "PCM_RATE",
    "SoundForm",
    "SpeechRequest",
    "format_audio_delta",
    "format_audio_done",
    "format_speech_error",
]

SoundForm = Literal["mp3", "opus", "flac", "wav", "pcm"]
FORMS: tuple[SoundForm, ...] = get_args(SoundForm)
MEDIA_TYPES: dict[SoundForm, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg; codecs=opus",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm; rate=24000",
}
PCM_RATE = 24000
MAX_INPUT = 100_000  # characters of one request, by default
MAX_SEED = 2**53
# names that clients have built in
OPENAI_VOICES = frozenset(
    "alloy ash ballad cedar coral echo fable marin nova onyx sage shimmer verse".split()
)


@dataclass(frozen=True, kw_only=True)
class SpeechRequest:
    """What a request asks for.

    Attributes:
        voice: a name; None is the model's own.
        notes: what of the request does nothing, in words.
    """

    text: str
    voice: str | None = None
    form: SoundForm = "mp3"
    speed: float = 1.0
    seed: int = 0
    temperature: float | None = None
    as_events: bool = False
    notes: tuple[str, ...] = ()

    @staticmethod
    def parse(
        body: bytes, voices: frozenset[str] = frozenset(), max_input: int = MAX_INPUT
    ) -> "SpeechRequest":
        """Read the body of a request.

        Args:
            body: JSON.
            voices: names that the model has, which go before OpenAI's.
            max_input: characters at most.

        Raises:
            ProtocolError: ``code`` names the field that is wrong.
        """
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError) as exc:
            raise ProtocolError("the body is not JSON", "body") from exc
        if not isinstance(fields, dict):
            raise ProtocolError("the body is not a JSON object", "body")
        notes: list[str] = []
        text = fields.get("input")
        if not isinstance(text, str):
            raise ProtocolError("there is no text to say in 'input'", "input")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ProtocolError("'input' has half a pair of surrogates", "input") from None
        if len(text) > max_input:
            raise ProtocolError(
                f"'input' has {len(text)} characters; {max_input} are the limit: longer texts are "
                "for /v1/speak, in pieces, or for audiossm generate",
                "input",
            )
        form = _choose(fields, "response_format", FORMS, "mp3")
        if fields.get("instructions"):
            notes.append("instructions are ignored")
        return SpeechRequest(
            text=text,
            voice=_read_voice(fields.get("voice"), voices, notes),
            form=form,
            speed=_read_number(fields, "speed", *SPEEDS) or 1.0,
            seed=_read_seed(fields.get("seed")),
            temperature=_read_number(fields, "temperature", 0.0, HOTTEST),
            as_events=_choose(fields, "stream_format", ("audio", "sse"), "audio") == "sse",
            notes=tuple(notes),
        )


def format_audio_delta(data: bytes) -> str:
    """Return the server-sent event of the next bytes."""
    return _event({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})


def format_audio_done(num_characters: int, num_frames: int) -> str:
    """Return the last server-sent event; what is counted are characters and the model's frames."""
    usage = {
        "input_tokens": num_characters,
        "output_tokens": num_frames,
        "total_tokens": num_characters + num_frames,
    }
    return _event({"type": "speech.audio.done", "usage": usage})


def format_speech_error(message: str) -> str:
    """Return the server-sent event of a failure in the middle."""
    error = {"message": message, "type": "server_error", "param": None, "code": None}
    return _event({"type": "error", "error": error})


def _read_voice(value: Any, voices: frozenset[str], notes: list[str]) -> str | None:
    if isinstance(value, dict):
        value = value.get("id")
    if value is None or value in ("", "default"):
        return None
    if not isinstance(value, str):
        raise ProtocolError("'voice' is neither a name nor an object with an id", "voice")
    if value not in voices and value in OPENAI_VOICES:
        notes.append(f"voice {value} is not here: it is the model's own")
        return None
    return value


def _read_number(fields: dict[str, Any], name: str, low: float, high: float) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ProtocolError(
            f"{name} {str(value)[:40]!r} is no number from {low:g} to {high:g}", name
        )
    return float(value)


def _read_seed(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEED:
        raise ProtocolError(f"seed {str(value)[:40]!r} is no whole number from 0 up", "seed")
    return value


def _choose(fields: dict[str, Any], name: str, choices: tuple[Any, ...], default: str) -> Any:
    value = fields.get(name)
    if value is None:
        return default
    if value not in choices:
        known = ", ".join(choices)
        raise ProtocolError(f"{name} {str(value)[:40]!r} is none of {known}", name)
    return value


def _event(value: dict[str, Any]) -> str:
    return f"event: {value['type']}\ndata: {json.dumps(value)}\n\n"
