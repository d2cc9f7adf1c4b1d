"""What is served: one engine, who may use it, and an end at which nothing is lost."""

import asyncio
import json
import logging
import time
from typing import Any

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response

from audiossm.streaming import Engine
from audiossm_apps.live.gate import Gate

__all__ = ["Service"]

logger = logging.getLogger("audiossm.service")


class Service:
    """An engine and what all routes to it share; ``make_app`` has the routes.

    Attributes:
        ready: streams are let in.
        leaving: is set once nobody is let in any more, and ``drained`` once every stream is kept.
        num_connections: websockets.
    """

    def __init__(self, engine: Engine, gate: Gate | None = None) -> None:
        self.engine, self.gate = engine, gate or Gate()
        self.model_name = engine.transcriber.name
        self.ready = False
        self.leaving, self.drained = asyncio.Event(), asyncio.Event()
        self.num_connections = 0

    async def drain(self, timeout_s: float = 10.0) -> None:
        """Let nobody in, keep every stream, and tell all clients to go on elsewhere."""
        if self.leaving.is_set():
            await self.drained.wait()
            return
        self.log("draining", connections=self.num_connections)
        self.leaving.set()
        await asyncio.sleep(0)  # readers stop
        await self.engine.drain(timeout_s)
        await asyncio.sleep(0)  # the outcome is taken up
        self.drained.set()
        until = time.monotonic() + 2.0
        while self.num_connections and time.monotonic() < until:
            await asyncio.sleep(0.02)

    def log(self, event: str, **fields: Any) -> None:
        """Write a line of JSON, never with audio or text in it."""
        logger.info(json.dumps({"event": event} | fields))

    def refuse(self, connection: HTTPConnection, needs_room: bool = True) -> Response | None:
        """Return why somebody may not come in, if so."""
        if not self.gate.allows_origin(connection.headers):
            return PlainTextResponse("this origin may not connect\n", 403)
        if self.gate.find_key(connection.headers, connection.query_params) is None:
            headers = {"WWW-Authenticate": "Bearer"}
            return PlainTextResponse("a key is needed\n", 401, headers)
        retry = {"Retry-After": str(round(self.engine.limits.retry_s))}
        if not self.ready or self.leaving.is_set():
            return PlainTextResponse("this server isn't ready, or going down\n", 503, retry)
        if needs_room and self.engine.is_full:
            self.engine.meters.refused += 1
            return PlainTextResponse("all places for streams are taken\n", 503, retry)
        return None
