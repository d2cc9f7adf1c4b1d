"""Results that are files of their own: there whole or not at all, and made once."""

import contextlib
import os
from pathlib import Path

from audiossm.errors import OutputError
from audiossm.whole import write_beside

__all__ = ["is_newer", "make_folder", "write_whole"]


def is_newer(target: Path, source: str) -> bool:
    """Tell whether a file was written after another one; False if one of them isn't there."""
    try:
        return target.stat().st_mtime_ns > os.stat(source).st_mtime_ns
    except OSError:
        return False


def make_folder(target: Path) -> None:
    """Make the folder of a result, if it isn't there.

    Raises:
        OutputError: it can't be made.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        reason = exc.strerror or exc
        raise OutputError(f"{target.parent}: the folder can't be made: {reason}") from exc


def write_whole(target: Path, data: bytes, *, as_old_as: str | None = None) -> None:
    """Write a file under a name of its own and rename it.

    Args:
        target: where; an existing file is replaced.
        data: all of it.
        as_old_as: a file whose time the new one gets: it doesn't count as newer, so that the next
            run makes it again.

    Raises:
        OutputError: it can't be written.
    """
    try:
        with write_beside(target) as part:
            with open(part, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # or a power cut leaves a new name with nothing in it
            if as_old_as is not None:
                with contextlib.suppress(OSError):
                    time_ns = os.stat(as_old_as).st_mtime_ns
                    os.utime(part, ns=(time_ns, time_ns))
    except OSError as exc:
        raise OutputError(f"{target}: can't be written: {exc.strerror or exc}") from exc
