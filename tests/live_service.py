"""The service with a tiny model, on a port of this machine, in this process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import uvicorn

from audiossm.streaming import (
    Engine,
    EngineLimits,
    MemoryStore,
    SnapshotStore,
    SpeechEngine,
    SpeechLimits,
)
from audiossm_apps.live.gate import Gate
from audiossm_apps.live.server import make_config
from audiossm_apps.live.service import Service
from tiny_model import make_transcriber
from tiny_speaker import make_speaker

__all__ = ["ROUTES", "live", "run_live"]

# of every dialect's websocket
ROUTES = (
    "/v1/stream",
    "/v1/realtime",
    "/v1/listen?encoding=linear16",
    "/vosk",
    "/sherpa",
    "/api/asr-streaming",
)


@contextlib.asynccontextmanager
async def live(
    store: SnapshotStore | None = None,
    gate: Gate | None = None,
    speech: SpeechLimits | None = None,
    wire: Mapping[str, Any] | None = None,
    **limits: Any,
) -> AsyncIterator[tuple[Service, str]]:
    """Serve, and yield the service and its address, ``127.0.0.1:port``.

    It speaks where ``speech`` is given; ``wire`` has settings of uvicorn.
    """
    limits = {"capacity": 8} | limits
    engine = Engine(make_transcriber(), store or MemoryStore(), 2, EngineLimits(**limits))
    speaking = None if speech is None else SpeechEngine(make_speaker(), 2, speech)
    service = Service(engine, gate, speaking)
    config = make_config(service, port=0, timeout_graceful_shutdown=5, **(wire or {}))
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
        assert not task.done(), task.exception()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield service, f"127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


def run_live(test: Callable[[Service, str], Awaitable[None]], **settings: Any) -> None:
    """Run a test against a service of its own."""

    async def main() -> None:
        async with live(**settings) as (service, address):
            await asyncio.wait_for(test(service, address), 60)

    asyncio.run(main())
