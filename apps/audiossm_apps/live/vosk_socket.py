"""The vosk dialect on a websocket."""

from starlette.websockets import WebSocket

from audiossm.protocol import vosk
from audiossm_apps.live.dialect import Conversation, converse
from audiossm_apps.live.service import Service

__all__ = ["serve_vosk"]


async def serve_vosk(websocket: WebSocket, service: Service) -> None:
    """Serve one connection that was let in, to its end."""
    await websocket.accept()
    await converse(_Session(websocket, service))


class _Session(Conversation):
    dialect = "vosk"

    def __init__(self, websocket: WebSocket, service: Service) -> None:
        super().__init__(websocket, service)
        self.protocol = vosk.VoskProtocol()
        self.phrases: tuple[str, ...] = ()
        self.writes = False  # its clients get plain words

    async def talk(self) -> None:
        protocol = self.protocol
        while True:
            match protocol.receive(await self.receive()):
                case vosk.Config(phrases=phrases):
                    if phrases is not None:
                        self.phrases = phrases
                        if self.name is not None:
                            await self.engine.set_hotwords(self.name, phrases)
                case vosk.Audio(samples):
                    heard = await self.hear(await self._begun(), samples)
                    await self.send([protocol.hear(heard.words, heard.tail, heard.now_s)])
                case vosk.Reset():
                    protocol.words += (await self.flush(await self._begun())).words
                    await self.send([protocol.result()])
                case vosk.Eof():
                    protocol.words += (await self.finish(await self._begun())).words
                    await self.send([protocol.result()])
                    return

    async def _begun(self) -> str:
        """Return the stream's name; it begins with the first audio, when its rate is known."""
        return await self.begin(self.protocol.sample_rate, self.phrases)
