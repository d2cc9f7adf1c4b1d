"""The process that serves: a port, signals, and an end at which nothing is lost."""

import asyncio
import signal
from types import FrameType
from typing import Any

import uvicorn

from audiossm_apps.live.application import make_app
from audiossm_apps.live.service import Service
from audiossm_apps.live.wire import Wire

__all__ = ["make_config", "make_server"]


def make_config(service: Service, **settings: Any) -> uvicorn.Config:
    """Return how a service is served; ``settings`` are uvicorn's."""
    return uvicorn.Config(
        make_app(service),
        ws=Wire,
        ws_max_size=service.gate.caps.max_message,
        lifespan="on",
        access_log=False,  # its lines have queries, which may hold keys
        log_config=None,
        **settings,
    )


def make_server(service: Service, **settings: Any) -> uvicorn.Server:
    """Return a server that keeps all streams before it lets its connections go."""
    return _Server(make_config(service, timeout_graceful_shutdown=15, **settings), service)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[Any] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            for listener in self.servers:
                for sock in listener.sockets:
                    host, number = sock.getsockname()[:2]
                    print(f"audiossm: serving on {host}:{number}", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.loop is None or self.should_exit or self.service.leaving.is_set():
            super().handle_exit(signal.SIGINT, frame)  # a second signal doesn't wait
            return
        self.loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self.draining = asyncio.ensure_future(self.service.drain())
        self.draining.add_done_callback(lambda _: setattr(self, "should_exit", True))
