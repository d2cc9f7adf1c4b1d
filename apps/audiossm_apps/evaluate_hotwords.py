"""``audiossm evaluate hotwords``: what lists of hot words bring, and what they cost."""

import argparse
import json
from typing import TYPE_CHECKING

from audiossm_apps.complaint import complain
from audiossm_apps.options import load_transcriber
from audiossm_apps.progress import count_progress

if TYPE_CHECKING:
    from audiossm.evaluate.hotwords import HotwordEvaluation

__all__ = ["add_task", "run"]


def add_task(
    tasks: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Add the task, without the options that all tasks have."""
    parser = tasks.add_parser(
        "hotwords",
        help="recall of rare words and false alarms, without and with lists of hot words",
        description=(
            "Transcribe each utterance of a manifest without hot words, then with its own list. "
            "LISTS.tsv has a header and the columns key, rare_words (a JSON list of the words said "
            "in that utterance) and phrases... (these and others). A false alarm is a phrase of "
            "the list written where it wasn't said. Needs pip install 'audiossm[eval]'."
        ),
    )
    parser.add_argument("manifest", metavar="MANIFEST.jsonl", help="the recordings")
    parser.add_argument("lists", metavar="LISTS.tsv", help="the hot words of each recording")
    parser.set_defaults(run=run, decoder=None)
    return parser


def run(args: argparse.Namespace) -> int:
    """Print a table or a JSON object; return 1 if an utterance couldn't be read."""
    from audiossm.evaluate.hotwords import evaluate_hotwords, read_lists
    from audiossm.evaluate.wer import require_jiwer
    from audiossm.manifest import read_manifest

    require_jiwer()
    utterances = read_manifest(args.manifest)[: args.limit]
    lists = read_lists(args.lists)
    transcriber = load_transcriber(args)
    with count_progress(2 * len(utterances)) as advance:
        evaluation = evaluate_hotwords(
            transcriber,
            utterances,
            lists,
            lookahead_ms=args.lookahead_ms,
            on_score=lambda score: advance(),
        )
    failures = evaluation.with_lists.evaluation.failures
    for score in failures:
        complain(f"{score.utterance.key}: {score.failure}")
    if args.json:
        print(json.dumps(evaluation.to_json(), indent=2))
    else:
        _print_table(evaluation)
    return 1 if failures else 0


def _print_table(evaluation: "HotwordEvaluation") -> None:
    from rich.table import Table

    from audiossm_apps.tables import print_machine, print_table

    measured = evaluation.with_lists.evaluation
    table = Table(title=f"{measured.model}, look-ahead {measured.lookahead_ms} ms")
    table.add_column("hot words")
    for heading in ("rare words", "found", "recall %", "WER %", "false alarms", "in 10 min", "RTF"):
        table.add_column(heading, justify="right")
    for name, found in (("without", evaluation.without), ("with lists", evaluation.with_lists)):
        total = found.evaluation.total
        table.add_row(
            name,
            str(found.said),
            str(found.found),
            f"{100 * found.recall:.1f}",
            f"{100 * total.errors.rate:.2f}",
            str(len(found.false_alarms)),
            f"{found.alarms_per_10_min:.2f}",
            f"{total.rtf:.3f}",
        )
    print_table(table)
    for key, phrase in evaluation.with_lists.false_alarms:
        print(f"{key}: {phrase!r} was written, but not said")
    print(f"of the rare words missed without lists, {evaluation.misses_left:.0%} are still missed")
    print_machine(measured.machine, "; RTF = processing s / audio s")
