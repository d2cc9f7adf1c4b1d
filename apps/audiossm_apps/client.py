"""Clients of the live service that go on after any loss: one for asyncio, one for plain code.

async with connect("ws://localhost:8765") as stream:
    await stream.send(samples)
    await stream.finish()
    async for reply in stream:
        ...
"""

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from audiossm.errors import DependencyError, ProtocolError, ServiceError
from audiossm.protocol import ClientProtocol
from audiossm.protocol.encoding import OPUS_RATE
from audiossm.protocol.native import Failure, Finished, Forked, Reply, Resumed, Start, Started

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

    from audiossm.audio.opus_writer import OpusPage, OpusWriter

__all__ = ["AsyncStream", "SyncStream", "connect", "stream_address"]

T = TypeVar("T")
Samples = NDArray[np.float32]

PATH = "/v1/stream"
# what another try may help against
PASSING = {"full", "going", "failed", "idle"}
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0


def stream_address(server: str) -> str:
    """Return the address of the native protocol on a server: ``host:port``, or with ws, http..."""
    scheme, mark, rest = server.partition("://")
    if not mark:
        scheme, rest = "ws", server
    scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
    rest = rest.rstrip("/")
    return f"{scheme}://{rest}" if "/" in rest else f"{scheme}://{rest}{PATH}"


def connect(
    server: str,
    *,
    key: str | None = None,
    give_up_s: float = 60.0,
    max_waiting_s: float = 5.0,
    fork: Forked | None = None,
    **settings: Any,
) -> "AsyncStream":
    """Return a stream to a server, to be entered with ``async with``.

    Args:
        server: address, such as ``ws://localhost:8765``.
        key: API key, if it wants one.
        give_up_s: so long nobody may answer before ServiceError is raised.
        max_waiting_s: audio that may wait to be sent before ``send`` waits.
        fork: what ``AsyncStream.fork`` returned: the stream goes on there.
        settings: fields of ``audiossm.protocol.native.Start``: sample_rate, encoding, ... With the
            encoding ``opus`` samples of any rate become Opus here: a tenth of the bytes, but no
            longer exact, least of all after a resume. ``flush`` then comes after whole packets, so
            before the last 26 ms.

    Raises:
        AudioError: no Opus can be made of that sample rate.
        DependencyError: Opus needs PyAV, which is not installed.
    """
    address, writer = stream_address(server), None
    if settings.get("encoding") == "opus" and fork is None:
        from audiossm.audio.opus_writer import OpusWriter

        writer = OpusWriter(settings.get("sample_rate", Start.sample_rate))
        start = Start(**(settings | {"sample_rate": OPUS_RATE}))
        protocol = ClientProtocol(start, writer.head)
    elif fork is None:
        protocol = ClientProtocol(Start(**settings))
    else:
        protocol = ClientProtocol.of_fork(Start(**settings), fork)
    return AsyncStream(address, protocol, key, give_up_s, max_waiting_s, writer)


