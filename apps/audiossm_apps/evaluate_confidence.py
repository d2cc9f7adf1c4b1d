"""``audiossm evaluate confidence``: are as many words right as the recogniser says?"""

import argparse
import json
from typing import TYPE_CHECKING

from audiossm_apps.options import count, load_transcriber
from audiossm_apps.progress import count_progress

if TYPE_CHECKING:
    from audiossm.evaluate.confidence import ConfidenceEvaluation

__all__ = ["add_task", "run"]


def add_task(
    tasks: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Add the task, without the options that all tasks have."""
    parser = tasks.add_parser(
        "confidence",
        help="are as many words right as their confidences say?",
        description=(
            "Transcribe each utterance of a manifest, sort its words by confidence into bins of as "
            "many words each, and compare each bin's mean confidence with the share of its words "
            "that are right. Needs pip install 'audiossm[eval]'."
        ),
    )
    parser.add_argument("manifest", metavar="MANIFEST.jsonl", help="the recordings")
    parser.add_argument(
        "--bins", type=count, default=15, metavar="N", help="how many (default: %(default)s)"
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Print a table or a JSON object."""
    from audiossm.evaluate.confidence import evaluate_confidence
    from audiossm.evaluate.wer import require_jiwer
    from audiossm.manifest import read_manifest

    require_jiwer()
    utterances = read_manifest(args.manifest)[: args.limit]
    transcriber = load_transcriber(args)
    with count_progress(len(utterances)) as advance:
        evaluation = evaluate_confidence(
            transcriber,
            utterances,
            lookahead_ms=args.lookahead_ms,
            num_bins=args.bins,
            on_utterance=advance,
        )
    if args.json:
        print(json.dumps(evaluation.to_json(), indent=2))
    else:
        _print_table(evaluation)
    return 0


def _print_table(evaluation: "ConfidenceEvaluation") -> None:
    from rich.table import Table

    from audiossm_apps.tables import print_machine, print_table

    table = Table(title=f"{evaluation.model}, look-ahead {evaluation.lookahead_ms} ms")
    for heading in ("words", "lowest", "highest", "mean confidence", "right", "difference"):
        table.add_column(heading, justify="right")
    for item in evaluation.bins:
        numbers = (item.lowest, item.highest, item.confidence, item.right)
        off = item.confidence - item.right
        table.add_row(str(item.words), *(f"{number:.3f}" for number in numbers), f"{off:+.3f}")
    print_table(table)
    print(
        f"expected calibration error {evaluation.calibration_error:.3f} over {evaluation.words} "
        f"words, {evaluation.right:.1%} of them right; area under the ROC curve "
        f"{evaluation.discrimination:.3f}, Brier score {evaluation.brier:.3f}"
    )
    if not evaluation.is_calibrated:
        print("not calibrated: these confidences are means of letters' probabilities")
    print_machine(evaluation.machine)
