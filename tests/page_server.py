"""``audiossm serve`` as a page has it, for the commands that come after it."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest

from audiossm_apps.cli import main
from audiossm_apps.live import server as live_server


@contextmanager
def serving(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run ``audiossm serve ...`` in a thread; yield ``127.0.0.1:port``."""
    servers, make_server = [], live_server.make_server
    logs = [logging.getLogger(name) for name in ("audiossm", "uvicorn", "asyncio")]
    before = [(log, log.handlers, log.propagate, log.level) for log in logs]

    def keep(*args: object, **kwargs: object) -> object:
        servers.append(make_server(*args, **kwargs))
        return servers[-1]

    monkeypatch.setattr(live_server, "make_server", keep)
    thread = Thread(target=main, args=(words,))
    thread.start()
    while not (servers and servers[0].started):
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"127.0.0.1:{servers[0].servers[0].sockets[0].getsockname()[1]}"
    servers[0].should_exit = True
    thread.join()
    for log, handlers, propagate, level in before:  # lines of JSON were a server's alone
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)
