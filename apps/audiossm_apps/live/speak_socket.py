"""The native protocol for speech on a websocket."""

import asyncio
import contextlib
import math
import time
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from audiossm.errors import AudioSSMError, BusyError, ModelError, ProtocolError
from audiossm.protocol import speak
from audiossm.protocol.encoding import sample_width
from audiossm.protocol.native import Message, encode
from audiossm.streaming.speech_engine import Packed, SaidAll, SpeechEngine, SpeechOrder, Utterance
from audiossm.streaming.speech_events import Skipped, SpokenWord
from audiossm_apps.live.gate import MessageRate
from audiossm_apps.live.packing import BarePacker
from audiossm_apps.live.service import Service

__all__ = ["serve_speak"]

CLOSES = {"full": 1013, "going": 1012, "failed": 1011, "idle": 1001}  # all others: 1008


async def serve_speak(websocket: WebSocket, service: Service) -> None:
    """Serve one connection that was let in, to its end."""
    assert service.speech is not None
    await websocket.accept()
    await _Talk(websocket, service, service.speech).serve()


class _End(Exception):
    """The connection is to end; ``failure`` says why."""

    def __init__(self, code: str, message: str, retry_s: float = 0.0) -> None:
        super().__init__(message)
        self.failure = speak.Failure(code=code, message=message, retry_s=retry_s)


class _Talk:
    def __init__(self, websocket: WebSocket, service: Service, engine: SpeechEngine) -> None:
        self.websocket, self.service, self.engine = websocket, service, engine
        caps = service.gate.caps
        self.protocol = speak.SpeakProtocol(caps.max_text)
        self.rate = MessageRate(caps.max_messages_s)
        self.utterance: Utterance | None = None
        self.telling: asyncio.Task[None] | None = None
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.num_sent = 0  # samples since the start
        self.bytes_per_sample = 1
        self.rate_hz, self.ahead_s = 1, math.inf

    async def serve(self) -> None:
        """Hear requests while speech is sent, to the end of the connection."""
        code = 1000
        failure: speak.Failure | None = None
        leaving = asyncio.create_task(self.service.leaving.wait())
        hearing = asyncio.create_task(self._hear())
        try:
            ends: set[asyncio.Future[Any]] = {leaving, hearing, self.broken}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self.broken.done():
                self.broken.result()
            if hearing.done():
                hearing.result()
            raise _End("going", "this server is going down", self.engine.limits.retry_s)
        except (WebSocketDisconnect, RuntimeError):  # starlette's, for sends after the end
            code = 0
        except _End as exc:
            failure = exc.failure
        except AudioSSMError as exc:
            failure = speak.Failure(code="failed", message=str(exc))
        finally:
            leaving.cancel()
            hearing.cancel()
            await self._stop()
            self.broken.cancel()
            await asyncio.gather(leaving, hearing, self.broken, return_exceptions=True)
        if failure is not None:
            code = CLOSES.get(failure.code, 1008)
        self.service.log("speak_end", code=code)
        if code:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                if failure is not None:
                    await self._say(failure)
                reason = failure.message if failure is not None else ""
                await self.websocket.close(code, reason.encode()[:120].decode(errors="ignore"))

    async def _hear(self) -> None:
        while True:
            message = await self._receive()
            try:
                request = self.protocol.receive(message)
            except ProtocolError as exc:
                raise _End(exc.code, str(exc)) from exc
            match request:
                case speak.Start():
                    await self._start(request)
                case speak.Cancel():
                    await self._stop()
                    await self._say(speak.Cancelled(samples=self.num_sent))
                case _ if self.utterance is None:
                    pass  # it failed: that is told
                case speak.Text():
                    self.utterance.push(request.text)
                case speak.Flush():
                    self.utterance.flush()
                case speak.Finish():
                    self.utterance.finish()

    async def _receive(self) -> str | bytes:
        idle_s = self.service.gate.caps.idle_s
        while True:
            try:
                async with asyncio.timeout(idle_s):
                    message = await self.websocket.receive()
                break
            except TimeoutError:
                if self.protocol.state != "finished":  # else a long text is being said
                    raise _End("idle", f"nothing came for {idle_s:g} s") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        if not self.rate.allows():
            raise _End("limit", f"more than {self.rate.per_second:g} messages a second")
        text: str | None = message.get("text")
        data: bytes = message.get("bytes") or b""
        return data if text is None else text

    async def _start(self, request: speak.Start) -> None:
        await self._stop()
        rate = request.sample_rate or self.engine.speaker.sample_rate
        order = SpeechOrder(
            voice=request.voice,
            speed=request.speed,
            seed=request.seed,
            temperature=request.temperature,
        )
        try:
            self.utterance = await self.engine.begin(
                order, lambda own: BarePacker(own, rate, request.encoding)
            )
        except BusyError as exc:
            raise _End("full", str(exc), exc.retry_s) from exc
        except ModelError as exc:
            raise _End("voice", str(exc)) from exc
        except AudioSSMError as exc:
            raise _End("bad-message", str(exc)) from exc
        self.num_sent = 0
        self.bytes_per_sample, self.rate_hz = sample_width(request.encoding), rate
        self.ahead_s = math.inf if request.ahead_s is None else request.ahead_s
        await self._say(
            speak.Started(
                model=self.engine.speaker.name,
                voice=self.utterance.voice,
                seed=request.seed,
                encoding=request.encoding,
                sample_rate=rate,
            )
        )
        self.telling = asyncio.create_task(self._tell(self.utterance))

    async def _tell(self, utterance: Utterance) -> None:
        try:
            await self._send(utterance)
        except (AudioSSMError, WebSocketDisconnect, RuntimeError) as exc:
            if not self.broken.done():
                self.broken.set_exception(exc)

    async def _send(self, utterance: Utterance) -> None:
        """Send what is said, as it is made, or as it is wanted."""
        begun: float | None = None
        async for told in utterance.events():
            match told:
                case Packed(data):
                    if data:
                        begun = begun or time.monotonic()
                        heard_s = time.monotonic() - begun
                        wait_s = self.num_sent / self.rate_hz - heard_s - self.ahead_s
                        if wait_s > 0:  # meanwhile the engine makes a little more, and no end
                            await asyncio.sleep(wait_s)
                        await self.websocket.send_bytes(data)
                        self.num_sent += len(data) // self.bytes_per_sample
                case SpokenWord():
                    start_s, end_s = round(told.start_s, 4), round(told.end_s, 4)
                    await self._say(speak.Word(word=told.word, start_s=start_s, end_s=end_s))
                case Skipped():
                    await self._say(speak.Skipped(text=told.text))
                case SaidAll(is_end=False):
                    await self._say(speak.Flushed(samples=self.num_sent))
                case SaidAll():
                    self.protocol.end()
                    self.utterance = None
                    await self._say(speak.Finished(samples=self.num_sent))

    async def _stop(self) -> None:
        """Send nothing more of what is being said."""
        if self.utterance is not None:
            self.utterance.close()
            self.utterance = None
        if self.telling is not None:
            self.telling.cancel()
            await asyncio.gather(self.telling, return_exceptions=True)
            self.telling = None

    async def _say(self, message: Message) -> None:
        await self.websocket.send_text(encode(message))
