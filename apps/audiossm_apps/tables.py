"""Tables on standard output: as wide as the terminal, or as wide as they need in a pipe."""

import sys
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

__all__ = ["print_machine", "print_table"]

PIPE_WIDTH = 200


def print_table(table: Table) -> None:
    """Print ``table``; square brackets in it are text, not markup."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    Console(markup=False, highlight=False, width=width).print(table)


def print_machine(machine: Mapping[str, str | int], more: str = "") -> None:
    """Print the line that says where numbers were measured."""
    from audiossm.evaluate.machine import name_machine

    print(f"{name_machine(machine)}{more}")
