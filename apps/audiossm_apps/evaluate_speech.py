"""``audiossm evaluate speech``: is a generator understood, and are its voices whose they are?"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from audiossm_apps.options import count, positive, share, thread_count

if TYPE_CHECKING:
    from audiossm.evaluate.speech import SpeechEvaluation
    from audiossm.evaluate.speech_continuation import CodeBits
    from audiossm.evaluate.speech_takes import Take
    from audiossm.manifest import Utterance

__all__ = ["add_task", "run"]

MEASURES = ("words", "pocketsphinx", "voices", "continuation", "streaming")
TOLD_EVERY = 10  # takes
RECORDINGS = 10  # of each voice


def add_task(tasks: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the task."""
    parser = tasks.add_parser(
        "speech",
        help="how well a generator's speech is understood, its voices, and how it goes on",
        description=(
            "Say the sentences of a manifest, the voices taking turns, and compare with the "
            "manifest's recordings, which go through the same codec at the same bit rate. What is "
            "beyond a limit makes the exit code 1. Needs pip install 'audiossm[eval]'."
        ),
        epilog=(
            "Measures: words: word errors of our recogniser over those in the recordings, and the "
            "share of words that forced alignment finds with less confidence than all but 1 % of "
            "the recordings' words; pocketsphinx: words also heard by PocketSphinx, which is slow; "
            "voices: median pitch, and mel-cepstral distance from the voice's own recordings of "
            "the same sentences, against that of the model's default voice, and of nobody's, by "
            "which the default voice itself is judged (needs --voices-manifest); "
            "continuation: bits a frame without text, against the codes' frequencies and a "
            "--control, of all frames and of those after 3 s, and how free runs of a minute end; "
            "streaming: do the pieces that a text comes in change what is said?"
        ),
    )
    parser.add_argument("manifest", metavar="MANIFEST.jsonl", help="sentences, with recordings")
    parser.add_argument(
        "--model",
        metavar="NAME|DIR",
        help="a generator that 'audiossm models' lists, or its folder (default: the shipped one)",
    )
    parser.add_argument(
        "--measures",
        type=measure_list,
        metavar="NAME,...",
        help=f"of {', '.join(MEASURES)} (default: all that the other options allow, but "
        "pocketsphinx)",
    )
    parser.add_argument(
        "--voice",
        action="append",
        metavar="NAME|FILE",
        help="who speaks, also several times (default: all that the model has, or nobody)",
    )
    parser.add_argument(
        "--voices-manifest",
        metavar="MANIFEST.jsonl",
        help="recordings of the voices, their names being the speakers'; not those of the training",
    )
    parser.add_argument(
        "--voices-limit",
        type=count,
        default=RECORDINGS,
        metavar="N",
        help="only the first N recordings of each voice (default: %(default)s)",
    )
    parser.add_argument("--control", metavar="DIR", help="a model that must guess codes less well")
    parser.add_argument(
        "--recogniser", metavar="NAME|DIR", help="who listens (default: the shipped one)"
    )
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="keep what is said there, VOICE/KEY.wav, and don't say again what is there",
    )
    parser.add_argument(
        "--limit", type=count, metavar="N", help="only the first N sentences (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    how = parser.add_argument_group("how sentences are said (default: as audiossm generate does)")
    how.add_argument("--temperature", type=float, metavar="T", help="of the first group of codes")
    how.add_argument("--later-temperature", type=float, metavar="T", help="of the others")
    how.add_argument("--top-k", type=count, metavar="K", help="codes that are drawn from")
    how.add_argument("--spread", type=share, metavar="X", help="how much lengths vary, 0 to 1")
    how.add_argument("--speed", type=positive, default=1.0, help="(default: %(default)s)")
    how.add_argument(
        "--no-restart", action="store_true", help="the state goes on from sentence to sentence"
    )
    how.add_argument(
        "--free-temperature",
        type=float,
        metavar="T",
        help="of all groups in free runs, drawn from all codes (default: as --prompt does it)",
    )
    how.add_argument(
        "--free-runs",
        type=count,
        metavar="N",
        help="how many people are gone on from for a minute each (default: 3)",
    )
    how.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument(
        "--backend",
        choices=["auto", "torch", "numba", "onnx"],
        default="auto",
        help="of the generator (default: %(default)s)",
    )
    parser.add_argument(
        "--threads", type=thread_count, metavar="N", help="CPU threads (default: as torch chooses)"
    )
    parser.set_defaults(run=run, parser=parser)


def measure_list(text: str) -> list[str]:
    """Read names of measures, separated by commas."""
    names = text.split(",")
    for name in names:
        if name not in MEASURES:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(MEASURES)}")
    return names


