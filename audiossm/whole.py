"""Files that are there whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["write_beside"]


@contextlib.contextmanager
def write_beside(path: Path) -> Iterator[Path]:
    """Yield another name beside a file; what is written there replaces it at the end of the block.

    If the block fails, the file stays as it was, and nothing stays beside it.

    Raises:
        OSError: it can't be replaced.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")  # on the same file system
    try:
        yield part
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
