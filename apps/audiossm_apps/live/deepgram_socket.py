"""Deepgram's dialect on a websocket."""

import asyncio
import datetime
import hashlib
import uuid

from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket

from audiossm.audio.opus import OpusStream
from audiossm.errors import AudioSSMError, DependencyError, ProtocolError
from audiossm.protocol import deepgram
from audiossm.protocol.encoding import Opus
from audiossm_apps.live.dialect import Conversation, converse, read_query
from audiossm_apps.live.opus_decoding import decode_opus
from audiossm_apps.live.service import Service

__all__ = ["serve_deepgram"]

SILENT_S = 12.0  # without audio or KeepAlive


async def serve_deepgram(websocket: WebSocket, service: Service) -> None:
    """Serve one connection that was let in, to its end."""
    request_id = str(uuid.uuid4())
    try:
        settings = deepgram.Settings.parse(read_query(websocket.query_params))
        protocol = deepgram.DeepgramProtocol(settings, request_id, service.model_name)
        opus = OpusStream() if settings.encoding is None else None
    except (DependencyError, ProtocolError) as exc:
        await websocket.send_denial_response(PlainTextResponse(f"{exc}\n", 400))
        return
    offered = websocket.scope.get("subprotocols", [])
    chosen = next((name for name in offered if name in ("token", "bearer")), None)
    await websocket.accept(chosen, [(b"dg-request-id", request_id.encode())])
    await converse(_Session(websocket, service, protocol, opus))


class _Session(Conversation):
    dialect = "deepgram"
    misuse_code = 1008
    misuse_mark = "DATA-0000: "

    def __init__(
        self,
        websocket: WebSocket,
        service: Service,
        protocol: deepgram.DeepgramProtocol,
        opus: OpusStream | None,
    ) -> None:
        super().__init__(websocket, service)
        self.protocol, self.opus = protocol, opus
        self.writes = self.writes and protocol.settings.written
        self.digest = hashlib.sha256()

    async def receive(self) -> str | bytes:
        try:
            async with asyncio.timeout(SILENT_S):
                message = await super().receive()
        except TimeoutError:
            raise AudioSSMError("NET-0001: neither audio nor KeepAlive came") from None
        if isinstance(message, bytes):
            self.digest.update(message)
        return message

    async def talk(self) -> None:
        protocol, settings = self.protocol, self.protocol.settings
        name = await self.begin(settings.sample_rate, settings.keyterms)
        created = datetime.datetime.now(datetime.UTC)
        while True:
            match protocol.receive(await self.receive()):
                case deepgram.Audio(samples):
                    await self.send(protocol.hear(await self.hear(name, samples)))
                case Opus(data):
                    assert self.opus is not None
                    async for samples in decode_opus(self.opus, data):
                        await self.send(protocol.hear(await self.hear(name, samples)))
                case deepgram.Finalize():
                    heard = await self.flush(name)
                    text = protocol.close_span(heard.words, heard.now_s, from_finalize=True)
                    await self.send([text])
                case deepgram.Configure(keyterms):
                    await self.send([await self._configure(name, keyterms)])
                case deepgram.Close():
                    heard = await self.finish(name)
                    last = protocol.close_span(heard.words, heard.now_s)
                    digest = self.digest.hexdigest()
                    await self.send([last, protocol.metadata(digest, created, heard.now_s)])
                    return

    async def _configure(self, name: str, terms: tuple[tuple[str, float], ...] | None) -> str:
        problem = None
        if terms is not None:
            last = (await self.engine.set_hotwords(name, terms))[-1]
            problem = getattr(last.event, "message", None)
        return self.protocol.configured(problem)
