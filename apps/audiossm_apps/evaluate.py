"""``audiossm evaluate``: accuracy and speed on recordings whose text is known."""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from audiossm_apps.options import add_model_options, count, load_transcriber

if TYPE_CHECKING:
    from audiossm.evaluate.transcribe import Evaluation, Group, Score

__all__ = ["add_command", "run_transcribe"]

GROUPS = ("source", "speaker", "lang")


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``evaluate`` to the command line."""
    parser = commands.add_parser(
        "evaluate",
        help="word error rate and speed over a manifest",
        description="Measure a model on recordings whose text is known.",
    )
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", required=True)
    transcribe = tasks.add_parser(
        "transcribe",
        help="word error rate and real-time factor",
        description=(
            "Transcribe each utterance of a manifest and count word errors. Both sides are reduced "
            "to lower case a-z and ' first. An utterance that can't be read is counted as all "
            "deleted, listed, and makes the exit code 1. Needs pip install 'audiossm[eval]'."
        ),
    )
    transcribe.add_argument("manifest", metavar="MANIFEST.jsonl", help="what to transcribe")
    transcribe.add_argument(
        "--limit", type=count, metavar="N", help="only the first N utterances (default: all)"
    )
    transcribe.add_argument("--json", action="store_true", help="print one JSON object")
    transcribe.add_argument(
        "--by", choices=GROUPS, default="source", help="group results (default: %(default)s)"
    )
    add_model_options(transcribe)
    transcribe.set_defaults(run=run_transcribe)


def run_transcribe(args: argparse.Namespace) -> int:
    """Print a table or a JSON object; return 1 if an utterance couldn't be read."""
    from audiossm.evaluate.transcribe import evaluate_transcriber
    from audiossm.evaluate.wer import require_jiwer
    from audiossm.manifest import read_manifest

    require_jiwer()
    utterances = read_manifest(args.manifest)[: args.limit]
    transcriber = load_transcriber(args)
    with _progress(len(utterances)) as advance:
        evaluation = evaluate_transcriber(
            transcriber,
            utterances,
            lookahead_ms=args.lookahead_ms,
            device=transcriber.device.type,
            on_score=advance,
        )
    for score in evaluation.failures:
        print(f"audiossm: error: {score.utterance.key}: {score.failure}", file=sys.stderr)
    if args.json:
        print(json.dumps(evaluation.to_json(args.by), indent=2))
    else:
        _print_table(evaluation, args.by)
    return 1 if evaluation.failures else 0


def _print_table(evaluation: "Evaluation", by: str) -> None:
    from rich.table import Table

    from audiossm_apps.tables import print_table

    table = Table(
        title=f"{evaluation.model}, look-ahead {evaluation.lookahead_ms} ms", show_footer=True
    )
    groups = evaluation.group_by(lambda score: getattr(score.utterance, by))
    headings = ["utterances", "words", "subst.", "del.", "ins.", "WER %", "audio s", "RTF"]
    table.add_column(by, "total", overflow="fold")
    for heading, total in zip(headings, _cells(evaluation.total), strict=True):
        table.add_column(heading, total, justify="right", no_wrap=True)
    for name, group in groups.items():
        table.add_row(name or "(none)", *_cells(group))
    machine = evaluation.machine
    print_table(table)
    print(
        f"{machine['processor']}, device {machine['device']}, {machine['threads']} of "
        f"{machine['cores']} threads, torch {machine['torch']}; RTF = processing s / audio s"
    )


def _cells(group: "Group") -> list[str]:
    errors = group.errors
    return [
        str(group.num_utterances),
        str(errors.words),
        str(errors.substitutions),
        str(errors.deletions),
        str(errors.insertions),
        f"{100 * errors.rate:.2f}",
        f"{group.audio_s:.1f}",
        f"{group.rtf:.3f}",
    ]


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[["Score"], None]]:
    if not sys.stderr.isatty():
        yield lambda score: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("transcribing", total=total)
        yield lambda score: progress.advance(task)