class AsyncStream:
    """A stream of audio to a server. Iterate over it for what the server says, each thing once.

    When the connection or the server is lost it connects again and goes on; what the server had
    not yet made durable is sent again. ``reconnects`` counts that.
    """

    def __init__(
        self,
        address: str,
        protocol: ClientProtocol,
        key: str | None = None,
        give_up_s: float = 60.0,
        max_waiting_s: float = 5.0,
        writer: "OpusWriter | None" = None,
    ) -> None:
        self.address, self.key, self.give_up_s = address, key, give_up_s
        self.protocol, self.writer = protocol, writer
        self.max_waiting = max(1, int(max_waiting_s * protocol.start.sample_rate))
        self.reconnects = 0
        self._socket: ClientConnection | None = None
        self._replies: asyncio.Queue[Reply | BaseException | None] = asyncio.Queue()
        self._moved = asyncio.Event()
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._forks: list[asyncio.Future[Forked]] = []
        self._ended = False
        self._failed: BaseException | None = None

    async def __aenter__(self) -> Self:
        try:
            import websockets  # noqa: F401
        except ImportError as exc:
            raise DependencyError(
                "a client needs the package websockets: pip install 'audiossm[serve]'"
            ) from exc
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def send(self, samples: Samples) -> None:
        """Send samples (samples,) in [-1, 1]; wait while much is on its way.

        Raises:
            ServiceError: the server can't be reached, or refuses.
        """
        if self.writer is None:
            self.protocol.send_audio(samples)
        else:
            self._add_pages(self.writer.push(samples))
        await self._push()
        while self.protocol.waiting > self.max_waiting:
            await self._move()

    async def ready(self) -> None:
        """Wait until a server has let the stream in.

        Raises:
            ServiceError: the server can't be reached, or refuses.
        """
        while self.protocol.handle is None:
            await self._move()

    async def flush(self) -> None:
        """Ask for all that can be told now."""
        self._cut()
        self.protocol.flush()
        await self._push()

    async def set_hotwords(self, hotwords: Iterable[str | tuple[str, float]]) -> None:
        """Ask for these phrases, or (phrase, weight), from here on."""
        self._cut()
        self.protocol.set_hotwords(hotwords)
        await self._push()

    async def rewind(self, seconds: float) -> None:
        """Ask to go back; ``keep_s`` at the start says how far one can."""
        self._cut()
        self.protocol.rewind(seconds)
        await self._push()

    async def finish(self) -> None:
        """Say that no more comes."""
        if self.writer is not None:
            self._add_pages(self.writer.finish())
        self.protocol.finish()
        await self._push()

    async def fork(self) -> Forked:
        """Return a copy of the stream as it is here, for ``connect(..., fork=...)``.

        Raises:
            ServiceError: the connection was lost meanwhile: ask again.
        """
        future: asyncio.Future[Forked] = asyncio.get_running_loop().create_future()
        self._forks.append(future)
        self._cut()
        self.protocol.fork()
        await self._push()
        return await future

    async def drop(self) -> None:
        """Cut the connection, as a bad network does; the stream goes on over another one."""
        if self._socket is not None:
            self._socket.transport.abort()

    async def __aiter__(self) -> AsyncIterator[Reply]:
        """Yield replies until the stream is finished.

        Raises:
            ServiceError: the server can't be reached, or refuses.
        """
        while True:
            reply = await self._replies.get()
            if reply is None:
                return
            if isinstance(reply, BaseException):
                raise reply
            yield reply

    def _cut(self) -> None:
        """Have all whole packets of Opus before what is asked for now."""
        if self.writer is not None:
            self._add_pages(self.writer.cut())

    def _add_pages(self, pages: "Iterable[OpusPage]") -> None:
        for page in pages:
            self.protocol.send_page(page.data, page.num_samples)

    async def _move(self) -> None:
        self._moved.clear()
        if self._failed is not None:
            raise self._failed
        await self._moved.wait()
        if self._failed is not None:
            raise self._failed

    async def _push(self) -> None:
        """Send what may be sent; what gets lost is sent again later."""
        from websockets.exceptions import ConnectionClosed

        if self._failed is not None:
            raise self._failed
        async with self._lock:
            socket = self._socket
            if socket is None:
                return
            with contextlib.suppress(ConnectionClosed):
                for message in self.protocol.outgoing():
                    await socket.send(message)

    async def _run(self) -> None:
        try:
            await self._keep_on()
        except (ServiceError, ProtocolError) as exc:
            self._failed = exc
            self._replies.put_nowait(exc)
        else:
            self._replies.put_nowait(None)
        finally:
            self._lose_forks()
            self._moved.set()

    async def _keep_on(self) -> None:
        loop = asyncio.get_running_loop()
        heard, pause_s = loop.time(), FIRST_PAUSE_S
        first = True
        while not self.protocol.finished:
            if not first:
                self.reconnects += 1
            first = False
            reason, retry_s, answered = await self._converse()
            if self.protocol.finished:
                return
            if answered:
                heard, pause_s = loop.time(), FIRST_PAUSE_S
            if loop.time() - heard > self.give_up_s:
                raise ServiceError(f"{self.address}: {reason}")
            # a little chance, so that not everybody comes back in one moment
            await asyncio.sleep(max(retry_s, pause_s) * random.uniform(0.7, 1.3))
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)

    async def _converse(self) -> tuple[str, float, bool]:
        """Speak over one connection to its end: why it ended, when to try again, any answer."""
        from websockets.asyncio.client import connect as open_socket
        from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

        address = self.address
        if self.protocol.handle is not None:
            address += "&resume" if "?" in address else "?resume"
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        answered = False
        try:
            # no compression: audio has nothing to gain from it
            async with open_socket(
                address, additional_headers=headers, compression=None, open_timeout=10
            ) as socket:
                async with self._lock:
                    self.protocol.connected()
                    self._socket = socket
                await self._push()
                try:
                    async for message in socket:
                        for reply in self.protocol.receive(message):
                            answered = answered or isinstance(reply, Started | Resumed)
                            if isinstance(reply, Failure):
                                return self._judge(reply) + (answered,)
                            if not self._ended:
                                self._hand_on(reply)
                        await self._push()
                        self._moved.set()
                        if self.protocol.finished:
                            await socket.close()
                finally:
                    self._socket = None
                    self._lose_forks()
            return "the server closed the connection", 0.0, answered
        except InvalidStatus as exc:
            status = exc.response.status_code
            if status not in (429, 500, 502, 503, 504):
                raise ServiceError(f"{self.address}: refused with HTTP {status}") from exc
            after = exc.response.headers.get("Retry-After", "0")
            return f"HTTP {status}", float(after) if after.isdecimal() else 0.0, answered
        except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError) as exc:
            return str(exc) or type(exc).__name__, 0.0, answered

    def _judge(self, failure: Failure) -> tuple[str, float]:
        if failure.code in PASSING:
            return failure.message, failure.retry_s
        raise ServiceError(f"{self.address}: {failure.message}")

    def _hand_on(self, reply: Reply) -> None:
        if isinstance(reply, Forked) and self._forks:
            future = self._forks.pop(0)
            if not future.done():
                future.set_result(reply)
        self._replies.put_nowait(reply)
        self._ended = isinstance(reply, Finished)

    def _lose_forks(self) -> None:
        for future in self._forks:
            if not future.done():
                future.set_exception(ServiceError("the connection was lost: fork again"))
        self._forks.clear()


