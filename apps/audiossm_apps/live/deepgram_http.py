"""Recordings that are posted as to Deepgram: a file in, its text out."""

import asyncio
import datetime
import hashlib
import tempfile
import uuid

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from audiossm.audio import open_audio
from audiossm.errors import AudioError, AudioSSMError, BusyError, ProtocolError
from audiossm.protocol.deepgram import Settings, format_prerecorded
from audiossm_apps.live.dialect import read_query, to_words
from audiossm_apps.live.listening import listen_to
from audiossm_apps.live.service import Service

__all__ = ["transcribe_posted"]


async def transcribe_posted(request: Request, service: Service) -> Response:
    """Answer a recording in the body of a request."""
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > service.gate.caps.max_upload:
        return PlainTextResponse("the length of the recording has to be told\n", 413)
    try:
        settings = Settings.parse(read_query(request.query_params))
    except ProtocolError as exc:
        return PlainTextResponse(f"{exc}\n", 400)
    digest = hashlib.sha256()
    writes = settings.written and service.engine.transcriber.writer is not None
    with tempfile.SpooledTemporaryFile(1 << 20) as file:
        async for chunk in request.stream():
            digest.update(chunk)
            await asyncio.to_thread(file.write, chunk)
        file.seek(0)
        try:
            with await asyncio.to_thread(open_audio, file) as reader:  # type: ignore[arg-type]
                listening = await listen_to(service.engine, reader, settings.keyterms)
                events = [event async for event in listening.events]
        except BusyError as exc:
            retry = {"Retry-After": str(round(exc.retry_s))}
            return PlainTextResponse(f"{exc}\n", 503, retry)
        except AudioError as exc:
            return PlainTextResponse(f"{exc}\n", 400)
        except AudioSSMError as exc:
            return PlainTextResponse(f"{exc}\n", 503)
    body = format_prerecorded(
        to_words(events, writes),
        settings,
        request_id=str(uuid.uuid4()),
        model=service.model_name,
        sha256=digest.hexdigest(),
        created=datetime.datetime.now(datetime.UTC),
        duration_s=listening.num_samples / reader.sample_rate,
    )
    return Response(body, media_type="application/json")
