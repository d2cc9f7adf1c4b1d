"""``audiossm voice add``: a voice of one's own, tuned on recordings of it."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from audiossm.errors import AlignmentError, AudioError, ManifestError, ModelError, OutputError
from audiossm_apps.complaint import complain
from audiossm_apps.options import count
from audiossm_apps.progress import count_progress

if TYPE_CHECKING:
    from audiossm.manifest import Utterance
    from audiossm.streaming import Speaker
    from audiossm.train.voice_tuner import Phrase

__all__ = ["add_command", "run"]

FEW_S = 120.0  # of speech that is learnt from

DESCRIPTION = """\
Tune a voice on some minutes of somebody's speech, and write it as a file of the model. The network
isn't changed: the voice is the vector of the model's voice that is nearest, a pace and the state
that speech begins from. A part of the sentences is held out; a voice that says them no better than
the one that it began with isn't written. It takes some minutes on a CPU. With less than two minutes
of speech many words are lost.

Only add a voice whose owner agreed to it: --origin and --licence are stored in the file, and
'audiossm generate --voices' shows them."""


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``voice`` to the command line."""
    parser = commands.add_parser(
        "voice", help="voices of one's own", description="Voices of one's own."
    )
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", required=True)
    add = tasks.add_parser(
        "add",
        help="tune a voice on recordings",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add.add_argument("name", metavar="NAME", help="what the voice is called")
    add.add_argument(
        "recordings",
        nargs="+",
        metavar="AUDIO|MANIFEST.jsonl",
        help="recordings, or one manifest of them",
    )
    add.add_argument(
        "--text",
        action="append",
        default=[],
        metavar="WORDS",
        help="all that is said in a recording; once for each, in their order",
    )
    add.add_argument("--origin", required=True, help="one line: whose voice, of what recordings")
    add.add_argument("--licence", required=True, help="one line: on what terms it may be used")
    add.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="default: in the model's folder, where --voice NAME finds it; a shipped model's is a "
        "part of the installation and goes with it",
    )
    add.add_argument("--overwrite", action="store_true", help="replace a voice that there is")
    add.add_argument(
        "--epochs",
        type=count,
        default=20,
        metavar="N",
        help="how often all is learnt from (default: %(default)s)",
    )
    add.add_argument("--model", metavar="NAME|DIR", help="a generator (default: the shipped one)")
    add.add_argument(
        "--recogniser", metavar="NAME|DIR", help="what aligns the text (default: the shipped one)"
    )
    add.set_defaults(run=run, parser=add)


def run(args: argparse.Namespace) -> int:
    """Align, tune, check and write."""
    utterances = _list_utterances(args)
    from audiossm.models import Voice, save_voice
    from audiossm.models.voices import check_voice, voice_path
    from audiossm.streaming import Speaker
    from audiossm.train.voice_level import level_voice
    from audiossm.train.voice_tuner import tune_voice

    speaker = Speaker.load(args.model, backend="torch")
    fields = {"name": args.name, "origin": args.origin, "licence": args.licence}
    check_voice(Voice(vector=speaker.voice().vector, **fields))  # before the work
    path = voice_path(speaker, args.name) if args.output is None else args.output
    if path.exists() and not args.overwrite:
        raise OutputError(f"{path}: there is one already: another name, or --overwrite")
    phrases = list(_listen(args, speaker, utterances))
    with count_progress(args.epochs, "tuning") as advance:
        tuned = tune_voice(
            speaker,
            phrases,
            num_epochs=args.epochs,
            on_epoch=lambda *_: advance(),
            **fields,
        )
    print(
        f"{tuned.seconds:.0f} s of speech; held-out loss {tuned.before:.3f} before, "
        f"{tuned.after:.3f} after (nats per frame)",
        file=sys.stderr,
    )
    if tuned.seconds < FEW_S:
        complain(
            f"{tuned.seconds:.0f} s are few: many words will be lost; three minutes are better",
            kind="warning: ",
        )
    if not tuned.is_better:
        raise ModelError(
            f"voice {args.name!r} isn't written: it says held-out sentences no better than what it "
            "began with; give more speech, or check that the texts are right"
        )
    try:
        print(save_voice(speaker, level_voice(speaker, tuned.voice), path))
    except OSError as exc:
        raise OutputError(f"{exc.filename}: can't be written: {exc.strerror or exc}") from exc
    return 0


def _list_utterances(args: argparse.Namespace) -> "list[Utterance]":
    from audiossm.manifest import Utterance, read_manifest

    names = args.recordings
    if len(names) == 1 and Path(names[0]).suffix.lower() == ".jsonl":
        if args.text:
            args.parser.error("a manifest has its own texts: leave --text out")
        return read_manifest(names[0])
    if len(args.text) != len(names):
        args.parser.error(
            f"{len(names)} recordings, but {len(args.text)} texts: give --text once for each"
        )
    return [
        Utterance(key=name, text=text, path=Path(name))
        for name, text in zip(names, args.text, strict=True)
    ]


def _listen(
    args: argparse.Namespace, speaker: "Speaker", utterances: "list[Utterance]"
) -> "Iterator[Phrase]":
    """Yield what can be learnt from; a line says what can't."""
    import numpy as np

    from audiossm.evaluate.recording import read_recording
    from audiossm.streaming import EncoderSession, Transcriber
    from audiossm.train.voice_tuner import cut_phrases, time_units

    transcriber = Transcriber.load(args.recogniser, decoder="greedy")
    num_groups, frame_size = speaker.config.num_groups, speaker.frame_size
    with count_progress(len(utterances), "aligning") as advance:
        for utterance in utterances:
            try:
                recording = read_recording(utterance)
                alignment = transcriber.align(
                    recording.samples, utterance.text, sample_rate=recording.sample_rate
                )
                if not alignment.fits:
                    raise AlignmentError("the text doesn't seem to be what is said")
                session = EncoderSession(
                    speaker.codec,
                    sample_rate=recording.sample_rate,
                    num_groups=num_groups,
                    frames_per_step=50,
                )
                pieces = [session.push(recording.samples[np.newaxis]), session.finish()]
                num_frames = session.num_samples // frame_size
                codes = np.concatenate(pieces, axis=2)[0, :, :num_frames].T
                timed = time_units(alignment, speaker.pronouncer, num_frames)
                yield from cut_phrases(*timed, codes)
            except (AlignmentError, AudioError, ManifestError) as exc:
                complain(f"{utterance.key} is left out: {exc}", kind="warning: ")
            advance()
