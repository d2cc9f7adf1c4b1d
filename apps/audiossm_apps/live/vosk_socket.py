"""The vosk dialect on a websocket."""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from starlette.websockets import WebSocket, WebSocketDisconnect

from audiossm.errors import AudioSSMError, BusyError, ProtocolError
from audiossm.protocol import vosk
from audiossm.streaming import News, Word
from audiossm_apps.live.gate import MessageRate

if TYPE_CHECKING:
    from audiossm_apps.live.service import Service

__all__ = ["serve_vosk"]


async def serve_vosk(websocket: WebSocket, service: "Service") -> None:
    """Serve one connection that was let in, to its end."""
    await websocket.accept()
    session = _Session(websocket, service)
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
    except ProtocolError as exc:
        code, reason = 1007, str(exc)
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
    service.log("vosk_end", code=code)
    if code:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await websocket.close(code, reason.encode()[:120].decode(errors="ignore"))


class _Session:
    def __init__(self, websocket: WebSocket, service: "Service") -> None:
        self.websocket, self.service, self.engine = websocket, service, service.engine
        self.protocol = vosk.VoskProtocol()
        self.rate = MessageRate(service.gate.caps.max_messages_s)
        self.name: str | None = None
        self.phrases: tuple[str, ...] = ()

    async def talk(self) -> None:
        """Answer each message, to the end of the stream."""
        protocol, caps = self.protocol, self.service.gate.caps
        while True:
            try:
                async with asyncio.timeout(caps.idle_s):
                    message = await self.websocket.receive()
            except TimeoutError:
                raise ProtocolError(f"nothing came for {caps.idle_s:g} s") from None
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1005))
            if not self.rate.allows():
                raise ProtocolError(f"more than {self.rate.per_second:g} messages a second")
            text = message.get("text")
            request = protocol.receive(message["bytes"] if text is None else text)
            match request:
                case vosk.Config(phrases=phrases):
                    if phrases is not None:
                        self.phrases = phrases
                        if self.name is not None:
                            await self.engine.set_hotwords(self.name, phrases)
                case vosk.Audio(samples):
                    name = await self._begun()
                    words = to_words(await self.engine.push(name, samples))
                    at, rate = self.engine.progress(name), self.engine.sample_rate(name)
                    self.engine.confirm(name, at.seq)
                    if at.received > caps.max_audio_s * rate:
                        raise ProtocolError(f"a stream has {caps.max_audio_s:g} s at most")
                    reply = protocol.hear(words, at.tail, at.received / rate)
                    await self.websocket.send_text(reply)
                case vosk.Reset():
                    protocol.words += to_words(await self.engine.flush(await self._begun()))
                    await self.websocket.send_text(protocol.result())
                case vosk.Eof():
                    protocol.words += to_words(await self.engine.finish(await self._begun()))
                    await self.websocket.send_text(protocol.result())
                    return

    async def _begun(self) -> str:
        """Return the stream's name; it begins with the first audio, when its rate is known."""
        if self.name is None:
            self.name = await self.engine.open(sample_rate=self.protocol.sample_rate)
            if self.phrases:  # those that can't be listened for are refused, and that is all
                await self.engine.set_hotwords(self.name, self.phrases)
        return self.name


def to_words(news: Iterable[News]) -> list[vosk.HeardWord]:
    """Return the plain words among events."""
    return [
        vosk.HeardWord(item.event.word, item.event.start_s, item.event.end_s, item.event.confidence)
        for item in news
        if isinstance(item.event, Word)
    ]
