"""Kyutai's dialect on a websocket."""

import torch
from starlette.websockets import WebSocket

from audiossm.audio import Resampler
from audiossm.audio.opus import OpusStream
from audiossm.errors import AudioSSMError
from audiossm.protocol import kyutai
from audiossm.protocol.encoding import Opus
from audiossm_apps.live.dialect import Conversation, converse
from audiossm_apps.live.opus_decoding import decode_opus
from audiossm_apps.live.service import Service

__all__ = ["serve_kyutai"]


async def serve_kyutai(websocket: WebSocket, service: Service) -> None:
    """Serve one connection that was let in, to its end."""
    await websocket.accept()
    await converse(_Session(websocket, service))


class _Session(Conversation):
    dialect = "kyutai"

    def __init__(self, websocket: WebSocket, service: Service) -> None:
        super().__init__(websocket, service)
        self.protocol = kyutai.KyutaiProtocol()
        self.opus: OpusStream | None = None
        self.resampler = Resampler(OpusStream.sample_rate, kyutai.SAMPLE_RATE)
        self.resampling = self.resampler.init_state(1)

    async def talk(self) -> None:
        protocol = self.protocol
        name = await self.begin(kyutai.SAMPLE_RATE)
        await self.send([protocol.greet()])
        while True:
            match protocol.receive(await self.receive()):
                case kyutai.Audio(samples):
                    await self.send(protocol.hear(await self.hear(name, samples)))
                case Opus(data):
                    await self._hear_opus(name, data)
                case kyutai.Marker() as marker:
                    await self.send(protocol.mark((await self.flush(name)).words, marker))

    async def _hear_opus(self, name: str, data: bytes) -> None:
        """Bring Opus to the rate that the stream has from its begin on."""
        self.opus = self.opus or OpusStream()
        async for samples in decode_opus(self.opus, data):
            row = torch.from_numpy(samples).unsqueeze(0)
            row, self.resampling = self.resampler.step(row, self.resampling)
            heard = await self.hear(name, row[0].numpy())
            await self.send(self.protocol.hear(heard))

    async def explain(self, problem: AudioSSMError | None) -> None:
        message = "this server is going down" if problem is None else str(problem)
        await self.send([self.protocol.error(message)])
