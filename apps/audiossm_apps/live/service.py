"""The live service as an ASGI application: one engine, one port, several dialects."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from audiossm.protocol.openai_rest import format_error
from audiossm.streaming import Engine
from audiossm_apps.live.deepgram_http import transcribe_posted
from audiossm_apps.live.deepgram_socket import serve_deepgram
from audiossm_apps.live.gate import Gate
from audiossm_apps.live.kyutai_socket import serve_kyutai
from audiossm_apps.live.metrics import write_metrics
from audiossm_apps.live.native_socket import serve_native
from audiossm_apps.live.openai_http import transcribe_upload
from audiossm_apps.live.page_files import page_routes
from audiossm_apps.live.realtime_socket import serve_realtime
from audiossm_apps.live.sherpa_socket import serve_sherpa
from audiossm_apps.live.vosk_socket import serve_vosk

__all__ = ["Service"]

logger = logging.getLogger("audiossm.service")
Handler = Callable[[WebSocket, "Service"], Awaitable[None]]


class Service:
    """Everything that is served, around one engine, which begins and ends with it.

    ``app`` is the ASGI application.
    """

    def __init__(self, engine: Engine, gate: Gate | None = None) -> None:
        self.engine, self.gate = engine, gate or Gate()
        self.model_name = engine.transcriber.name
        self.ready = False
        self.leaving, self.drained = asyncio.Event(), asyncio.Event()
        self.num_connections = 0
        self.app = Starlette(routes=self._routes(), lifespan=self._live)

    def _routes(self) -> list[Route | WebSocketRoute]:
        return [
            *page_routes(),
            Route("/healthz", self._health),
            Route("/readyz", self._readiness),
            Route("/metrics", self._metrics),
            Route("/v1/audio/transcriptions", self._upload, methods=["POST"]),
            WebSocketRoute("/v1/stream", self._socket(serve_native)),
            Route("/v1/listen", self._posted, methods=["POST"]),
            WebSocketRoute("/v1/realtime", self._socket(serve_realtime)),
            WebSocketRoute("/v1/listen", self._socket(serve_deepgram)),
            WebSocketRoute("/sherpa", self._socket(serve_sherpa)),
            WebSocketRoute("/api/asr-streaming", self._socket(serve_kyutai)),
            WebSocketRoute("/", self._socket(serve_vosk)),
            WebSocketRoute("/vosk", self._socket(serve_vosk)),
        ]

    @contextlib.asynccontextmanager
    async def _live(self, _: Starlette) -> AsyncIterator[None]:
        async with self.engine:
            self.ready = True
            self.log("ready", model=self.model_name, capacity=self.engine.capacity)
            yield
            self.ready = False
            await self.drain()
            self.log("stopped")

    async def drain(self, timeout_s: float = 10.0) -> None:
        """Let nobody in, keep every stream, and tell all clients to go on elsewhere."""
        if self.leaving.is_set():
            await self.drained.wait()
            return
        self.log("draining", connections=self.num_connections)
        self.leaving.set()
        await asyncio.sleep(0)  # readers stop
        await self.engine.drain(timeout_s)
        await asyncio.sleep(0)  # the outcome is taken up
        self.drained.set()
        until = time.monotonic() + 2.0
        while self.num_connections and time.monotonic() < until:
            await asyncio.sleep(0.02)

    def log(self, event: str, **fields: Any) -> None:
        """Write a line of JSON, never with audio or text in it."""
        logger.info(json.dumps({"event": event} | fields))

    def refuse(self, connection: HTTPConnection, needs_room: bool = True) -> Response | None:
        """Return why somebody may not come in, if so."""
        if not self.gate.allows_origin(connection.headers):
            return PlainTextResponse("this origin may not connect\n", 403)
        if self.gate.find_key(connection.headers, connection.query_params) is None:
            headers = {"WWW-Authenticate": "Bearer"}
            return PlainTextResponse("a key is needed\n", 401, headers)
        retry = {"Retry-After": str(round(self.engine.limits.retry_s))}
        if not self.ready or self.leaving.is_set():
            return PlainTextResponse("this server isn't ready, or going down\n", 503, retry)
        if needs_room and self.engine.is_full:
            self.engine.meters.refused += 1
            return PlainTextResponse("all places for streams are taken\n", 503, retry)
        return None

    def _socket(self, handler: Handler) -> Callable[[WebSocket], Awaitable[None]]:
        """Let a websocket in, if it may, and count it."""

        async def serve(websocket: WebSocket) -> None:
            refusal = self.refuse(websocket, needs_room="resume" not in websocket.query_params)
            key = self.gate.find_key(websocket.headers, websocket.query_params) or ""
            if refusal is None and not self.gate.take(key):
                refusal = PlainTextResponse("this key has all the streams it may have\n", 429)
            if refusal is not None:
                self.log("refused", status=refusal.status_code)
                await websocket.send_denial_response(refusal)
                return
            self.num_connections += 1
            try:
                await handler(websocket, self)
            finally:
                self.num_connections -= 1
                self.gate.leave(key)

        return serve

    async def _upload(self, request: Request) -> Response:
        response = await self._answer(request, transcribe_upload)
        if response.media_type == "text/plain" and response.status_code >= 400:
            text = bytes(response.body).decode().strip()
            kept = {k: v for k, v in response.headers.items() if k == "retry-after"}
            return Response(format_error(text), response.status_code, kept, "application/json")
        return response

    async def _posted(self, request: Request) -> Response:
        return await self._answer(request, transcribe_posted)

    async def _answer(
        self, request: Request, handler: Callable[[Request, "Service"], Awaitable[Response]]
    ) -> Response:
        """Let a request in, if it may, and count it."""
        response = self.refuse(request)
        key = self.gate.find_key(request.headers, request.query_params) or ""
        if response is None and not self.gate.take(key):
            response = PlainTextResponse("this key has all the streams it may have\n", 429)
        elif response is None:
            try:
                response = await handler(request, self)
            finally:
                self.gate.leave(key)
        self.log("request", path=request.url.path, status=response.status_code)
        return response

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _readiness(self, _: Request) -> Response:
        ready = self.ready and not self.leaving.is_set()
        state = {
            "ready": ready,
            "full": ready and self.engine.is_full,
            "streams": self.engine.num_resident,
            "capacity": self.engine.capacity,
        }
        return JSONResponse(state, 200 if ready else 503)

    async def _metrics(self, _: Request) -> Response:
        text = write_metrics(self.engine, self.num_connections)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")
