"""OpenAI's REST transcription: a file in, its text out."""

import asyncio
from collections.abc import AsyncIterator

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from audiossm.audio import open_audio
from audiossm.errors import AudioError, AudioSSMError, BusyError, ProtocolError
from audiossm.protocol.openai_rest import (
    TranscriptionRequest,
    format_answer,
    format_delta,
    format_error,
)
from audiossm.streaming import Word, WrittenWord
from audiossm_apps.live.listening import listen_to
from audiossm_apps.live.service import Service

__all__ = ["transcribe_upload"]


async def transcribe_upload(request: Request, service: Service) -> Response:
    """Answer one request."""
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        return _refuse(411, "the length of the upload has to be told")
    if int(length) > service.gate.caps.max_upload:
        return _refuse(413, f"an upload has {service.gate.caps.max_upload} bytes at most", "file")
    try:
        form = await request.form(max_files=1, max_fields=30)
    except HTTPException as exc:
        return _refuse(400, str(exc.detail))
    file = form.get("file")
    if not isinstance(file, UploadFile):
        await form.close()
        return _refuse(400, "there is no file", "file")
    fields: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        if isinstance(value, str):
            fields.setdefault(name, []).append(value)
    try:
        asked = TranscriptionRequest.parse(fields)
        reader = await asyncio.to_thread(open_audio, file.file)
    except ProtocolError as exc:
        await form.close()
        return _refuse(400, str(exc), exc.code)
    except AudioError as exc:
        await form.close()
        return _refuse(400, str(exc), "file")
    try:
        listening = await listen_to(service.engine, reader)
    except BusyError as exc:
        await form.close()
        retry = {"Retry-After": str(round(exc.retry_s))}
        return _refuse(503, str(exc), kind="server_error", headers=retry)
    except AudioSSMError as exc:
        await form.close()
        return _refuse(400, str(exc), "file")
    kind = Word if service.engine.transcriber.writer is None else WrittenWord

    async def answer() -> AsyncIterator[str]:
        words: list[Word | WrittenWord] = []
        try:
            async for event in listening.events:
                if isinstance(event, kind):
                    if asked.stream:
                        yield format_delta(event, not words)
                    words.append(event)
            duration_s = listening.num_samples / reader.sample_rate
            yield format_answer(asked, words, duration_s)[1]
        finally:
            await asyncio.to_thread(reader.close)
            await form.close()

    media_type = format_answer(asked, (), 0)[0]
    if asked.stream:
        return StreamingResponse(answer(), media_type=media_type)
    try:
        (body,) = [part async for part in answer()]
    except AudioError as exc:
        return _refuse(400, str(exc), "file")
    except AudioSSMError as exc:
        return _refuse(503, str(exc), kind="server_error")
    return Response(body, media_type=media_type)


def _refuse(
    status: int,
    message: str,
    param: str | None = None,
    kind: str = "invalid_request_error",
    headers: dict[str, str] | None = None,
) -> Response:
    body = format_error(message, param, kind)
    return Response(body, status, headers, media_type="application/json")
