"""``audiossm conformance``: compare this installation's numbers with stored arrays."""

import argparse

from audiossm_apps.options import positive

__all__ = ["add_command", "run"]


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``conformance`` to the command line."""
    parser = commands.add_parser(
        "conformance",
        help="compare this installation's Mamba-3 layer with golden arrays",
        description="Run each golden file of a folder and compare outputs and states with it.",
    )
    parser.add_argument("folder", metavar="DIR", help="folder with golden files")
    parser.add_argument(
        "--tolerance",
        type=positive,
        help="largest relative error that passes (default: that of a float32 implementation)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line for each file; return 1 if one is outside the tolerance."""
    from rich.table import Table

    from audiossm.evaluate.conformance import TOLERANCE, run_conformance
    from audiossm_apps.tables import print_table

    tolerance = TOLERANCE if args.tolerance is None else args.tolerance
    results = run_conformance(args.folder, tolerance)
    table = Table(title=f"conformance, tolerance {tolerance:g}")
    for heading in ("file", "kind", "worst key", "max rel. error", "result"):
        table.add_column(heading, overflow="fold")
    for result in results:
        table.add_row(
            str(result.file),
            result.kind,
            result.worst_key,
            f"{result.max_rel_error:.2e}",
            "pass" if result.passed else "FAIL",
        )
    print_table(table)
    failed = sum(not result.passed for result in results)
    print(f"{len(results) - failed} of {len(results)} passed")
    return 1 if failed else 0
