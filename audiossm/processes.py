"""Several processes that share work, and what is told when the system kills one of them."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from audiossm.errors import WorkerError

__all__ = ["start_processes"]


@contextmanager
def start_processes(
    count: int, begin: Callable[..., object] | None = None, *given: Any, option: str = "--workers"
) -> Iterator[ProcessPoolExecutor]:
    """Have processes ready for work; what wasn't begun when the block ends is dropped.

    Args:
        count: processes.
        begin: called with ``given`` in each of them, first.
        given: for ``begin``.
        option: by which a person chooses their number.

    Raises:
        WorkerError: one of them ended early, as when memory runs out and the system kills it.
    """
    # spawn: a forked child of a threaded torch can wait for ever
    pool = ProcessPoolExecutor(count, get_context("spawn"), _begin, (begin, given))
    try:
        yield pool
    except BrokenProcessPool as exc:
        raise WorkerError(
            f"one of {count} processes ended early, killed by the system (out of memory?) or by a "
            f"crash: choose fewer with {option}, or give them less at once"
        ) from exc
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(begin: Callable[..., object] | None, given: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once, without a traceback
    if begin is not None:
        begin(*given)
