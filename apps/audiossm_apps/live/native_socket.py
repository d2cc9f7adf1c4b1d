"""The native protocol on a websocket: requests to the engine, its news back."""

import asyncio
import contextlib
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.websockets import WebSocket, WebSocketDisconnect

from audiossm.audio.opus import OpusStream
from audiossm.errors import (
    AudioSSMError,
    BusyError,
    DependencyError,
    ProtocolError,
    SessionError,
    SnapshotError,
)
from audiossm.hotwords import HotWord
from audiossm.protocol import ServerProtocol, native
from audiossm.protocol.encoding import Opus
from audiossm.streaming import Endpoint, Engine, News, Word, WrittenWord
from audiossm.streaming import stream as told
from audiossm.streaming.store import StoreLostError
from audiossm_apps.live.gate import MessageRate
from audiossm_apps.live.opus_decoding import decode_opus
from audiossm_apps.live.service import Service

__all__ = ["serve_native"]

# at least one ack for so much audio
ACK_S = 0.5
FIRST_MESSAGE_S = 20.0

KINDS: dict[type, type[native.Reply]] = {
    Word: native.Word,
    WrittenWord: native.Written,
    Endpoint: native.Endpoint,
    told.Flushed: native.Flushed,
    told.HotwordsSet: native.HotwordsSet,
    told.Rewound: native.Rewound,
    told.Refused: native.Refused,
    told.Finished: native.Finished,
}
# why a connection ends: close codes of RFC 6455
CLOSES = {"full": 1013, "going": 1012, "failed": 1011, "bad-audio": 1007, "idle": 1001}


class _End(Exception):
    """The connection ends with a word about why."""

    def __init__(self, code: str, message: str, retry_s: float = 0.0) -> None:
        super().__init__(message)
        self.code, self.message, self.retry_s = code, message, retry_s


async def serve_native(websocket: WebSocket, service: Service) -> None:
    """Serve one connection that was let in, to its end."""
    await websocket.accept()
    connection = _Connection(websocket, service)
    try:
        await connection.run()
    except _End as end:
        failure = native.Failure(
            seq=connection.sent, code=end.code, message=end.message, retry_s=end.retry_s
        )
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await websocket.send_text(native.encode(failure))
            reason = f"retry after {end.retry_s:g} s" if end.retry_s else end.code
            await websocket.close(CLOSES.get(end.code, 1008), reason)
        service.log("native_end", code=end.code)
    except WebSocketDisconnect:
        service.log("native_end", code="disconnect")
    finally:
        await connection.leave()


