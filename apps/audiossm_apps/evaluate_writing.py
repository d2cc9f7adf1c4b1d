"""``audiossm evaluate writing``: capitals and punctuation against written sentences."""

import argparse
import json
from typing import TYPE_CHECKING

from audiossm_apps.options import share

if TYPE_CHECKING:
    from audiossm.evaluate.writing import WritingScore

__all__ = ["add_task", "run"]


def add_task(tasks: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the task."""
    parser = tasks.add_parser(
        "writing",
        help="F1 of capitals, commas, full stops and question marks",
        description=(
            "Take capitals and punctuation from written sentences, a line each, and have them "
            "written again as one stream, without a hint where a sentence ends. Exclamation marks "
            "count as full stops at the end of a sentence; semicolons, colons, dashes and other "
            "exclamation marks as commas."
        ),
    )
    parser.add_argument(
        "sentences", metavar="SENTENCES.txt", help="written sentences, perhaps packed by xz"
    )
    parser.add_argument(
        "--model",
        metavar="NAME|DIR",
        help="a writer that 'audiossm models' lists, or its folder (default: the shipped one)",
    )
    parser.add_argument(
        "--misheard",
        type=share,
        default=0.0,
        metavar="SHARE",
        help="replace this share of the words, 0 to 1, by any others and score the rest "
        "(default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a table or a JSON object."""
    from pathlib import Path

    from audiossm.evaluate.writing import read_lines, score_writer
    from audiossm.models import LoadedWriter

    lines = read_lines(Path(args.sentences))
    score = score_writer(LoadedWriter.load(args.model), lines, args.misheard)
    if args.json:
        print(json.dumps(score.to_json(), indent=2))
    else:
        _print_table(score)
    return 0


def _print_table(score: "WritingScore") -> None:
    from rich.table import Table

    from audiossm_apps.tables import print_table

    title = f"{score.model}, {score.sentences} sentences of {score.words} words"
    table = Table(title=title + (f", {score.misheard} misheard" if score.misheard else ""))
    table.add_column("what")
    for heading in ("F1", "precision", "recall", "right", "wrong", "missed"):
        table.add_column(heading, justify="right")
    for name, counts in score.classes.items():
        table.add_row(
            name,
            *(f"{value:.3f}" for value in (counts.f1, counts.precision, counts.recall)),
            *(str(count) for count in (counts.right, counts.wrong, counts.missed)),
        )
    print_table(table)
