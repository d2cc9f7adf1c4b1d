"""The live service as an ASGI application: one port, several dialects."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from audiossm.protocol.openai_rest import format_error
from audiossm_apps.live.deepgram_http import transcribe_posted
from audiossm_apps.live.deepgram_socket import serve_deepgram
from audiossm_apps.live.kyutai_socket import serve_kyutai
from audiossm_apps.live.metrics import write_metrics
from audiossm_apps.live.native_socket import serve_native
from audiossm_apps.live.openai_http import transcribe_upload
from audiossm_apps.live.page_files import page_routes
from audiossm_apps.live.realtime_socket import serve_realtime
from audiossm_apps.live.service import Service
from audiossm_apps.live.sherpa_socket import serve_sherpa
from audiossm_apps.live.speak_socket import serve_speak
from audiossm_apps.live.speech_http import NOBODY, answer_speech, list_voices
from audiossm_apps.live.vosk_socket import serve_vosk

__all__ = ["make_app"]

Handler = Callable[[WebSocket, Service], Awaitable[None]]
Answerer = Callable[[Request, Service], Awaitable[Response]]


def make_app(service: Service) -> Starlette:
    """Return the application; the service's engine begins and ends with it."""
    return _Routes(service).app


class _Routes:
    def __init__(self, service: Service) -> None:
        self.service, self.engine, self.gate = service, service.engine, service.gate
        self.app = Starlette(routes=self._routes(), lifespan=self._live)

    def _routes(self) -> list[Route | WebSocketRoute]:
        return [
            *page_routes(),
            Route("/healthz", self._health),
            Route("/readyz", self._readiness),
            Route("/metrics", self._metrics),
            Route("/v1/audio/transcriptions", self._upload, methods=["POST"]),
            Route("/v1/audio/speech", self._speech, methods=["POST"]),
            Route("/v1/audio/voices", self._voices, methods=["GET"]),
            WebSocketRoute("/v1/speak", self._socket(serve_speak, speaks=True)),
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
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self.engine)
            told: dict[str, object] = {"capacity": self.engine.capacity}
            if (speech := self.service.speech) is not None:
                await stack.enter_async_context(speech)
                told |= {"speaker": speech.speaker.name, "speech_capacity": speech.capacity}
            self.service.ready = True
            self.service.log("ready", model=self.service.model_name, **told)
            yield
            self.service.ready = False
            await self.service.drain()
            self.service.log("stopped")

    def _socket(
        self, handler: Handler, speaks: bool = False
    ) -> Callable[[WebSocket], Awaitable[None]]:
        """Let a websocket in, if it may, and count it."""

        async def serve(websocket: WebSocket) -> None:
            needs_room = not speaks and "resume" not in websocket.query_params
            refusal = self.service.refuse(websocket, needs_room)
            if speaks and refusal is None:
                refusal = self._refuse_speech()
            key = self.gate.find_key(websocket.headers, websocket.query_params) or ""
            if refusal is None and not self.gate.take(key):
                refusal = PlainTextResponse("this key has all the streams it may have\n", 429)
            if refusal is not None:
                self.service.log("refused", status=refusal.status_code)
                await websocket.send_denial_response(refusal)
                return
            self.service.num_connections += 1
            try:
                await handler(websocket, self.service)
            finally:
                self.service.num_connections -= 1
                self.gate.leave(key)

        return serve

    async def _upload(self, request: Request) -> Response:
        return _as_openai(await self._answer(request, transcribe_upload))

    async def _posted(self, request: Request) -> Response:
        return await self._answer(request, transcribe_posted)

    async def _answer(self, request: Request, handler: Answerer) -> Response:
        """Let a request in, if it may, and count it."""
        response = self.service.refuse(request)
        key = self.gate.find_key(request.headers, request.query_params) or ""
        if response is None and not self.gate.take(key):
            response = PlainTextResponse("this key has all the streams it may have\n", 429)
        elif response is None:
            try:
                response = await handler(request, self.service)
            finally:
                self.gate.leave(key)
        self.service.log("request", path=request.url.path, status=response.status_code)
        return response

    def _refuse_speech(self) -> Response | None:
        """Return why nothing can be said now, if so."""
        speech = self.service.speech
        if speech is None:
            return PlainTextResponse(f"{NOBODY}\n", 404)
        if speech.is_full:
            speech.meters.refused += 1
            retry = {"Retry-After": str(round(speech.limits.retry_s))}
            told = f"all {speech.capacity} places for speech are taken\n"
            return PlainTextResponse(told, 503, retry)
        return None

    async def _speech(self, request: Request) -> Response:
        response = self.service.refuse(request, needs_room=False) or self._refuse_speech()
        key = self.gate.find_key(request.headers, request.query_params) or ""
        if response is None and not self.gate.take(key):
            response = PlainTextResponse("this key has all the streams it may have\n", 429)
        elif response is None:
            # what is sent while it is made counts to its last byte
            response = await answer_speech(request, self.service, lambda: self.gate.leave(key))
        self.service.log("request", path=request.url.path, status=response.status_code)
        return _as_openai(response)

    async def _voices(self, request: Request) -> Response:
        return await list_voices(self.service)  # as the page: its voices are no secret

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _readiness(self, _: Request) -> Response:
        ready = self.service.ready and not self.service.leaving.is_set()
        state: dict[str, object] = {
            "ready": ready,
            "full": ready and self.engine.is_full,
            "streams": self.engine.num_resident,
            "capacity": self.engine.capacity,
        }
        if (speech := self.service.speech) is not None:
            state["speech"] = {"texts": len(speech.saying), "capacity": speech.capacity}
        return JSONResponse(state, 200 if ready else 503)

    async def _metrics(self, _: Request) -> Response:
        service = self.service
        text = write_metrics(self.engine, service.num_connections, service.speech)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


def _as_openai(response: Response) -> Response:
    """Return a refusal in the words of its dialect."""
    if response.media_type == "text/plain" and response.status_code >= 400:
        text = bytes(response.body).decode().strip()
        kept = {k: v for k, v in response.headers.items() if k == "retry-after"}
        kind = "server_error" if response.status_code >= 500 else "invalid_request_error"
        body = format_error(text, kind=kind)
        return Response(body, response.status_code, kept, "application/json")
    return response
