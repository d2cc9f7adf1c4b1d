"""OpenAI's Realtime dialect on a websocket."""

import secrets

from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket

from audiossm.errors import AudioSSMError, ProtocolError
from audiossm.protocol import openai_realtime as realtime
from audiossm_apps.live.dialect import Conversation, converse
from audiossm_apps.live.service import Service

__all__ = ["serve_realtime"]


async def serve_realtime(websocket: WebSocket, service: Service) -> None:
    """Serve one connection that was let in, to its end."""
    intent = websocket.query_params.get("intent", "transcription")
    if intent != "transcription":
        await websocket.send_denial_response(
            PlainTextResponse("this server's sessions are for intent=transcription\n", 400)
        )
        return
    offered = websocket.scope.get("subprotocols", [])
    await websocket.accept("realtime" if "realtime" in offered else None)
    beta = "realtime=v1" in websocket.headers.get("openai-beta", "")
    beta = beta or "openai-beta.realtime-v1" in offered
    await converse(_Session(websocket, service, beta))


class _Session(Conversation):
    dialect = "realtime"
    misuse_code = 1008

    def __init__(self, websocket: WebSocket, service: Service, beta: bool) -> None:
        super().__init__(websocket, service)
        self.protocol = realtime.RealtimeProtocol(f"sess_{secrets.token_hex(8)}", beta=beta)

    async def talk(self) -> None:
        await self.send([self.protocol.greet()])
        while True:
            message = await self.receive()
            try:
                request = self.protocol.receive(message)
            except ProtocolError as exc:
                await self.send([self.protocol.error(str(exc), exc.code)])
                continue
            await self._answer(request)

    async def explain(self, problem: AudioSSMError | None) -> None:
        if problem is not None:
            await self.send([self.protocol.error(str(problem), "failed", "server_error")])

    async def _answer(self, request: realtime.Request) -> None:
        protocol, settings = self.protocol, self.protocol.settings
        match request:
            case realtime.Update():
                if self.name is not None:
                    await self.engine.set_hotwords(self.name, settings.keywords)
                await self.send([protocol.updated()])
            case realtime.Audio(samples) if len(samples):
                self.lookahead_ms = settings.lookahead_ms
                name = await self.begin(settings.sample_rate, settings.keywords)
                await self.send(protocol.hear(await self.hear(name, samples)))
            case realtime.Commit() if self.name is not None:
                heard = await self.flush(self.name)
                await self.send(protocol.complete(heard.words, heard.now_s))
            case realtime.Clear():
                now_s = 0.0 if self.name is None else (await self.flush(self.name)).now_s
                await self.send([protocol.cleared(now_s)])
