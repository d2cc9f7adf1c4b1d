"""A bar on standard error that shows how far a recording, or a list of them, is."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["count_progress", "show_progress"]


@contextlib.contextmanager
def show_progress(
    source: str, num_samples: int | None, *, shown: bool
) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes how many samples are done now; without a bar it does nothing."""
    if not shown:
        yield lambda size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(Path(source).name, total=num_samples)
        yield lambda size: progress.advance(task, size)


@contextlib.contextmanager
def count_progress(
    total: int, doing: str = "transcribing", *, shown: bool = True
) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each of ``total`` things; a terminal shows how far it is."""
    if not shown or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda: progress.advance(task)
