"""``audiossm evaluate``: accuracy, speed, parity and sound, measured on recordings."""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from audiossm_apps.complaint import complain
from audiossm_apps.options import (
    add_decoder_option,
    add_model_options,
    count,
    load_transcriber,
    positive,
)

if TYPE_CHECKING:
    from audiossm.evaluate.codec import CodecEvaluation, Means
    from audiossm.evaluate.parity import Parity
    from audiossm.evaluate.transcribe import Evaluation, Group

__all__ = ["add_command", "run_codec", "run_parity", "run_transcribe"]

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
    codec = tasks.add_parser(
        "codec",
        help="how good a codec's speech is, beside Opus",
        description=(
            "Encode and decode each recording of a manifest, by a codec and by libopus (voip, "
            "20 ms, variable bit rate) at 6, 8 and 12 kbps; compare at 16 kHz by wide-band PESQ, "
            "STOI and log-mel distance, delay removed, level unchanged; print means over files. "
            "What PESQ or STOI refuses (no speech) is counted and listed. A file that can't be "
            "read is listed and makes the exit code 1. Needs pip install 'audiossm[eval]'."
        ),
    )
    anchors = codec.add_mutually_exclusive_group()
    anchors.add_argument(
        "--model",
        metavar="NAME|DIR",
        help="a codec that 'audiossm models' lists, or a model's folder (default: the shipped one)",
    )
    anchors.add_argument("--opus-only", action="store_true", help="no codec but Opus")
    codec.add_argument(
        "--groups",
        type=count_list,
        metavar="N,N,...",
        help="decode from so many of the codec's groups (default: half of them, and all)",
    )
    codec.add_argument(
        "--loss",
        type=percent_list,
        default=[],
        metavar="P,P,...",
        help="also lose so many percent of the frames at random, and conceal (default: none)",
    )
    codec.set_defaults(run=run_codec, parser=codec)
    for task in (transcribe, parity, codec):
        task.add_argument("manifest", metavar="MANIFEST.jsonl", help="the recordings")
        task.add_argument(
            "--limit", type=count, metavar="N", help="only the first N utterances (default: all)"
        )
        task.add_argument("--json", action="store_true", help="print one JSON object")
    for task in (transcribe, parity):
        add_decoder_option(task)
        add_model_options(task)


def count_list(text: str) -> list[int]:
    """Read whole numbers of at least 1, separated by commas: ``4,8``."""
    return [count(part) for part in text.split(",")]


def percent_list(text: str) -> list[float]:
    """Read percentages between 0 and 100, separated by commas, as fractions: ``5,10``."""
    values = [positive(part) / 100 for part in text.split(",")]
    if max(values) >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of percentages below 100")
    return values


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
            on_score=lambda score: advance(),
        )
    for score in evaluation.failures:
        complain(f"{score.utterance.key}: {score.failure}")
    if args.json:
        print(json.dumps(evaluation.to_json(args.by), indent=2))
    else:
        _print_table(evaluation, args.by)
    return 1 if evaluation.failures else 0


def run_parity(args: argparse.Namespace) -> int:
    """Print a table or a JSON object; return 1 if anything differs."""
    from audiossm.evaluate.parity import evaluate_parity
    from audiossm.manifest import read_manifest

    utterances = read_manifest(args.manifest)[: args.limit]
    transcriber = load_transcriber(args)
    with _progress(len(utterances)) as advance:
        parity = evaluate_parity(
            transcriber, utterances, lookahead_ms=args.lookahead_ms, on_utterance=advance
        )
    if args.json:
        print(json.dumps(parity.to_json(), indent=2))
    else:
        _print_parity(parity)
    return 0 if parity.passed else 1


def run_codec(args: argparse.Namespace) -> int:
    """Print a table or a JSON object; return 1 if a recording couldn't be read."""
    if args.opus_only and args.groups:
        args.parser.error("--groups is about a codec: leave out --opus-only")
    from audiossm.codec import LoadedCodec
    from audiossm.evaluate.codec import evaluate_codec
    from audiossm.manifest import read_manifest

    codec = None if args.opus_only else LoadedCodec.load(args.model)
    utterances = read_manifest(args.manifest)[: args.limit]
    with _progress(len(utterances), "coding") as advance:
        evaluation = evaluate_codec(
            codec, utterances, groups=args.groups, losses=args.loss, on_utterance=advance
        )
    for key, failure in evaluation.failures.items():
        complain(f"{key}: {failure}")
    for (key, measure, reason), coders in evaluation.refusals.items():
        complain(f"{key}: {measure} refuses it ({reason}): {'; '.join(coders)}", kind="")
    if args.json:
        print(json.dumps(evaluation.to_json(), indent=2))
    else:
        _print_codec(evaluation)
    return 1 if evaluation.failures else 0


def _print_codec(evaluation: "CodecEvaluation") -> None:
    from rich.table import Table

    from audiossm_apps.tables import print_table

    title = "libopus (voip, 20 ms, VBR)"
    if evaluation.codec_latency_s is not None:
        latency = f"latency {1000 * evaluation.codec_latency_s:g} ms"
        title = f"{evaluation.codec} ({latency}) beside {title}"
    table = Table(title=title)
    table.add_column("coder", overflow="fold")
    for heading in ("kbps", "PESQ-WB", "files", "STOI", "files", "mel dist.", "files", "delay ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for means in evaluation.means:
        table.add_row(means.coder, *_codec_cells(means))
    print_table(table)
    print(
        f"means over files, {evaluation.audio_s:.1f} s of audio at 16 kHz; kbps of payload; "
        "PESQ-WB as MOS-LQO; mel distance in log10 of power; delay: removed before comparing"
    )
    packages = ", ".join(f"{name} {version}" for name, version in evaluation.packages.items())
    _print_machine(evaluation.machine, f", {packages}")


def _codec_cells(means: "Means") -> list[str]:
    return [
        f"{means.payload_bps / 1000:.2f}",
        "-" if means.pesq_wb is None else f"{means.pesq_wb:.2f}",
        str(means.num_pesq),
        "-" if means.stoi is None else f"{means.stoi:.3f}",
        str(means.num_stoi),
        f"{means.mel_distance:.3f}",
        str(means.num_files),
        f"{1000 * means.delay_s:.1f}",
    ]


def _print_parity(parity: "Parity") -> None:
    from rich.table import Table

    from audiossm_apps.tables import print_table

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
    _print_machine(parity.machine)


def _print_machine(machine: dict[str, str | int], more: str = "") -> None:
    from audiossm.evaluate.machine import name_machine

    print(f"{name_machine(machine)}{more}")


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
    print_table(table)
    _print_machine(evaluation.machine, "; RTF = processing s / audio s")


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
def _progress(total: int, doing: str = "transcribing") -> Iterator[Callable[[], None]]:
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda: progress.advance(task)
