"""Several recordings at once: processes, each with its own model, that take one after another."""

import argparse
import contextlib
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, cast

from audiossm.errors import AudioError, AudioSSMError, OutputError

if TYPE_CHECKING:
    from audiossm.hotwords import HotWord
    from audiossm.streaming import Token, Transcriber, Transcript, Word, WrittenWord

__all__ = ["Outcome", "Task", "do_task", "plain_options", "run_tasks"]

PATIENCE_S = 5.0  # for a worker to clean up after itself
SOON_S = 0.01


@dataclass(frozen=True)
class Task:
    """A recording, and the file that its result goes to, if any."""

    source: str
    target: Path | None


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        transcripts: with their names, of a task without a target.
        failure: what went wrong, in a line.
    """

    transcripts: "tuple[tuple[str, Transcript], ...]" = ()
    failure: str | None = None


def run_tasks(
    tasks: Sequence[Task],
    args: argparse.Namespace,
    hotwords: "tuple[HotWord, ...]",
    num_workers: int,
) -> Iterator[tuple[int, Outcome]]:
    """Yield each task's number and outcome, as they come to an end.

    A worker that dies costs the recording that it had; another one takes its place. When the
    caller stops, so do the workers.

    Raises:
        AudioSSMError: a worker can't load the model.
    """
    left = deque(enumerate(tasks))
    busy: dict[Connection, _Worker] = {}
    idle: list[_Worker] = []
    try:
        while left or busy:
            while left and len(busy) < num_workers:
                while idle and not idle[-1].process.is_alive():
                    idle.pop().end()
                worker = idle.pop() if idle else _Worker(args, hotwords)
                # it is among the busy ones before it has anything to do: it is ended in any case
                busy[worker.pipe] = worker
                worker.begin(*left.popleft())
            for pipe in wait(list(busy)):
                worker = busy.pop(cast(Connection, pipe))
                outcome = worker.take_outcome()
                if isinstance(outcome, AudioSSMError):
                    raise outcome
                if worker.process.is_alive():
                    idle.append(worker)
                yield worker.number, outcome
    finally:
        for worker in [*busy.values(), *idle]:
            worker.end()


class _Worker:
    """A process and the task that it has."""

    def __init__(self, args: argparse.Namespace, hotwords: "tuple[HotWord, ...]") -> None:
        context = get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_serve, args=(other, plain_options(args), hotwords), daemon=True
        )
        self.number = -1
        with _no_interrupts():
            self.process.start()
        other.close()

    def begin(self, number: int, task: Task) -> None:
        self.number, self.source = number, task.source
        try:
            self.pipe.send(task)
        except OSError:
            pass  # it died: that shows when its outcome is taken

    def take_outcome(self) -> Outcome | AudioSSMError:
        try:
            outcome: Outcome | AudioSSMError = self.pipe.recv()
            return outcome
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"killed by signal {-code}: out of memory?" if code < 0 else f"exit code {code}"
            return Outcome(failure=f"{self.source}: its process ended early ({how})")

    def end(self) -> None:
        self.process.terminate()
        self.process.join(PATIENCE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """Let a process that starts here be deaf to Ctrl-C from the first: its parent ends it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_when_told() -> None:
    """Let SIGTERM end this process as Ctrl-C ends others: what is open is cleaned up."""

    def leave(number: int, frame: object) -> None:
        sys.exit(0)

    def leave_later(found: "sys.UnraisableHookArgs") -> None:
        # it came while something was being freed, where Python lets go of an exception
        if isinstance(found.exc_value, SystemExit) and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, SOON_S)
        else:
            sys.__unraisablehook__(found)

    signal.signal(signal.SIGTERM, leave)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, leave)
    sys.unraisablehook = leave_later


def _serve(pipe: Connection, args: argparse.Namespace, hotwords: "tuple[HotWord, ...]") -> None:
    """Load the model and do what comes through the pipe, until it is closed or we are ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_when_told()
    from audiossm_apps.options import load_transcriber

    args.threads = args.threads or 1
    try:
        try:
            transcriber = load_transcriber(args, readable=not args.raw)
        except AudioSSMError as exc:
            pipe.send(exc)
            return
        while True:
            pipe.send(do_task(transcriber, pipe.recv(), args, hotwords))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone


def plain_options(args: argparse.Namespace) -> argparse.Namespace:
    """Return what of the command line another process needs."""
    plain = {key: value for key, value in vars(args).items() if key not in ("run", "parser")}
    return argparse.Namespace(**plain)


def do_task(
    transcriber: "Transcriber",
    task: Task,
    args: argparse.Namespace,
    hotwords: "tuple[HotWord, ...]",
) -> Outcome:
    """Do a task with a model that is loaded; what goes wrong with the recording is its outcome."""
    from audiossm_apps.recording import transcribe_recording, transcribe_to_file

    collector = _Collector()
    failure = None
    try:
        if task.target is None:
            transcribe_recording(
                transcriber, task.source, collector, args, hotwords, shows_bar=False
            )
        else:
            transcribe_to_file(
                transcriber, task.source, task.target, args, hotwords, shows_bar=False
            )
    except (AudioError, OutputError) as exc:
        failure = str(exc)
    return Outcome(tuple(collector.transcripts), failure)


class _Collector:
    """A writer of transcripts that keeps them."""

    def __init__(self) -> None:
        self.transcripts: list[tuple[str, Transcript]] = []

    def token(self, token: "Token") -> None:
        pass

    def word(self, word: "Word | WrittenWord") -> None:
        pass

    def done(self, name: str, transcript: "Transcript") -> None:
        self.transcripts.append((name, transcript))

    def close(self) -> None:
        pass
