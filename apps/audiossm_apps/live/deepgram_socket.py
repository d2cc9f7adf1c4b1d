"""Deepgram's dialect on a websocket, and for recordings that are posted."""

import asyncio
import contextlib
import datetime
import hashlib
import tempfile
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from audiossm.audio import open_audio
from audiossm.errors import AudioError, AudioSSMError, BusyError, ProtocolError
from audiossm.protocol.deepgram import DeepgramProtocol, HeardWord, Settings, format_prerecorded
from audiossm.streaming import News, Word, WrittenWord
from audiossm_apps.live.gate import MessageRate
from audiossm_apps.live.listening import listen_to

if TYPE_CHECKING:
    from audiossm_apps.live.service import Service

__all__ = ["serve_deepgram", "transcribe_posted"]

SILENT_S = 12.0  # without audio or KeepAlive
LOOKAHEAD_MS = 320


async def serve_deepgram(websocket: WebSocket, service: "Service") -> None:
    """Serve one connection that was let in, to its end."""
    request_id = str(uuid.uuid4())
    try:
        settings = Settings.parse(_lists(websocket.query_params))
        protocol = DeepgramProtocol(settings, request_id, service.model_name)
    except ProtocolError as exc:
        await websocket.send_denial_response(PlainTextResponse(f"{exc}\n", 400))
        return
    offered = websocket.scope.get("subprotocols", [])
    chosen = next((name for name in offered if name in ("token", "bearer")), None)
    await websocket.accept(chosen, [(b"dg-request-id", request_id.encode())])
    session = _Session(websocket, service, protocol)
    code, reason = 1000, ""
    leaving = asyncio.create_task(service.leaving.wait())
    talking = asyncio.create_task(session.talk())
    try:
        await asyncio.wait({leaving, talking}, return_when=asyncio.FIRST_COMPLETED)
        if talking.done():
            talking.result()
        else:
            code, reason = 1012, "this server is going down"
    except WebSocketDisconnect:
        code = 0
    except TimeoutError:
        code, reason = 1011, "NET-0001: neither audio nor KeepAlive came"
    except ProtocolError as exc:
        code, reason = 1008, f"DATA-0000: {exc}"
    except BusyError as exc:
        code, reason = 1013, f"retry after {exc.retry_s:g} s"
    except AudioSSMError as exc:
        code, reason = 1011, str(exc)
    finally:
        leaving.cancel()
        talking.cancel()
        await asyncio.gather(leaving, talking, return_exceptions=True)
        if session.name is not None:
            await service.engine.close(session.name)
    service.log("deepgram_end", code=code)
    if code:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await websocket.close(code, reason.encode()[:120].decode(errors="ignore"))


class _Session:
    def __init__(
        self, websocket: WebSocket, service: "Service", protocol: DeepgramProtocol
    ) -> None:
        self.websocket, self.service, self.engine = websocket, service, service.engine
        self.protocol = protocol
        self.rate = MessageRate(service.gate.caps.max_messages_s)
        self.name: str | None = None
        self.digest = hashlib.sha256()
        self.writes = protocol.settings.written and service.engine.transcriber.writer is not None

    async def talk(self) -> None:
        """Answer each message, to the end of the stream."""
        settings, engine = self.protocol.settings, self.engine
        self.name = name = await engine.open(
            sample_rate=settings.sample_rate, lookahead_ms=LOOKAHEAD_MS
        )
        if settings.keyterms:  # those that can't be listened for are refused, and that is all
            await engine.set_hotwords(name, settings.keyterms)
        created = _now()
        while True:
            async with asyncio.timeout(SILENT_S):
                message = await self.websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1005))
            if not self.rate.allows():
                raise ProtocolError(f"more than {self.rate.per_second:g} messages a second")
            text = message.get("text")
            what, value = self.protocol.receive(message["bytes"] if text is None else text)
            match what:
                case "audio":
                    self.digest.update(message["bytes"])
                    await self._hear(name, value)
                case "finalize":
                    words = self._words(await engine.flush(name))
                    await self._send(
                        self.protocol.close_span(words, self._now_s(name), from_finalize=True)
                    )
                case "configure":
                    await self._send(await self._configure(name, value))
                case "close":
                    words = self._words(await engine.finish(name))
                    now_s = self._now_s(name)
                    await self._send(self.protocol.close_span(words, now_s))
                    digest = self.digest.hexdigest()
                    await self._send(self.protocol.metadata(digest, created, now_s))
                    return

    async def _hear(self, name: str, samples: Any) -> None:
        words = self._words(await self.engine.push(name, samples))
        at, now_s = self.engine.progress(name), self._now_s(name)
        self.engine.confirm(name, at.seq)
        if now_s > self.service.gate.caps.max_audio_s:
            raise ProtocolError(f"a stream has {self.service.gate.caps.max_audio_s:g} s at most")
        tail = at.partial if self.writes else at.tail
        replies, ends = self.protocol.hear(words, tail, now_s, LOOKAHEAD_MS / 1000)
        for reply in replies:
            await self._send(reply)
        if ends:
            await self._send(self.protocol.close_span([], now_s, speech_final=True))

    async def _configure(self, name: str, terms: Any) -> str:
        problem = None
        if terms is not None:
            last = (await self.engine.set_hotwords(name, terms))[-1]
            problem = getattr(last.event, "message", None)
        return self.protocol.configured(problem)

    def _now_s(self, name: str) -> float:
        return self.engine.progress(name).received / self.engine.sample_rate(name)

    def _words(self, news: Iterable[News]) -> list[HeardWord]:
        return to_words((item.event for item in news), self.writes)

    async def _send(self, text: str) -> None:
        await self.websocket.send_text(text)


async def transcribe_posted(request: Request, service: "Service") -> Response:
    """Answer a recording in the body of a request."""
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > service.gate.caps.max_upload:
        return PlainTextResponse("the length of the recording has to be told\n", 413)
    try:
        settings = Settings.parse(_lists(request.query_params))
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
        created=_now(),
        duration_s=listening.num_samples / reader.sample_rate,
    )
    return Response(body, media_type="application/json")


def to_words(events: Iterable[object], writes: bool) -> list[HeardWord]:
    """Return the words, as they are written or plain, among events."""
    words = []
    for event in events:
        if isinstance(event, WrittenWord if writes else Word):
            text = event.text if writes else None
            words.append(HeardWord(event.word, event.start_s, event.end_s, event.confidence, text))
    return words


def _lists(query: QueryParams) -> dict[str, list[str]]:
    return {name: query.getlist(name) for name in query}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
