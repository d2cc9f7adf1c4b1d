"""A bar on standard error that shows how far a recording is."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["show_progress"]


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
