"""Kyutai's dialect on a websocket."""

from typing import TYPE_CHECKING

from starlette.websockets import WebSocket

from audiossm.errors import AudioSSMError
from audiossm.protocol import kyutai
from audiossm_apps.live.dialect import Conversation, converse

if TYPE_CHECKING:
    from audiossm_apps.live.service import Service

__all__ = ["serve_kyutai"]


async def serve_kyutai(websocket: WebSocket, service: "Service") -> None:
    """Serve one connection that was let in, to its end."""
    await websocket.accept()
    await converse(_Session(websocket, service))


class _Session(Conversation):
    dialect = "kyutai"

    def __init__(self, websocket: WebSocket, service: "Service") -> None:
        super().__init__(websocket, service)
        self.protocol = kyutai.KyutaiProtocol()

    async def talk(self) -> None:
        protocol = self.protocol
        name = await self.begin(kyutai.SAMPLE_RATE)
        await self.send([protocol.greet()])
        while True:
            match protocol.receive(await self.receive()):
                case kyutai.Audio(samples):
                    await self.send(protocol.hear(await self.hear(name, samples)))
                case kyutai.Marker() as marker:
                    await self.send(protocol.mark((await self.flush(name)).words, marker))

    async def explain(self, problem: AudioSSMError | None) -> None:
        message = "this server is going down" if problem is None else str(problem)
        await self.send([self.protocol.error(message)])
