"""What the recipes' command lines share: a live line of progress, and errors in one line."""

import atexit
import sys
from collections.abc import Callable, Mapping
from typing import Any

from audiossm.errors import AudioSSMError
from audiossm_apps.complaint import complain

__all__ = ["StepBar", "run_recipe"]

TOLD = 4  # numbers of a row that fit beside the bar


class StepBar:
    """A bar on standard error that shows how far a run is; nothing where that is no terminal.

    Args:
        total: steps.
        step: that it begins at.
        shown: whether this process shows it at all.
    """

    def __init__(self, total: int, step: int, *, shown: bool = True) -> None:
        self._bar: Any = None
        if not shown or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("training", total=total, completed=step)
        self._bar.start()
        atexit.register(self.close)  # a terminal without a cursor is no way to end

    def show(self, step: int, row: Mapping[str, float] | None = None) -> None:
        """Go on to a step; ``row`` has the newest numbers."""
        if self._bar is None:
            return
        self._bar.update(self._task, completed=step)
        if row:
            numbers = [(name, x) for name, x in row.items() if name not in ("step", "minutes")]
            told = " ".join(f"{name} {number:.3g}" for name, number in numbers[:TOLD])
            self._bar.update(self._task, description=told)

    def close(self) -> None:
        """Take it away."""
        if self._bar is not None:
            self._bar.stop()


def run_recipe(main: Callable[[], None], *, resumes: bool = True) -> int:
    """Run a recipe; return its exit code, 1 with a line on standard error if it can't go on.

    Args:
        main: the recipe's.
        resumes: whether its command, given again, goes on where it was stopped.
    """
    try:
        main()
    except AudioSSMError as exc:
        complain(str(exc))
        return 1
    except OSError as exc:
        complain(f"{exc.filename or 'standard output'}: {exc.strerror or exc}")
        return 1
    except KeyboardInterrupt:
        more = "; the same command goes on from the last checkpoint" if resumes else ""
        complain(f"stopped{more}", kind="")
        return 130
    return 0
