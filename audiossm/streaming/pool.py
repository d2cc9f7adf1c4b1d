"""Threads that share jobs fairly: whoever has had a turn goes to the end of the line."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Pool"]

J = TypeVar("J")


class Pool(Generic[J]):
    """Runs turns of jobs in threads. A job is in one turn at a time, at most.

    Args:
        num_workers: threads.
        turn: runs one turn of a job and returns whether it has more to do; it must not raise.
        waited: is told how long, in seconds, each turn was in the line.
        is_urgent: whether a job goes to the front of the line now; by default none does.
    """

    def __init__(
        self,
        num_workers: int,
        turn: Callable[[J], bool],
        waited: Callable[[float], None],
        is_urgent: Callable[[J], bool] = lambda _: False,
    ) -> None:
        self._turn, self._waited, self._is_urgent = turn, waited, is_urgent
        self._condition = threading.Condition()
        self._line: deque[tuple[J, float]] = deque()
        # jobs in the line or in a turn; True if they were woken since
        self._known: dict[J, bool] = {}
        self._workers: list[_Worker[J]] = []
        self._closed = False
        for _ in range(num_workers):
            self._hire()

    def wake(self, job: J) -> None:
        """Give a job a turn, if it isn't in the line; one that is in a turn gets another one."""
        with self._condition:
            if job not in self._known:
                self._known[job] = False
                self._queue(job)
                return
            self._known[job] = True
            if self._is_urgent(job):
                for place in self._line:
                    if place[0] is job:
                        self._line.remove(place)
                        self._line.appendleft(place)
                        break

    @property
    def num_waiting(self) -> int:
        """Jobs in the line."""
        return len(self._line)

    def abandon_stuck(self, stuck_s: float) -> list[J]:
        """Give up turns that take longer; their threads are replaced, and the jobs returned.

        A thread can't be ended: should it come back, what it brings is left out.
        """
        stuck = []
        with self._condition:
            for worker in list(self._workers):
                if worker.job is not None and time.monotonic() - worker.since > stuck_s:
                    worker.abandoned = True
                    self._workers.remove(worker)
                    stuck.append(worker.job)
                    self._known.pop(worker.job, None)
                    self._hire()
        return stuck

    def is_abandoned(self) -> bool:
        """Whether the calling thread was given up in its turn."""
        worker = threading.current_thread()
        return isinstance(worker, _Worker) and worker.abandoned

    def close(self, timeout_s: float = 5.0) -> None:
        """End the threads after the turns they are in."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        until = time.monotonic() + timeout_s
        for worker in self._workers:
            worker.join(max(0.0, until - time.monotonic()))

    def _queue(self, job: J) -> None:
        place = job, time.monotonic()
        if self._is_urgent(job):
            self._line.appendleft(place)
        else:
            self._line.append(place)
        self._condition.notify()

    def _hire(self) -> None:
        worker = _Worker(self._work)
        self._workers.append(worker)
        worker.start()

    def _work(self, worker: "_Worker[J]") -> None:
        while True:
            with self._condition:
                while not self._line and not self._closed:
                    self._condition.wait()
                if self._closed:
                    return
                job, asked = self._line.popleft()
                self._known[job] = False
                worker.job, worker.since = job, time.monotonic()
            self._waited(worker.since - asked)
            more = self._turn(job)
            with self._condition:
                if worker.abandoned:
                    return
                worker.job = None
                if more or self._known[job]:
                    self._known[job] = False
                    self._queue(job)
                else:
                    del self._known[job]


class _Worker(threading.Thread, Generic[J]):
    """A thread, and what it does now."""

    def __init__(self, work: Callable[["_Worker[J]"], None]) -> None:
        super().__init__(name="audiossm-engine", daemon=True)
        self.work = work
        self.job: J | None = None
        self.since = 0.0
        self.abandoned = False

    def run(self) -> None:
        self.work(self)
