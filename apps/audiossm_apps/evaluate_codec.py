"""``audiossm evaluate codec`` and ``codec-streaming``: how a codec sounds and how it streams."""

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from audiossm.evaluate.metrics import DEFAULT_METRICS, METRICS
from audiossm_apps.complaint import complain
from audiossm_apps.options import count, positive, thread_count
from audiossm_apps.progress import count_progress

if TYPE_CHECKING:
    from audiossm.codec import LoadedCodec
    from audiossm.evaluate.codec_scores import CodecEvaluation, Means
    from audiossm.evaluate.codec_streaming import CodecStreaming
    from audiossm.manifest import Utterance

__all__ = ["add_tasks", "run_codec", "run_codec_streaming"]

MAX_JOBS = 8  # by default: each has a model in memory
NUM_CLIPS = 6

HEADINGS = {
    "pesq": ["PESQ-WB"],
    "stoi": ["STOI"],
    "mel": ["mel dist."],
    "sisdr": ["SI-SDR dB"],
    "f0": ["voicing %", "F0 cents", "gross %", "by YIN %"],
    "wer": ["WER %", "x orig."],
}


def add_tasks(
    tasks: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> list[argparse.ArgumentParser]:
    """Add both tasks to those of ``evaluate``, and return them."""
    return [_add_codec(tasks), _add_streaming(tasks)]


def _add_codec(
    tasks: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    codec = tasks.add_parser(
        "codec",
        help="how good a codec's speech is, beside Opus",
        description=(
            "Encode and decode each recording of a manifest, by a codec and by libopus (voip, "
            "20 ms, variable bit rate) at 6, 8 and 12 kbps; compare at 16 kHz, delay removed, "
            "level unchanged. Needs pip install 'audiossm[eval]'."
        ),
        epilog=(
            "Metrics: pesq: wide-band PESQ; stoi: STOI; mel: log-mel distance; sisdr: "
            "scale-invariant signal-to-distortion ratio, which compares waveforms: a decoder that "
            "makes phases of its own, as ours does, is far below 0 dB however it sounds; f0: pitch "
            "by probabilistic YIN: share of frames with voice in one only, root mean square error "
            "and share of errors over 20 % where both are voiced, and that share by plain YIN, "
            "which always has a guess, where the original is voiced; wer: words that our "
            "recogniser gets wrong, beside those of the originals. Means are over files, of f0 and "
            "wer over all frames and words. What a metric refuses (no speech) is counted and "
            "listed. A file that can't be read is listed and makes the exit code 1."
        ),
    )
    anchors = codec.add_mutually_exclusive_group()
    _add_model(anchors)
    codec.add_argument(
        "--live",
        action="store_true",
        help="the codec takes a frame at a time, as in a live stream, with the graphs of one",
    )
    anchors.add_argument("--opus-only", action="store_true", help="no codec but Opus")
    codec.add_argument(
        "--groups",
        type=count_list,
        metavar="N,N,...",
        help="decode from so many of the codec's groups (default: a quarter, half, and all)",
    )
    codec.add_argument(
        "--loss",
        type=percent_list,
        default=[],
        metavar="P,P,...",
        help="also lose so many percent of the frames at random, and conceal (default: none)",
    )
    codec.add_argument(
        "--metrics",
        type=metric_list,
        default=",".join(DEFAULT_METRICS),
        metavar="NAME,...",
        help=f"of {', '.join(METRICS)} (default: %(default)s)",
    )
    codec.add_argument(
        "--recogniser",
        metavar="NAME|DIR",
        help="who listens for the metric wer, at 320 ms look-ahead (default: the shipped one)",
    )
    codec.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="draw PESQ and STOI over the bit rate"
    )
    codec.add_argument(
        "--spectrograms",
        type=Path,
        metavar="FOLDER",
        help="draw the first recordings, what each coder makes of them below the original",
    )
    codec.add_argument(
        "--clips",
        type=count,
        metavar="N",
        help=f"how many recordings --spectrograms draws (default: {NUM_CLIPS})",
    )
    codec.add_argument(
        "--jobs",
        type=thread_count,
        metavar="N",
        default=min(os.cpu_count() or 1, MAX_JOBS),
        help="recordings at a time, each in a process of its own (default: %(default)s here)",
    )
    codec.set_defaults(run=run_codec, parser=codec)
    return codec


def _add_streaming(
    tasks: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    streaming = tasks.add_parser(
        "codec-streaming",
        help="does a codec's stream equal one call, how late and how fast is it?",
        description=(
            "Code each recording of a manifest in steps of one frame, on one CPU thread, and "
            "compare with one call: the codec's values before they are quantised, its codes, and "
            "what is decoded from the same codes. Print its delay, as its sizes say and as found "
            "by trying, and its speed. What is over a limit makes the exit code 1."
        ),
        epilog=(
            "Delay: 'waits' is the longest time from a sample's arrival until it is heard, fed one "
            "at a time; 'onset' is how far before a sound's beginning it changes what is heard; "
            "'lag' is by how much what is heard follows the original's loudness late after the "
            "delay is removed, found to the millisecond."
        ),
    )
    _add_model(streaming)
    streaming.set_defaults(run=run_codec_streaming)
    return streaming


def _add_model(parser: "argparse._ActionsContainer") -> None:
    parser.add_argument(
        "--model",
        metavar="NAME|DIR",
        help="a codec that 'audiossm models' lists, or a model's folder (default: the shipped one)",
    )


def count_list(text: str) -> list[int]:
    """Read whole numbers of at least 1, separated by commas: ``4,8``."""
    return [count(part) for part in text.split(",")]


def percent_list(text: str) -> list[float]:
    """Read percentages between 0 and 100, separated by commas, as fractions: ``5,10``."""
    values = [positive(part) / 100 for part in text.split(",")]
    if max(values) >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of percentages below 100")
    return values


def metric_list(text: str) -> list[str]:
    """Read names of metrics, separated by commas: ``pesq,f0``; in the order of ``METRICS``."""
    names = text.split(",")
    for name in names:
        if name not in METRICS:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(METRICS)}")
    return [name for name in METRICS if name in names]


def run_codec(args: argparse.Namespace) -> int:
    """Print a table or a JSON object; return 1 if a recording couldn't be read."""
    if args.opus_only and args.live:
        args.parser.error("--live is about a codec, not about Opus")
    if args.opus_only and args.groups:
        args.parser.error("--groups is about a codec: leave out --opus-only")
    if args.recogniser and "wer" not in args.metrics:
        args.parser.error("--recogniser is about the metric wer: add it to --metrics")
    if args.clips and not args.spectrograms:
        args.parser.error("--clips is about --spectrograms FOLDER")
    if args.plot and not {"pesq", "stoi"} & set(args.metrics):
        args.parser.error("--plot draws PESQ and STOI: add one to --metrics")
    from audiossm.codec import LoadedCodec
    from audiossm.evaluate.codec import evaluate_codec
    from audiossm.manifest import read_manifest
    from audiossm.pictures import load_pyplot
    from audiossm.streaming import Transcriber

    if args.plot or args.spectrograms:
        load_pyplot()  # what is missing is better told now than after the work
    codec = None if args.opus_only else LoadedCodec.load(args.model)
    utterances = read_manifest(args.manifest)[: args.limit]
    with count_progress(len(utterances), "coding") as advance:
        evaluation = evaluate_codec(
            codec,
            utterances,
            groups=args.groups,
            losses=args.loss,
            metrics=args.metrics,
            transcriber=Transcriber.load(args.recogniser) if "wer" in args.metrics else None,
            jobs=args.jobs,
            live=args.live,
            on_utterance=advance,
        )
    for key, failure in evaluation.failures.items():
        complain(f"{key}: {failure}")
    for (key, measure, reason), coders in evaluation.refusals.items():
        complain(f"{key}: {measure} refuses it ({reason}): {'; '.join(coders)}", kind="")
    if args.json:
        print(json.dumps(evaluation.to_json(), indent=2))
    else:
        _print_codec(evaluation)
    _draw(args, codec, evaluation, utterances)
    return 1 if evaluation.failures else 0


def _draw(
    args: argparse.Namespace,
    codec: "LoadedCodec | None",
    evaluation: "CodecEvaluation",
    utterances: "list[Utterance]",
) -> None:
    from audiossm.evaluate.codec_pictures import draw_spectrograms, plot_quality
    from audiossm.evaluate.coders import make_coders

    if args.plot:
        plot_quality(evaluation, args.plot)
    if args.spectrograms:
        # what can't be read has been told
        readable = [item for item in utterances if item.key not in evaluation.failures]
        clips = readable[: args.clips or NUM_CLIPS]
        draw_spectrograms(make_coders(codec, args.groups, live=args.live), clips, args.spectrograms)


def run_codec_streaming(args: argparse.Namespace) -> int:
    """Print figures or a JSON object; return 1 if one is over its limit or a file unreadable."""
    from audiossm.codec import LoadedCodec
    from audiossm.evaluate.codec_streaming import evaluate_codec_streaming
    from audiossm.manifest import read_manifest

    codec = LoadedCodec.load(args.model)
    utterances = read_manifest(args.manifest)[: args.limit]
    with count_progress(len(utterances), "coding") as advance:
        found = evaluate_codec_streaming(codec, utterances, on_utterance=advance)
    for key, failure in found.failures.items():
        complain(f"{key}: {failure}")
    if args.json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        _print_streaming(found)
    return 0 if found.passed and not found.failures else 1


def _print_codec(evaluation: "CodecEvaluation") -> None:
    from rich.table import Table

    from audiossm_apps.tables import print_machine, print_table

    title = "libopus (voip, 20 ms, VBR)"
    if evaluation.codec_latency_s is not None:
        latency = f"latency {1000 * evaluation.codec_latency_s:g} ms"
        title = f"{evaluation.codec} ({latency}) beside {title}"
    table = Table(title=title)
    table.add_column("coder", overflow="fold")
    metrics = evaluation.metrics
    for heading in ("kbps", *(h for m in metrics for h in HEADINGS[m]), "files", "delay ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for means in evaluation.means:
        table.add_row(*_codec_cells(means, evaluation))
    words = evaluation.original_words
    if words is not None:
        cells = {"wer": [f"{100 * words.rate:.1f}", "1.00"]}
        empty = {metric: ["-"] * len(HEADINGS[metric]) for metric in metrics}
        found = [cell for metric in metrics for cell in (empty | cells)[metric]]
        table.add_row("originals", "-", *found, "-", "-")
    print_table(table)
    print(
        f"means over files (in brackets: how many, if not all), {evaluation.audio_s:.1f} s of "
        "audio at 16 kHz; kbps of payload; delay: removed before comparing"
    )
    for metric in metrics:
        print(_explain(metric, evaluation))
    packages = ", ".join(f"{name} {version}" for name, version in evaluation.packages.items())
    print_machine(evaluation.machine, f", {packages}")


def _explain(metric: str, evaluation: "CodecEvaluation") -> str:
    return {
        "pesq": "PESQ-WB as MOS-LQO",
        "stoi": "STOI: 0 to 1",
        "mel": "mel distance in log10 of power",
        "sisdr": "SI-SDR compares waveforms: low where a decoder makes phases of its own",
        "f0": "F0: voiced in one only; error where both are voiced, and how many are over 20 % "
        "off; how many by YIN, where the original is voiced",
        "wer": f"WER by {evaluation.recogniser}, over all words",
    }[metric]


def _codec_cells(means: "Means", evaluation: "CodecEvaluation") -> list[str]:
    pitch, words = means.pitch, means.words

    def of_files(value: float | None, digits: int, num_files: int) -> str:
        some = "" if num_files == means.num_files else f" ({num_files})"
        return _show(value, digits) + some

    cells = {
        "pesq": [of_files(means.pesq_wb, 2, means.num_pesq)],
        "stoi": [of_files(means.stoi, 3, means.num_stoi)],
        "mel": [_show(means.mel_distance, 3)],
        "sisdr": [of_files(means.si_sdr_db, 1, means.num_si_sdr)],
        "f0": [
            _show(pitch and pitch.voicing_error, 1, 100),
            _show(pitch and pitch.rmse_cents, 0),
            _show(pitch and pitch.gross_error, 1, 100),
            _show(pitch and pitch.guess_error, 1, 100),
        ],
        "wer": [
            _show(words and words.rate, 1, 100),
            _show(means.wer_over(evaluation.original_words), 2),
        ],
    }
    return [
        means.coder,
        f"{means.payload_bps / 1000:.2f}",
        *(cell for metric in evaluation.metrics for cell in cells[metric]),
        str(means.num_files),
        f"{1000 * means.delay_s:.1f}",
    ]


def _show(value: object, digits: int, scale: float = 1) -> str:
    return f"{scale * value:.{digits}f}" if isinstance(value, int | float) else "-"


def _print_streaming(found: "CodecStreaming") -> None:
    from audiossm.evaluate.codec_streaming import (
        MAX_DIFFERENCE,
        MAX_FLIPPED,
        MAX_LATENCY_S,
        percentile_ms,
    )
    from audiossm_apps.tables import print_machine

    both = found.encode_times_s + found.decode_times_s
    print(
        f"{found.codec}, {found.parameters / 1e6:.2f} M parameters, {found.num_files} recordings, "
        f"{found.audio_s:.1f} s, {found.frames} steps of one frame against one call\n"
        f"latents: differ by {found.latent_difference:.1e} of the largest (limit "
        f"{MAX_DIFFERENCE:g})\n"
        f"decoded from the same codes: samples differ by {found.sample_difference:.1e} (limit "
        f"{MAX_DIFFERENCE:g})\n"
        f"codes: differ in {found.flipped_frames} of {found.frames} frames, {found.flipped:.1e} "
        f"(limit {MAX_FLIPPED:g})\n"
        f"delay: {1000 * found.latency_s:g} ms by its sizes (limit {1000 * MAX_LATENCY_S:g}), "
        f"waits {1000 * found.wait_s:.1f} ms, onset {1000 * found.onset_s:.1f} ms; lag "
        f"{1000 * found.lag_s:g} ms\n"
        f"speed on one thread, times real time: encode {found.speed(found.encode_times_s):.1f}, "
        f"decode {found.speed(found.decode_times_s):.1f}, both {found.speed(both):.1f}; 95 of 100 "
        f"steps take less than {percentile_ms(found.encode_times_s):.1f} and "
        f"{percentile_ms(found.decode_times_s):.1f} ms of {1000 * found.frame_s:g}\n"
        f"{'pass' if found.passed else 'FAIL'}"
    )
    print_machine(found.machine)
