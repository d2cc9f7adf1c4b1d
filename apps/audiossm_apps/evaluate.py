"""``audiossm evaluate``: accuracy, speed, parity and sound, measured on recordings."""

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from audiossm_apps import (
    evaluate_codec,
    evaluate_confidence,
    evaluate_hotwords,
    evaluate_pronounce,
    evaluate_speech,
    evaluate_writing,
)
from audiossm_apps.complaint import complain
from audiossm_apps.options import (
    add_decoder_option,
    add_model_options,
    count,
    load_transcriber,
)
from audiossm_apps.outputs import open_output, write_text
from audiossm_apps.progress import count_progress

if TYPE_CHECKING:
    from audiossm.evaluate.parity import Parity
    from audiossm.evaluate.transcribe import Change, Evaluation, Group

__all__ = ["add_command", "run_parity", "run_transcribe"]

GROUPS = ("source", "speaker", "lang")


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``evaluate`` to the command line."""
    parser = commands.add_parser(
        "evaluate",
        help="word error rate, speed, parity and a codec's sound over a manifest",
        description="Measure a model on recordings.",
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
    transcribe.add_argument(
        "--by", choices=GROUPS, default="source", help="group results (default: %(default)s)"
    )
    transcribe.add_argument(
        "--scores", metavar="FILE", help="write each utterance's words and errors as JSON Lines"
    )
    transcribe.add_argument(
        "--against", type=Path, metavar="FILE", help="compare with another model's --scores"
    )
    transcribe.set_defaults(run=run_transcribe)
    parity = tasks.add_parser(
        "parity",
        help="do chunks, snapshots and batch mates change a token?",
        description=(
            "Transcribe each utterance of a manifest in one push, then in pieces of 20 ms, 37 ms, "
            "1 s and of random size, with snapshots restored on the way, and in a batch with "
            "others. A token, word or state that differs is shown and makes the exit code 1."
        ),
    )
    parity.set_defaults(run=run_parity)
    codec_tasks = evaluate_codec.add_tasks(tasks)
    for task in (transcribe, parity, *codec_tasks):
        task.add_argument("manifest", metavar="MANIFEST.jsonl", help="the recordings")
    hotwords = evaluate_hotwords.add_task(tasks)
    confidence = evaluate_confidence.add_task(tasks)
    evaluate_writing.add_task(tasks)
    evaluate_pronounce.add_task(tasks)
    evaluate_speech.add_task(tasks)
    for task in (transcribe, parity, hotwords, confidence, *codec_tasks):
        task.add_argument(
            "--limit", type=count, metavar="N", help="only the first N utterances (default: all)"
        )
        task.add_argument("--json", action="store_true", help="print one JSON object")
    for task in (transcribe, parity, confidence):
        add_decoder_option(task)
    for task in (transcribe, parity, hotwords, confidence):
        add_model_options(task)


def run_transcribe(args: argparse.Namespace) -> int:
    """Print a table or a JSON object; return 1 if an utterance couldn't be read."""
    from audiossm.evaluate.transcribe import Score, evaluate_transcriber, read_scores
    from audiossm.evaluate.wer import require_jiwer
    from audiossm.manifest import read_manifest

    require_jiwer()
    utterances = read_manifest(args.manifest)[: args.limit]
    before = read_scores(args.against, utterances) if args.against else None
    transcriber = load_transcriber(args)
    with ExitStack() as stack:
        scores = stack.enter_context(open_output(args.scores)) if args.scores else None
        advance = stack.enter_context(count_progress(len(utterances)))

        def keep(score: Score) -> None:
            if scores is not None:
                write_text(scores, json.dumps(score.to_json(), ensure_ascii=False) + "\n")
            advance()

        evaluation = evaluate_transcriber(
            transcriber,
            utterances,
            lookahead_ms=args.lookahead_ms,
            device=transcriber.device.type,
            on_score=keep,
        )
    change = None if before is None else evaluation.compare(before)
    for score in evaluation.failures:
        complain(f"{score.utterance.key}: {score.failure}")
    if args.json:
        report = evaluation.to_json(args.by)
        report |= {} if change is None else {"against": change.to_json()}
        print(json.dumps(report, indent=2))
    else:
        _print_table(evaluation, args.by)
        if change is not None:
            _print_change(change, args.against)
    return 1 if evaluation.failures else 0


def run_parity(args: argparse.Namespace) -> int:
    """Print a table or a JSON object; return 1 if anything differs."""
    from audiossm.evaluate.parity import evaluate_parity
    from audiossm.manifest import read_manifest

    utterances = read_manifest(args.manifest)[: args.limit]
    transcriber = load_transcriber(args)
    with count_progress(len(utterances)) as advance:
        parity = evaluate_parity(
            transcriber, utterances, lookahead_ms=args.lookahead_ms, on_utterance=advance
        )
    if args.json:
        print(json.dumps(parity.to_json(), indent=2))
    else:
        _print_parity(parity)
    return 0 if parity.passed else 1


def _print_parity(parity: "Parity") -> None:
    from rich.table import Table

    from audiossm_apps.tables import print_machine, print_table

    table = Table(title=f"{parity.model}, look-ahead {parity.lookahead_ms} ms, against one push")
    table.add_column("variant")
    for heading in ("utterances", "tokens", "differ", "words differ", "confid. diff."):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("state diff.", justify="right")
    table.add_column("in", overflow="fold")
    table.add_column("result")
    for variant in parity.variants:
        table.add_row(
            variant.name,
            str(variant.utterances),
            str(variant.tokens),
            str(variant.differing_tokens),
            str(variant.differing_words),
            f"{variant.max_confidence_difference:.1e}",
            f"{variant.max_state_difference:.1e}",
            variant.worst_state,
            "pass" if variant.passed else "FAIL",
        )
    print_table(table)
    for item in parity.differences:
        print(
            f"{item.variant}: {item.key}: label frame {item.frame}: {item.found or 'no token'}, "
            f"expected {item.expected or 'no token'}, top-two margin {item.margin:.2e}"
        )
    print_machine(parity.machine)


def _print_table(evaluation: "Evaluation", by: str) -> None:
    from rich.table import Table

    from audiossm_apps.tables import print_machine, print_table

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
    print_table(table)
    if interval := evaluation.interval:
        low, high = 100 * interval.low, 100 * interval.high
        drawn = f"by bootstrap over {interval.size} {interval.unit}"
        print(f"WER's 95 % interval: {low:.1f} to {high:.1f} %, {drawn}")
    print_machine(evaluation.machine, "; RTF = processing s / audio s")


def _print_change(change: "Change", path: Path) -> None:
    told = f"against {path}: WER {100 * change.before:.2f} -> {100 * change.now:.2f} %"
    if change.fewer is not None:
        told += f", errors {0 - 100 * change.fewer:+.1f} %"
    if found := change.interval:
        told += f"; 95 % interval {0 - 100 * found.high:+.1f} to {0 - 100 * found.low:+.1f} %"
    print(told)


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