def run(args: argparse.Namespace) -> int:
    """Print tables or a JSON object; return 1 if a limit is passed."""
    measures = args.measures
    if measures is None:
        measures = [name for name in MEASURES if name != "pocketsphinx"]
        if args.voices_manifest is None:
            measures.remove("voices")
    if "voices" in measures and args.voices_manifest is None:
        args.parser.error("voices are compared with recordings: give --voices-manifest")
    if "continuation" not in measures and (
        args.control or args.free_runs or args.free_temperature is not None
    ):
        args.parser.error(
            "--control, --free-runs and --free-temperature are about the measure continuation"
        )
    import torch

    from audiossm.decoding.sampling import Sampling
    from audiossm.evaluate.speech import NUM_RUNS, evaluate_speech
    from audiossm.evaluate.speech_takes import Manner, Studio
    from audiossm.manifest import read_manifest
    from audiossm.models import LoadedGenerator
    from audiossm.streaming import Speaker, Transcriber

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    utterances = read_manifest(args.manifest)[: args.limit]
    recordings: dict[str, list[Utterance]] = {}
    if args.voices_manifest is not None:
        for item in read_manifest(args.voices_manifest):
            recordings.setdefault(item.speaker, []).append(item)
        recordings = {name: items[: args.voices_limit] for name, items in recordings.items()}
    speaker = Speaker.load(args.model, backend=args.backend)
    names = args.voice or speaker.voices or [None]
    voices = [speaker.voice(name) for name in names]
    given = {
        "temperature": args.temperature,
        "later_temperature": args.later_temperature,
        "top_k": args.top_k,
        "spread": args.spread,
    }
    manner = Manner(
        sampling=Sampling(**{name: value for name, value in given.items() if value is not None}),
        speed=args.speed,
        restart=not args.no_restart,
        seed=args.seed,
    )
    free_sampling = None
    if args.free_temperature is not None:
        free_sampling = Sampling(
            temperature=args.free_temperature,
            later_temperature=args.free_temperature,
            top_k=speaker.config.num_codes,
        )
    listens = {"words", "pocketsphinx"} & set(measures)
    progress = Progress()
    evaluation = evaluate_speech(
        Studio(speaker, manner, args.keep, progress.take),
        utterances,
        voices,
        measures=measures,
        transcriber=Transcriber.load(args.recogniser) if listens else None,
        recordings=recordings,
        control=None if args.control is None else LoadedGenerator.load(args.control),
        num_runs=args.free_runs or NUM_RUNS,
        free_sampling=free_sampling,
        on_heard=progress.hear,
    )
    if args.json:
        print(json.dumps(evaluation.to_json(), indent=2))
    else:
        _print(evaluation)
    return 0 if evaluation.passed else 1


class Progress:
    """Tells on standard error, now and then, how far it is: this takes minutes."""

    def __init__(self) -> None:
        self.num_said = self.num_real = self.num_heard = 0
        self.said_s = self.spent_s = 0.0

    def take(self, take: "Take") -> None:
        """Count a take."""
        if take.processing_s is None:
            self.num_real += 1
            return
        self.num_said += 1
        self.said_s, self.spent_s = self.said_s + take.seconds, self.spent_s + take.processing_s
        if self.num_said % TOLD_EVERY == 0:
            rtf = self.spent_s / self.said_s
            print(
                f"said {self.num_said} sentences, {self.said_s:.0f} s, at {rtf:.2f} s a second",
                file=sys.stderr,
            )

    def hear(self) -> None:
        """Count a take that was listened to."""
        self.num_heard += 1
        if self.num_heard % (5 * TOLD_EVERY) == 0:
            print(f"heard {self.num_heard} takes", file=sys.stderr)


