"""Tables on standard output: as wide as the terminal, or as wide as they need in a pipe."""

import sys

from rich.console import Console
from rich.table import Table

__all__ = ["print_table"]

PIPE_WIDTH = 200


def print_table(table: Table) -> None:
    """Print ``table``; square brackets in it are text, not markup."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    Console(markup=False, highlight=False, width=width).print(table)