class _Connection:
    def __init__(self, websocket: WebSocket, service: Service) -> None:
        self.websocket, self.service = websocket, service
        self.engine: Engine = service.engine
        self.protocol = ServerProtocol()
        self.rate = MessageRate(service.gate.caps.max_messages_s)
        self.name: str | None = None
        self.token = self.sent = 0
        self.partials = True
        self.opus: OpusStream | None = None

    async def run(self) -> None:
        request = await self._receive(FIRST_MESSAGE_S)
        await self._begin(request)
        assert self.name is not None
        reader = asyncio.create_task(self._read(self.name))
        writer = asyncio.create_task(self._write(self.name))
        leaving = asyncio.create_task(self.service.leaving.wait())
        tasks: set[asyncio.Task[Any]] = {reader, writer, leaving}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done() and not reader.done() and not writer.done():
                reader.cancel()
                await self.service.drained.wait()
                await self._tell(self.name, ack=True)
                raise _End("going", "this server is going down", 1.0)
            for task in (writer, reader):
                if task.done():
                    task.result()
        except AudioSSMError as exc:
            raise _End("gone", str(exc)) from exc
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def leave(self) -> None:
        """Let go of the stream; one whose end arrived is forgotten."""
        if self.name is None or not self.engine.owns(self.name, self.token):
            return
        with contextlib.suppress(AudioSSMError):
            if self.engine.is_done(self.name):
                await self.engine.close(self.name)
            else:
                self.engine.detach(self.name, self.token)

    async def _receive(self, timeout_s: float) -> native.Request:
        try:
            # not wait_for(): that one loses a cancellation when a message comes in the same moment
            async with asyncio.timeout(timeout_s):
                message = await self.websocket.receive()
        except TimeoutError:
            raise _End("idle", f"nothing came for {timeout_s:g} s") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        if not self.rate.allows():
            raise _End("limit", f"more than {self.rate.per_second:g} messages a second")
        text = message.get("text")
        try:
            return self.protocol.receive(message["bytes"] if text is None else text)
        except ProtocolError as exc:
            raise _End(exc.code, str(exc)) from exc

    async def _begin(self, request: native.Request) -> None:
        engine, model = self.engine, self.service.model_name
        try:
            if isinstance(request, native.Start):
                self.name = await engine.open(
                    sample_rate=request.sample_rate,
                    lookahead_ms=request.lookahead_ms,
                    hotwords=[HotWord(*pair) for pair in request.hotwords],
                    keep_s=request.keep_s,
                )
                self.token = engine.token(self.name)
            else:
                assert isinstance(request, native.Resume)
                self.token = await engine.resume(request.handle)
                self.name, self.sent = request.handle, request.seq
        except BusyError as exc:
            raise _End("full", str(exc), exc.retry_s) from exc
        except StoreLostError as exc:
            raise _End("failed", str(exc), 1.0) from exc
        except (SessionError, SnapshotError) as exc:
            raise _End("unknown", str(exc)) from exc
        except AudioSSMError as exc:
            raise _End("bad-message", str(exc)) from exc
        self.partials = request.partials
        if request.encoding == "opus":
            self.opus = self._open_opus()
        at, rate = engine.progress(self.name), engine.sample_rate(self.name)
        if isinstance(request, native.Start):
            reply: native.Reply = native.Started(
                seq=0,
                handle=self.name,
                model=model,
                sample_rate=rate,
                credit=at.credit,
                state_bytes=at.state_bytes,
            )
        else:
            try:
                engine.news(self.name, request.seq)
            except SessionError as exc:
                raise _End("gone", str(exc)) from exc
            if at.finished or engine.is_ending(self.name):
                self.protocol.state = "finished"
            reply = native.Resumed(
                seq=min(at.seq, request.seq),
                handle=self.name,
                model=model,
                sample_rate=rate,
                received=at.received,
                controls=at.controls,
                credit=at.credit,
                state_bytes=at.state_bytes,
            )
        await self.websocket.send_text(native.encode(reply))

    def _open_opus(self) -> OpusStream:
        """Return a decoder that goes on where the stream stands."""
        assert self.name is not None
        if self.engine.sample_rate(self.name) != OpusStream.sample_rate:
            raise _End("bad-message", f"Opus has {OpusStream.sample_rate} Hz, this stream hasn't")
        try:
            return OpusStream(self.engine.progress(self.name).received)
        except DependencyError as exc:
            raise _End("bad-message", str(exc)) from exc

    async def _hear(self, name: str, samples: NDArray[np.float32]) -> None:
        caps, rate = self.service.gate.caps, self.engine.sample_rate(name)
        if self.engine.progress(name).received > caps.max_audio_s * rate:
            raise _End("limit", f"a stream has {caps.max_audio_s:g} s at most")
        await self.engine.room(name)
        self.engine.submit(name, samples)

    async def _read(self, name: str) -> None:
        engine, caps = self.engine, self.service.gate.caps
        rate = engine.sample_rate(name)
        while True:
            request = await self._receive(caps.idle_s)
            if not engine.owns(name, self.token):
                raise _End("taken", "somebody else resumed this stream")
            try:
                match request:
                    case native.Audio(samples):
                        await self._hear(name, samples)
                    case Opus(data):
                        assert self.opus is not None
                        async for samples in decode_opus(self.opus, data):
                            await self._hear(name, samples)
                    case native.Flush():
                        engine.flush(name)
                    case native.Hotwords():
                        engine.set_hotwords(name, request.hotwords)
                    case native.Rewind():
                        engine.rewind(name, round(request.seconds * rate))
                    case native.Finish():
                        engine.finish(name)
                    case native.Seen():
                        engine.confirm(name, min(request.seq, self.sent))
                    case native.Fork():
                        copy = await engine.fork(name)
                        forked = native.Forked(
                            seq=copy.seq,
                            handle=copy.name,
                            received=copy.received,
                            controls=copy.controls,
                        )
                        await self.websocket.send_text(native.encode(forked))
            except BusyError as exc:
                raise _End("full", str(exc), exc.retry_s) from exc
            except ProtocolError as exc:  # what Opus turns out to be
                raise _End(exc.code, str(exc)) from exc
            except AudioSSMError as exc:
                raise _End("failed", str(exc)) from exc

    async def _write(self, name: str) -> None:
        acked = -1
        engine = self.engine
        while True:
            if not engine.owns(name, self.token):
                raise _End("taken", "somebody else resumed this stream")
            at = engine.progress(name)
            behind = at.received - acked >= ACK_S * engine.sample_rate(name)
            ack = behind or (at.durable, at.durable_controls) != self.durable
            await self._tell(name, ack)
            if ack:
                acked = at.received
            if at.failure is not None:
                raise _End("failed", at.failure)
            try:
                await engine.changed(name, at.turn)
            except SessionError:
                continue  # it was closed: said above

    durable = (0, 0)
    partial = ""

    async def _tell(self, name: str, ack: bool) -> None:
        """Send what is new."""
        at = self.engine.progress(name)
        for news in self.engine.news(name, self.sent):
            await self.websocket.send_text(native.encode(to_reply(news)))
            self.sent = news.seq
        if self.partials and at.partial != self.partial and self.sent == at.seq:
            self.partial = at.partial
            await self.websocket.send_text(
                native.encode(native.Partial(seq=self.sent, text=at.partial, heard=at.heard))
            )
        if ack:
            # after the events: who reads that samples are durable has all that they told
            self.durable = at.durable, at.durable_controls
            message = native.Ack(
                seq=self.sent,
                received=at.received,
                durable=at.durable,
                controls=at.durable_controls,
                credit=at.credit,
            )
            await self.websocket.send_text(native.encode(message))


def to_reply(news: News) -> native.Reply:
    """Turn an event of the engine into the message that tells it."""
    fields = asdict(news.event)
    fields.pop("readings", None)  # none are asked for
    for name in ("time_s", "start_s", "end_s", "confidence"):
        if fields.get(name) is not None:
            fields[name] = round(fields[name], 4)
    return KINDS[type(news.event)](seq=news.seq, **fields)
