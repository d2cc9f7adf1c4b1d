"""The sherpa dialect on a websocket."""

from starlette.websockets import WebSocket

from audiossm.protocol import sherpa
from audiossm_apps.live.dialect import Conversation, converse
from audiossm_apps.live.service import Service

__all__ = ["serve_sherpa"]


async def serve_sherpa(websocket: WebSocket, service: Service) -> None:
    """Serve one connection that was let in, to its end."""
    await websocket.accept()
    await converse(_Session(websocket, service))


class _Session(Conversation):
    dialect = "sherpa"

    async def talk(self) -> None:
        protocol = sherpa.SherpaProtocol()
        while True:
            request = protocol.receive(await self.receive())
            name = await self.begin(sherpa.SAMPLE_RATE)
            if isinstance(request, sherpa.Done):
                heard = await self.finish(name)
                await self.send(protocol.finish(heard.words, heard.now_s))
                return
            await self.send(protocol.hear(await self.hear(name, request.samples)))
