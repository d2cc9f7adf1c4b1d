"""Recordings to text by the workers of a Ray cluster: Ray Data hands them out one by one."""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiossm.errors import AudioSSMError, DependencyError, ServiceError
from audiossm_apps.workers import Outcome, Task, do_task, plain_options

if TYPE_CHECKING:
    from audiossm.hotwords import HotWord
    from audiossm.streaming import Transcriber

__all__ = ["begin_ray", "run_ray_tasks"]

MOST_TRIES = 10


def begin_ray(address: str | None, num_cpus: int | None = None) -> Any:
    """Connect to a cluster, or begin one on this machine, and return the package ray.

    Args:
        address: ``HOST:PORT``; by default what RAY_ADDRESS says, or nothing.
        num_cpus: how many cores a new one thinks it has; by default those that there are.

    Raises:
        DependencyError: ray isn't installed.
        ServiceError: there is no cluster at that address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report home
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
    try:
        import ray
    except ImportError as exc:
        raise DependencyError("this needs the package ray: pip install 'audiossm[ray]'") from exc
    package: Any = ray
    known = address or os.environ.get("RAY_ADDRESS")
    own = {} if known else {"num_cpus": num_cpus, "include_dashboard": False}
    try:
        package.init(address=known, log_to_driver=False, logging_level="ERROR", **own)
    except Exception as exc:  # what it raises when a process doesn't come up has no class
        reason = (str(exc).strip().splitlines() or [""])[0]
        raise ServiceError(f"no Ray cluster at {known or 'this machine'}: {reason}") from exc
    return package


def run_ray_tasks(
    tasks: Sequence[Task],
    args: argparse.Namespace,
    hotwords: "tuple[HotWord, ...]",
    num_workers: int | None = None,
) -> Iterator[tuple[int, Outcome]]:
    """Yield each task's number and outcome as they come to an end, as ``run_tasks`` does.

    A worker that dies is replaced, and its recording is gone on with: from where ``.partial`` says,
    if its result is a file.

    Args:
        tasks: at least one; all machines of the cluster see their files.
        args: the command line's options.
        hotwords: for all of them.
        num_workers: at once; by default one for each core of the cluster.

    Raises:
        AudioSSMError: a worker can't load the model.
        DependencyError: ray isn't installed.
        ServiceError: there is no cluster at ``args.ray_address``.
    """
    ray = begin_ray(args.ray_address, num_workers)
    try:
        # Ray tells of dead workers there, among results
        with contextlib.redirect_stdout(sys.stderr):
            yield from _run(ray, tasks, args, hotwords, num_workers)
    finally:
        ray.shutdown()


def _run(
    ray: Any,
    tasks: Sequence[Task],
    args: argparse.Namespace,
    hotwords: "tuple[HotWord, ...]",
    num_workers: int | None,
) -> Iterator[tuple[int, Outcome]]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    workers = num_workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    workers = min(workers, len(tasks))
    rows = [
        {"number": number, "source": task.source, "target": str(task.target or "")}
        for number, task in enumerate(tasks)
    ]
    begun = ray.remote(num_cpus=0)(Begun).remote()
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        RayWorker,
        fn_constructor_args=(plain_options(args), hotwords, os.getcwd(), begun),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        num_cpus=1,  # Ray restarts a worker that died, and hands its recording out again
    )
    for row in done.iter_rows():
        outcome, said = row["outcome"]
        sys.stderr.write(said)
        if isinstance(outcome, AudioSSMError):
            raise outcome
        yield int(row["number"]), outcome


class Begun:
    """How often each recording was begun: one that ends its workers isn't handed out for ever."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}

    def count(self, number: int) -> int:
        """Count once more, and return how often it was."""
        self.counts[number] = self.counts.get(number, 0) + 1
        return self.counts[number]


class RayWorker:
    """A process of the cluster with a model of its own."""

    def __init__(
        self,
        args: argparse.Namespace,
        hotwords: "tuple[HotWord, ...]",
        folder: str,
        begun: Any,
    ) -> None:
        self.args, self.hotwords, self.begun = args, hotwords, begun
        self.args.threads = args.threads or 1
        self.transcriber: Transcriber | None = None
        with contextlib.suppress(OSError):  # names may be relative
            os.chdir(folder)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do one task."""
        import ray

        from audiossm_apps.options import load_transcriber

        tries = ray.get(self.begun.count.remote(int(batch["number"][0])))
        source, target = str(batch["source"][0]), str(batch["target"][0])
        with contextlib.redirect_stderr(io.StringIO()) as said:
            outcome: Outcome | AudioSSMError
            try:
                if self.transcriber is None:
                    self.transcriber = load_transcriber(self.args, readable=not self.args.raw)
                task = Task(source, Path(target) if target else None)
                if tries > MOST_TRIES:
                    deaths = f"{source}: its worker ended early {tries - 1} times (out of memory?)"
                    outcome = Outcome(failure=deaths)
                else:
                    outcome = do_task(self.transcriber, task, self.args, self.hotwords)
            except AudioSSMError as exc:
                outcome = exc
        return {"number": batch["number"], "outcome": [(outcome, said.getvalue())]}
