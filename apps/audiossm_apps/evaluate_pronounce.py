"""``audiossm evaluate pronounce``: a sounder against pronunciations that somebody else knows."""

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audiossm.evaluate.pronounce import PronunciationScore

__all__ = ["add_task", "run"]


def add_task(tasks: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the task."""
    parser = tasks.add_parser(
        "pronounce",
        help="phone errors and right words of a sounder",
        description=(
            "Have the model, not the lexicon, pronounce words, and count phones that are wrong, "
            "inserted or missing, with marks of stress and without."
        ),
    )
    parser.add_argument(
        "words", metavar="WORDS.txt", help="a word, a tab and its phones parted by spaces a line"
    )
    parser.add_argument(
        "--model",
        metavar="NAME|DIR",
        help="a sounder that 'audiossm models' lists, or its folder (default: the shipped one)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a table or a JSON object."""
    from pathlib import Path

    from audiossm.evaluate.pronounce import read_references, score_pronunciations
    from audiossm.models import LoadedSounder

    references = read_references(Path(args.words))
    sounder, words = LoadedSounder.load(args.model), list(references)
    found = dict(zip(words, sounder.pronounce(words), strict=True))
    score = score_pronunciations(found, references)
    if args.json:
        print(json.dumps({"model": sounder.name, **score.to_json()}, indent=2))
    else:
        _print_table(sounder.name, score)
    return 0


def _print_table(model: str, score: "PronunciationScore") -> None:
    from rich.table import Table

    from audiossm_apps.tables import print_table

    table = Table(title=f"{model}, {score.plain.words} words of {score.plain.phones} phones")
    table.add_column("stress")
    for heading in ("phone errors", "PER %", "right words", "right %"):
        table.add_column(heading, justify="right")
    for name, item in (("counted", score.stressed), ("left out", score.plain)):
        table.add_row(
            name,
            str(item.errors),
            f"{100 * item.rate:.2f}",
            str(item.right),
            f"{100 * item.accuracy:.1f}",
        )
    print_table(table)
