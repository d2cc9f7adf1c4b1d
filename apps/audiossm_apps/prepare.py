"""``audiossm prepare``: a folder of recordings and texts becomes data that the recipes read."""

import argparse
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from audiossm_apps.options import count, load_transcriber, positive, share
from audiossm_apps.progress import count_progress

__all__ = ["add_command", "run"]

LAYOUTS = ("librispeech", "ljspeech", "commonvoice", "kaldi", "pairs", "manifest")
DESCRIPTION = """\
Check the recordings and texts of a folder and pack what is good into shards of 16 kHz mono with
manifests, as the training recipes read them. What is bad is left out and listed with the reason;
a report tells what is there."""
EPILOG = """\
layouts, found by themselves:
  librispeech  SPEAKER/CHAPTER/*.trans.txt beside the recordings
  ljspeech     metadata.csv (id|text|text in full) and wavs/
  commonvoice  validated.tsv, or train, dev and test.tsv, and clips/
  kaldi        wav.scp and text, perhaps utt2spk and segments
  pairs        a.txt or a.lab beside a.wav; a folder below is a speaker
  manifest     *.jsonl with {"key", "path" or "shard", "text", perhaps "speaker", ...} a line

in OUT: train.jsonl, dev.jsonl, their shards, phones.json, data.toml, left-out.jsonl, report.md and
report.json. Then, from a checkout: python recipes/transcribe/train.py --data OUT --out RUN
exit codes: 0 something is there to train on, though some may be left out; 1 nothing is"""


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``prepare`` to the command line."""
    parser = commands.add_parser(
        "prepare",
        help="recordings and texts to training data",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="recordings and texts, or a manifest")
    add("-o", "--out", type=Path, required=True, help="folder for what is made")
    add("--layout", choices=LAYOUTS, help="of the folder (default: it is found out)")
    add(
        "--format",
        choices=("flac", "opus"),
        default="flac",
        help="of the shards: opus has 18 kbit/s (default: %(default)s)",
    )
    add(
        "--dev",
        type=share,
        default=0.05,
        metavar="SHARE",
        help="of the texts that goes to dev, by speaker if they are known (default: %(default)s)",
    )
    add("--lang", default="en", help="of the texts that don't tell (default: %(default)s)")
    add("--source", default="", help="of recordings that don't tell (default: the folder's name)")
    add("--numbers", action="store_true", help="write digits as English words, as commonly read")
    add(
        "--longest",
        type=positive,
        default=20.0,
        metavar="S",
        help="seconds of a recording; a recipe's row has 20.48 (default: %(default)s)",
    )
    add(
        "--held-out",
        type=Path,
        nargs="+",
        default=[],
        metavar="MANIFEST.jsonl",
        help="whose speakers and texts are left out",
    )
    add(
        "--check-text",
        action="store_true",
        help="leave out what a recogniser can't lay its text over (slow)",
    )
    add("--model", metavar="NAME|DIR", help="for --check-text (default: the shipped one)")
    add("--no-phones", action="store_true", help="write no phones.json")
    add(
        "--workers",
        type=count,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes that decode (default: as many as there are CPUs)",
    )
    model = {"device": "cpu", "backend": "auto", "threads": None, "decoder": "greedy"}
    parser.set_defaults(run=run, **model)


def run(args: argparse.Namespace) -> int:
    """Prepare, and print the report."""
    from rich.table import Table

    from audiossm.prepare import Limits, prepare
    from audiossm_apps.tables import print_table

    aligner = None
    if args.check_text:
        aligner = partial(load_transcriber(args).align, phones=False)
    with ExitStack() as stack:
        bars: list[Callable[[], None]] = []

        def start(total: int) -> None:
            bars.append(stack.enter_context(count_progress(total, "checking")))

        report = prepare(
            args.folder,
            args.out,
            layout=args.layout,
            limits=Limits(longest_s=args.longest),
            coding=args.format,
            dev_share=args.dev,
            lang=args.lang,
            source=args.source,
            numbers=args.numbers,
            phones=not args.no_phones,
            aligner=aligner,
            held_out=args.held_out,
            workers=args.workers,
            on_start=start,
            on_clip=lambda clip: bars[0](),
        )
    table = Table(title=f"{args.folder} -> {args.out}", show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("found", overflow="fold")
    for row in report.rows():
        table.add_row(*row)
    print_table(table)
    if report.left_out:
        print(f"left out, with reasons: {args.out / 'left-out.jsonl'}")
    print(f"next: python recipes/transcribe/train.py --data {args.out} --out runs/mine")
    return 0
