"""What goes wrong, as one line on standard error."""

import sys

__all__ = ["complain"]


def complain(message: str, kind: str = "error: ") -> None:
    """Print a line; what a terminal would obey, such as a file name's line break, is escaped."""
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
    print(f"audiossm: {kind}{plain}", file=sys.stderr)