class SyncStream:
    """The same for code without asyncio: a thread has the connection.

    ``with SyncStream("ws://localhost:8765", sample_rate=16000) as stream``; arguments as those of
    ``connect``. ``replies`` waits for the next ones until the stream is finished.
    """

    def __init__(self, server: str, **settings: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

        async def make() -> AsyncStream:
            return connect(server, **settings)

        self.stream = self._do(make())
        self._iterator = aiter(self.stream)

    def __enter__(self) -> Self:
        self._do(self.stream.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self.stream.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def send(self, samples: Samples) -> None:
        """Send samples (samples,) in [-1, 1]; wait while much is on its way."""
        self._do(self.stream.send(samples))

    def flush(self) -> None:
        """Ask for all that can be told now."""
        self._do(self.stream.flush())

    def finish(self) -> None:
        """Say that no more comes."""
        self._do(self.stream.finish())

    def replies(self) -> Iterator[Reply]:
        """Yield what the server says, to the end of the stream."""

        async def take() -> Reply | None:
            return await anext(self._iterator, None)

        while (reply := self._do(take())) is not None:
            yield reply
            if isinstance(reply, Finished):
                return

    def _do(self, task: "Coroutine[Any, Any, T]") -> T:
        return asyncio.run_coroutine_threadsafe(task, self._loop).result()
