"""What goes wrong, as one line on standard error."""

import sys
from pathlib import Path

__all__ = ["complain", "name_source"]


def complain(message: str, kind: str = "error: ") -> None:
    """Print a line; what a terminal would obey, such as a file name's line break, is escaped."""
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
    print(f"audiossm: {kind}{plain}", file=sys.stderr)


def name_source(source: str, message: str) -> str:
    """Say which input a message is about, where it doesn't yet."""
    name = "standard input" if source == "-" else str(Path(source))
    return message if message.startswith(name) else f"{name}: {message}"