def _print(found: "SpeechEvaluation") -> None:
    from rich.table import Table

    from audiossm_apps.tables import print_machine, print_table

    if found.hearing is not None:
        _print_words(found)
    if found.likenesses:
        table = Table(title="voices beside their own recordings through the codec")
        table.add_column("voice")
        for heading in (
            "sentences",
            "F0 Hz",
            "real F0",
            "off %",
            "cepstral dB",
            "nobody's dB",
            "nearer %",
            "default's dB",
            "nearer %",
            "s",
            "real s",
        ):
            table.add_column(heading, justify="right", no_wrap=True)
        for item in found.likenesses:
            table.add_row(
                item.voice,
                str(item.num_recordings),
                _show(item.pitch, 1),
                _show(item.real_pitch, 1),
                _show(item.pitch_error, 1, 100),
                f"{item.distance:.2f}",
                f"{item.nobody_distance:.2f}",
                f"{100 * item.nearer:.1f}",
                _show(item.default_distance, 2),
                _show(item.nearer_than_default, 1, 100),
                f"{item.seconds:.1f}",
                f"{item.real_seconds:.1f}",
            )
        print_table(table)
    if found.bits is not None:
        _print_bits(found.bits, found.control)
    for run in found.runs:
        print(
            f"a minute after {run.key}: RMS {run.early_rms:.4f}, at its end {run.late_rms:.4f}; "
            f"{run.early_entropy:.2f} bits a code, at its end {run.late_entropy:.2f}"
        )
    if found.parity is not None:
        print(
            f"{found.parity.texts} texts in random pieces, {found.parity.restored} of them to "
            f"restored sessions: {found.parity.differing_frames} of {found.parity.frames} frames "
            f"and {found.parity.differing_words} words differ, samples by "
            f"{found.parity.max_sample_difference:.1e}"
        )
    for verdict in found.verdicts:
        print(
            f"{'pass' if verdict.passed else 'FAIL'}: {verdict.what} {_show(verdict.value, 3)} "
            f"(limit {verdict.limit})"
        )
    if found.rtf is not None:
        print(f"{found.said_s:.1f} s were said at {found.rtf:.3f} s a second")
    print_machine(found.machine)


def _print_bits(bits: "CodeBits", control: str | None) -> None:
    from audiossm.evaluate.speech_continuation import PROMPT_S

    for name, groups in (
        ("model", bits.model),
        (f"control {control}", bits.control),
        ("unigram", bits.unigram),
    ):
        if groups is not None:
            parts = " + ".join(f"{value:.2f}" for value in groups)
            print(f"{name}: {sum(groups):.2f} bits a frame ({parts})")
    print(f"over {bits.frames} frames, without text and voice")
    if bits.later is None:
        return
    sums = f"model {sum(bits.later.model):.2f}"
    if bits.later.control is not None and bits.later.saved is not None:
        fewer = f"{100 * bits.later.saved:.1f} % fewer"
        sums += f", control {sum(bits.later.control):.2f} ({fewer})"
    print(f"of these the {bits.later.frames} behind a prompt of {PROMPT_S:g} s: {sums}")


def _print_words(found: "SpeechEvaluation") -> None:
    from rich.table import Table

    from audiossm_apps.tables import print_table

    hearing = found.hearing
    assert hearing is not None
    said, real = hearing.errors
    table = Table(title=f"{found.model} as {hearing.recogniser} understands it")
    table.add_column("voice")
    for heading in ("words", "subst.", "del.", "ins.", "WER %", "lost"):
        table.add_column(heading, justify="right", no_wrap=True)
    lost = [word.voice for word in hearing.lost]
    rows = [
        (name or "(nobody)", errors, str(lost.count(name)))
        for name, errors in hearing.by_voice().items()
    ]
    for name, errors, count_lost in (
        *rows,
        ("all", said, str(len(lost))),
        ("recordings", real, "-"),
    ):
        table.add_row(
            name,
            str(errors.words),
            str(errors.substitutions),
            str(errors.deletions),
            str(errors.insertions),
            f"{100 * errors.rate:.2f}",
            count_lost,
        )
    print_table(table)
    if hearing.rivals is not None:
        mine, theirs = hearing.rivals
        print(
            f"PocketSphinx: WER {100 * mine.rate:.2f} %, of recordings {100 * theirs.rate:.2f} %: "
            f"{_show(hearing.rival_ratio, 2)} times"
        )


def _show(value: float | None, digits: int, scale: float = 1) -> str:
    return "-" if value is None else f"{scale * value:.{digits}f}"
