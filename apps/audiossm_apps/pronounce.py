"""``audiossm pronounce``: the phones of words."""

import argparse
import json

__all__ = ["add_command", "run"]

DESCRIPTION = """\
Print the phones of each English word: IPA as espeak-ng writes it, stressed vowels with a mark
before them (the main stress ˈ, other ˌ). A lexicon has the commonest words, a small model says the
others. Numbers and common abbreviations are read as words, initials letter by letter."""
EPILOG = """\
formats:
  text   a line each: word, phones parted by spaces, "lexicon" or "model", parted by tabs
  jsonl  an object a line: {"word", "phones": ["h", "ə", "l", "ˈoʊ"], "source"}"""


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``pronounce`` to the command line."""
    parser = commands.add_parser(
        "pronounce",
        help="phones of English words",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="+", metavar="WORD", help="a word, or several in quotes")
    parser.add_argument(
        "--model",
        metavar="NAME|DIR",
        help="a sounder that 'audiossm models' lists, or its folder (default: the shipped one)",
    )
    parser.add_argument(
        "--format",
        choices=("text", "jsonl"),
        default="text",
        help="see below (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line for each word."""
    from audiossm.pronouncer import Pronouncer

    for item in Pronouncer.load(args.model).pronounce(" ".join(args.words)):
        if args.format == "jsonl":
            row = {"word": item.word, "phones": item.phones, "source": item.source}
            print(json.dumps(row, ensure_ascii=False))
        else:
            print(item.word, " ".join(item.phones), item.source, sep="\t")
    return 0
