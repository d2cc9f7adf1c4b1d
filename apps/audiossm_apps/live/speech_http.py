"""OpenAI's REST speech: a text in, its sound out while it is made; and which voices there are."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from audiossm.errors import (
    AudioError,
    AudioSSMError,
    BusyError,
    ModelError,
    ProtocolError,
    SessionError,
)
from audiossm.protocol.openai_rest import format_error
from audiossm.protocol.openai_speech import (
    MEDIA_TYPES,
    SpeechRequest,
    format_audio_delta,
    format_audio_done,
    format_speech_error,
)
from audiossm.streaming.speaker import describe_speech, explain_silence
from audiossm.streaming.speech_engine import Packed, SpeechOrder, Told, Utterance
from audiossm_apps.live.packing import make_file_packer
from audiossm_apps.live.service import Service

__all__ = ["answer_speech", "list_voices"]

NOBODY = "this server has no model that speaks"
LEAVING_S = 5.0  # for how long a server that goes down still speaks

logger = logging.getLogger(__name__)


async def list_voices(service: Service) -> Response:
    """Tell the voices, with where they are from; without a model that speaks, none."""
    speech = service.speech
    if speech is None:
        return JSONResponse({"model": None, "default": None, "voices": []})
    speaker = speech.speaker
    voices = await asyncio.to_thread(lambda: [speaker.voice(name) for name in speaker.voices])
    told = [{"name": v.name, "origin": v.origin, "licence": v.licence} for v in voices]
    default = speaker.default_voice or (told[0]["name"] if told else None)
    return JSONResponse({"model": speaker.name, "default": default, "voices": told})


async def answer_speech(request: Request, service: Service, leave: Callable[[], None]) -> Response:
    """Answer one request; ``leave`` is called once its last byte is sent, or nobody reads it."""
    try:
        response = await _answer(request, service, leave)
    except BaseException:
        leave()
        raise
    if not isinstance(response, _Speech):
        leave()
    return response


async def _answer(request: Request, service: Service, leave: Callable[[], None]) -> Response:
    engine = service.speech
    if engine is None:
        return _refuse(404, NOBODY)
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > (limit := service.gate.caps.max_message * 4):
            return _refuse(413, f"the request has more than {limit} bytes, the limit", "input")
    speaker = engine.speaker
    try:
        voices = frozenset(await asyncio.to_thread(lambda: speaker.voices))
        asked = SpeechRequest.parse(body, voices, service.gate.caps.max_input)
    except ProtocolError as exc:
        return _refuse(400, str(exc), exc.code)
    order = SpeechOrder(
        voice=asked.voice, speed=asked.speed, seed=asked.seed, temperature=asked.temperature
    )
    comment = describe_speech(speaker.name)
    try:
        utterance = await engine.begin(
            order, lambda rate: make_file_packer(asked.form, rate, comment)
        )
    except BusyError as exc:
        retry = {"Retry-After": str(round(exc.retry_s))}
        return _refuse(503, str(exc), kind="server_error", headers=retry)
    except ModelError as exc:
        return _refuse(400, str(exc), "voice")
    except AudioError as exc:
        return _refuse(400, f"{asked.form} can't be made here: {exc}", "response_format")
    utterance.push(asked.text)
    utterance.finish()
    # the first bytes decide what is answered
    events = _until_leaving(utterance.events(), service.leaving)
    begun: list[bytes] = []
    try:
        async for told in events:
            if isinstance(told, Packed) and told.data:
                begun.append(told.data)
                break
    except AudioSSMError as exc:
        utterance.close()
        return _refuse(500, str(exc), kind="server_error")
    except BaseException:
        utterance.close()
        raise
    if not begun:
        utterance.close()
        return _refuse(400, explain_silence(asked.text), "input")
    headers = {
        "X-Audiossm-Model": quote(speaker.name),
        "X-Audiossm-Voice": quote(utterance.voice),
        "X-Accel-Buffering": "no",  # a proxy that waits for the end would spoil it
    }
    if asked.notes:
        headers["X-Audiossm-Note"] = "; ".join(asked.notes)
    parts = _tell(events, begun[0], asked, utterance)
    media_type = "text/event-stream" if asked.as_events else MEDIA_TYPES[asked.form]
    return _Speech(parts, media_type, headers, utterance, leave)


async def _until_leaving(
    events: AsyncIterator[Told], leaving: asyncio.Event
) -> AsyncIterator[Told]:
    """Yield what is told, for a while longer if the server goes down.

    Raises:
        SessionError: that while is over.
    """
    end_s = 0.0
    async for told in events:
        if leaving.is_set():
            end_s = end_s or time.monotonic() + LEAVING_S
            if time.monotonic() >= end_s:
                raise SessionError("this server is going down")
        yield told


async def _tell(
    events: AsyncIterator[Told], first: bytes, asked: SpeechRequest, utterance: Utterance
) -> AsyncIterator[bytes]:
    yield format_audio_delta(first).encode() if asked.as_events else first
    try:
        async for told in events:
            if isinstance(told, Packed) and told.data:
                yield format_audio_delta(told.data).encode() if asked.as_events else told.data
    except AudioSSMError as exc:
        if not asked.as_events:
            raise
        yield format_speech_error(str(exc)).encode()
        return
    if asked.as_events:
        frames = utterance.num_samples // utterance.engine.speaker.frame_size
        yield format_audio_done(len(asked.text), frames).encode()


class _Speech(StreamingResponse):
    """A body of speech, whose making stops when nobody reads it any more."""

    def __init__(
        self,
        parts: AsyncIterator[bytes],
        media_type: str,
        headers: dict[str, str],
        utterance: Utterance,
        leave: Callable[[], None],
    ) -> None:
        super().__init__(parts, headers=headers, media_type=media_type)
        self.utterance, self.leave = utterance, leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SessionError as exc:  # a body that breaks off is all that can be told
            logger.warning("speech breaks off: %s", exc)
        finally:
            self.utterance.close()
            self.leave()


def _refuse(
    status: int,
    message: str,
    param: str | None = None,
    kind: str = "invalid_request_error",
    headers: dict[str, str] | None = None,
) -> Response:
    body = format_error(message, param, kind)
    return Response(body, status, headers, media_type="application/json")
