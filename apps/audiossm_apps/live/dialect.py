"""What the sockets of other services' dialects share: one stream that ends with its connection."""

import asyncio
import contextlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from starlette.datastructures import QueryParams
from starlette.websockets import WebSocket, WebSocketDisconnect

from audiossm.errors import AudioSSMError, BusyError, ProtocolError
from audiossm.protocol.heard import Heard, HeardWord
from audiossm.streaming import News, Word, WrittenWord
from audiossm_apps.live.gate import MessageRate
from audiossm_apps.live.service import Service

__all__ = ["Conversation", "converse", "read_query", "to_words"]

LOOKAHEAD_MS = 320


class Conversation:
    """A connection and its stream; a dialect's own says what it answers in ``talk``.

    Attributes:
        dialect: its name, in logs.
        misuse_code: of the close, for messages that the dialect doesn't have.
        misuse_mark: stands before its reason.
    """

    dialect: str
    misuse_code = 1007
    misuse_mark = ""

    def __init__(self, websocket: WebSocket, service: Service) -> None:
        self.websocket, self.service, self.engine = websocket, service, service.engine
        self.name: str | None = None
        self.lookahead_ms = LOOKAHEAD_MS
        self.writes = service.engine.transcriber.writer is not None
        self.last_word_s = 0.0
        self._rate = MessageRate(service.gate.caps.max_messages_s)

    async def talk(self) -> None:
        """Answer each message, to the end of the stream."""
        raise NotImplementedError

    async def explain(self, problem: AudioSSMError | None) -> None:
        """Say why the connection is about to be closed; None is a server that goes down."""

    async def receive(self) -> str | bytes:
        """Return the next message."""
        idle_s = self.service.gate.caps.idle_s
        try:
            async with asyncio.timeout(idle_s):
                message = await self.websocket.receive()
        except TimeoutError:
            raise ProtocolError(f"nothing came for {idle_s:g} s") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        if not self._rate.allows():
            raise ProtocolError(f"more than {self._rate.per_second:g} messages a second")
        text: str | None = message.get("text")
        data: bytes = message.get("bytes") or b""
        return data if text is None else text

    async def send(self, messages: Iterable[str | bytes]) -> None:
        """Send texts as texts and bytes as bytes."""
        for message in messages:
            if isinstance(message, str):
                await self.websocket.send_text(message)
            else:
                await self.websocket.send_bytes(message)

    async def begin(
        self, sample_rate: int, hotwords: Iterable[str | tuple[str, float]] = ()
    ) -> str:
        """Return the stream's name; the first call begins it."""
        if self.name is None:
            self.name = await self.engine.open(
                sample_rate=sample_rate, lookahead_ms=self.lookahead_ms
            )
            if words := tuple(hotwords):  # those that can't be listened for are refused: all right
                await self.engine.set_hotwords(self.name, words)
        return self.name

    async def hear(self, name: str, samples: NDArray[np.float32]) -> Heard:
        """Listen to audio."""
        heard = self._sum_up(name, await self.engine.push(name, samples))
        if heard.now_s > self.service.gate.caps.max_audio_s:
            raise ProtocolError(f"a stream has {self.service.gate.caps.max_audio_s:g} s at most")
        return heard

    async def flush(self, name: str) -> Heard:
        """Hear all that can be told now."""
        return self._sum_up(name, await self.engine.flush(name))

    async def finish(self, name: str) -> Heard:
        """Hear the rest."""
        return self._sum_up(name, await self.engine.finish(name))

    def _sum_up(self, name: str, news: Iterable[News]) -> Heard:
        events = [item.event for item in news]
        for event in events:
            if isinstance(event, Word):
                self.last_word_s = event.end_s
        words = to_words(events, self.writes)
        at = self.engine.progress(name)
        self.engine.confirm(name, at.seq)
        now_s = at.received / self.engine.sample_rate(name)
        silence_s = max(0.0, now_s - self.lookahead_ms / 1000 - self.last_word_s)
        pending = at.partial if self.writes else at.tail
        return Heard(words, pending, at.tail, now_s, 0.0 if at.tail else silence_s)


async def converse(conversation: Conversation) -> None:
    """Serve one connection that was accepted, to its end."""
    websocket, service = conversation.websocket, conversation.service
    code, reason = 1000, ""
    problem: AudioSSMError | None = None
    leaving = asyncio.create_task(service.leaving.wait())
    talking = asyncio.create_task(conversation.talk())
    try:
        await asyncio.wait({leaving, talking}, return_when=asyncio.FIRST_COMPLETED)
        if talking.done():
            talking.result()
        else:
            code, reason = 1012, "this server is going down"
    except WebSocketDisconnect:
        code = 0
    except ProtocolError as exc:
        code, problem = conversation.misuse_code, exc
        reason = f"{conversation.misuse_mark}{exc}"
    except BusyError as exc:
        code, reason, problem = 1013, f"retry after {exc.retry_s:g} s", exc
    except AudioSSMError as exc:
        code, reason, problem = 1011, str(exc), exc
    finally:
        leaving.cancel()
        talking.cancel()
        await asyncio.gather(leaving, talking, return_exceptions=True)
        if conversation.name is not None:
            await service.engine.close(conversation.name)
    service.log(f"{conversation.dialect}_end", code=code)
    if code:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            if code != 1000:
                await conversation.explain(problem)
            await websocket.close(code, reason.encode()[:120].decode(errors="ignore"))


def to_words(events: Iterable[object], writes: bool) -> tuple[HeardWord, ...]:
    """Return the words among events, as they are written or plain."""
    return tuple(
        HeardWord(event.text, event.start_s, event.end_s, event.confidence, event.word)
        for event in events
        if isinstance(event, WrittenWord if writes else Word)
    )


def read_query(query: QueryParams) -> dict[str, list[str]]:
    """Return the values of each name in an address."""
    return {name: query.getlist(name) for name in query}
