"""``audiossm transcribe``: speech in files, folders or on standard input to text."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from audiossm.errors import AudioError, OutputError
from audiossm.hotwords import HotWord, read_hotwords
from audiossm_apps.complaint import complain, name_source
from audiossm_apps.inputs import Input, find_inputs, name_targets
from audiossm_apps.options import (
    add_decoder_option,
    add_model_options,
    count,
    load_transcriber,
    positive,
    seconds_list,
)
from audiossm_apps.outputs import FORMATS, LiveText, TranscriptWriter, make_writer, open_output
from audiossm_apps.partial import Partial
from audiossm_apps.progress import count_progress
from audiossm_apps.recording import cue_shape, is_raw, transcribe_recording, transcribe_to_file
from audiossm_apps.whole_file import is_newer
from audiossm_apps.workers import Outcome, Task, run_tasks

__all__ = ["add_command", "run"]

FOLLOW_S = 10.0

DESCRIPTION = """\
Write down English speech, with capitals, punctuation and digits. FILE is a wav, flac, ogg, opus
or mp3 file (m4a, mp4, webm, mkv, aac and others, too, with the extra 'media'), a folder, which is
searched with all that is below it, a pattern such as 'talks/**/*.mp3', or '-' for standard input
(audio of these kinds, or raw 16-bit samples with --raw-rate)."""
EPILOG = """\
formats:
  txt    the text alone, one line for each file
  json   an object {"text", "duration_s", "model", "words": [{"word", "text", "start_s", "end_s",
         "confidence"}]}, "word" being plain and "text" as it is written (not with --raw), a
         number's words together, and "segments": [{"start_s", "end_s", "text", "confidence"}];
         with --nbest "alternatives": [{"text", "score"}] in the object and in each segment, in
         plain words, best first ("score" is a natural logarithm of a probability); for several
         files, or with --channels split, a list of such objects with "file" added
  jsonl  the same objects with "file", one a line
  srt, vtt  subtitles, of one file, or with --output-dir or --beside

A file that can't be read costs a line on standard error and exit code 1; the others go on. What was
recognised before the damage, or before Ctrl-C, is printed.

a file for each result (--output-dir, --beside):
  talk.mp3 gives talk.srt, and a folder's own folders are made again in --output-dir. A result
  appears when it is whole. It is not made again if it is newer than its recording (--overwrite
  does so). Every half minute of audio, talk.srt.partial says how far a recording is: a run that was
  stopped goes on from there, to the same result, if recording, model and options are the same.
  So does a worker of --ray that takes the place of one that died."""


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``transcribe`` to the command line."""
    parser = commands.add_parser(
        "transcribe",
        help="English speech to text, from files or standard input",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="audio file, folder, pattern, or - for a pipe"
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="txt", help="see below (default: %(default)s)"
    )
    places = parser.add_mutually_exclusive_group()
    places.add_argument(
        "--output", metavar="FILE", help="write there as words come (default: standard output)"
    )
    places.add_argument(
        "--output-dir",
        metavar="DIR",
        help="write a file for each input there, see below",
    )
    places.add_argument(
        "--beside", action="store_true", help="write a file for each input beside it, see below"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="make results again that are newer than their recordings",
    )
    parser.add_argument(
        "--jobs",
        type=count,
        metavar="N",
        help="work on so many files at once, each in a process with its own model (about 1 GB) and "
        "one thread, if --threads doesn't say otherwise; results keep the order of the inputs "
        "(default: 1)",
    )
    parser.add_argument(
        "--ray",
        action="store_true",
        help="let workers of a Ray cluster do it, each on a recording at a time (--jobs of them; "
        "default: one for each of its cores); all its machines see the same files; needs the extra "
        "'ray'",
    )
    parser.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="of the cluster (default: what RAY_ADDRESS says, or a new one on this machine)",
    )
    parser.add_argument(
        "--channels",
        choices=["mix", "split"],
        default="mix",
        help="average the channels, or write a transcript for each (default: %(default)s)",
    )
    parser.add_argument(
        "--raw-rate",
        type=count,
        metavar="HZ",
        help="'-' and .raw files are raw signed 16-bit little-endian mono at this rate (default: "
        "they have a header)",
    )
    parser.add_argument(
        "--raw",
        action="store_true",
        help="plain words, without capitals, punctuation and digits",
    )
    add_decoder_option(parser)
    parser.add_argument(
        "--hotwords",
        metavar="LIST",
        help="words and phrases to write more readily: a file with one a line, perhaps with a tab "
        "and a weight after it (default: none, and weight 1)",
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="go through the audio in pieces of 20 ms; on a terminal, words appear as they come",
    )
    parser.add_argument(
        "--flush-at",
        type=seconds_list,
        default=[],
        metavar="S,S,...",
        help="end the sentence at these seconds of each file (default: at its end only)",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="FILE, WAV or raw, is still being written: go on as it grows, until Ctrl-C or "
        "--follow-timeout; words appear as they come",
    )
    parser.add_argument(
        "--follow-timeout",
        type=positive,
        metavar="SECONDS",
        help=f"a file that didn't grow for so long is finished (default: {FOLLOW_S:g})",
    )
    subtitles = parser.add_argument_group("subtitles")
    subtitles.add_argument(
        "--max-line-length",
        type=count,
        default=42,
        metavar="N",
        help="characters; a longer word stays whole (default: %(default)s)",
    )
    subtitles.add_argument(
        "--max-lines",
        type=int,
        choices=[1, 2, 3],
        default=2,
        help="lines that stand together (default: %(default)s)",
    )
    group = parser.add_argument_group("segments", "a segment ends")
    group.add_argument(
        "--pause",
        type=positive,
        metavar="S",
        help="at a silence of S seconds after words (default: 0.7)",
    )
    group.add_argument(
        "--longest-segment",
        type=positive,
        metavar="S",
        help="after S seconds, at the next shorter pause (default: 20)",
    )
    group.add_argument(
        "--no-endpoints", action="store_true", help="only where --flush-at says, and at the end"
    )
    parser.add_argument(
        "--nbest",
        type=count,
        default=0,
        metavar="N",
        help="with json and jsonl: up to N readings of each segment, which differ in what was not "
        "final before its end (default: none)",
    )
    add_model_options(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Transcribe each file; return 1 if one of them failed."""
    _check_usage(args)
    args.parallel = args.ray or (args.jobs or 1) > 1
    args.follow = (args.follow_timeout or FOLLOW_S) if args.follow else None
    hotwords = () if args.hotwords is None else read_hotwords(args.hotwords)
    inputs, left_out = find_inputs(args.files, with_raw=args.raw_rate is not None)
    _check_inputs(args, inputs)
    for line in left_out:
        complain(line, kind="")
    if args.beside or args.output_dir is not None:
        failed = _run_to_files(args, inputs, hotwords)
    else:
        failed = _run_to_stream(args, inputs, hotwords)
    if failed and len(inputs) > 1:
        complain(f"{failed} of {len(inputs)} files failed", kind="")
    return 1 if failed else 0


def _check_usage(args: argparse.Namespace) -> None:
    """Refuse options that don't go together."""
    parser: argparse.ArgumentParser = args.parser
    names = [name if name == "-" else os.path.realpath(name) for name in args.files]
    for index, name in enumerate(names):
        if name in names[:index]:
            given = "standard input (-)" if name == "-" else args.files[index]
            parser.error(f"{given} is given twice: name each input once")
    to_files = args.beside or args.output_dir is not None
    if args.hotwords is not None and args.decoder == "greedy":
        parser.error("--hotwords needs --decoder beam: greedy decoding can't weigh hot words")
    if args.no_endpoints and (args.pause or args.longest_segment):
        parser.error("--no-endpoints leaves no use for --pause and --longest-segment")
    if args.nbest and args.format not in ("json", "jsonl"):
        parser.error(f"--nbest needs --format json or jsonl: {args.format} has no alternatives")
    if args.output is not None and os.path.realpath(args.output) in names:
        parser.error(f"--output {args.output} is one of the inputs: it would be overwritten")
    if args.overwrite and not to_files:
        parser.error("--overwrite is about results that exist: give --output-dir or --beside")
    parallel = args.ray or (args.jobs or 1) > 1
    if args.ray_address and not args.ray:
        parser.error("--ray-address needs --ray")
    if "-" in names and (to_files or parallel):
        parser.error(
            "standard input (-) goes to one place, in one process: leave out "
            "--output-dir, --jobs and --ray"
        )
    is_file = len(names) == 1 and names != ["-"] and not os.path.isdir(names[0])
    if args.follow and (parallel or not is_file):
        parser.error("--follow is about one file that is being written: name that")
    if args.follow_timeout is not None and not args.follow:
        parser.error("--follow-timeout needs --follow")


def _check_inputs(args: argparse.Namespace, inputs: Sequence[Input]) -> None:
    """Refuse options that these recordings can't have."""
    parser: argparse.ArgumentParser = args.parser
    if args.raw_rate is not None and not any(is_raw(item.source) for item in inputs):
        parser.error("--raw-rate is about standard input and .raw files: give - or one of them")
    to_files = args.beside or args.output_dir is not None
    several = len(inputs) > 1 or args.channels == "split"
    if args.format in ("srt", "vtt") and (args.channels == "split" or several and not to_files):
        parser.error(
            f"--format {args.format} holds one transcript: give one file, channels mixed, or "
            "--output-dir for a file for each input"
        )
    if args.format not in ("srt", "vtt") and (args.max_line_length, args.max_lines) != (42, 2):
        parser.error("--max-line-length and --max-lines are about --format srt and vtt")


def _run_to_stream(
    args: argparse.Namespace, inputs: Sequence[Input], hotwords: tuple[HotWord, ...]
) -> int:
    """Transcribe to standard output or ``--output``; return how many failed."""
    is_searched = [item.source for item in inputs] != args.files
    growing = args.live or args.follow is not None
    alone = not args.parallel
    with open_output(args.output) as stream:
        shows_bar = sys.stderr.isatty() and not growing
        writer: TranscriptWriter
        if growing and args.format == "txt" and stream.isatty() and alone:
            writer = LiveText()
        else:
            writer = make_writer(
                args.format,
                stream,
                as_list=len(inputs) > 1 or args.channels == "split" or is_searched,
                # a progress bar and growing text can't share a terminal
                as_they_come=args.channels == "mix"
                and not (shows_bar and stream.isatty())
                and alone,
                shape=cue_shape(args),
            )
        try:
            if alone:
                return _run_alone(args, inputs, hotwords, writer, shows_bar)
            return _run_in_order(args, inputs, hotwords, writer, not stream.isatty())
        finally:
            writer.close()


def _run_alone(
    args: argparse.Namespace,
    inputs: Sequence[Input],
    hotwords: tuple[HotWord, ...],
    writer: TranscriptWriter,
    shows_bar: bool,
) -> int:
    transcriber = load_transcriber(args, readable=not args.raw)
    failed = _complain_of_problems(inputs)
    for item in inputs:
        try:
            if item.problem is None:
                transcribe_recording(
                    transcriber, item.source, writer, args, hotwords, shows_bar=shows_bar
                )
        except AudioError as exc:
            complain(name_source(item.source, str(exc)))
            failed += 1
    return failed


def _run_in_order(
    args: argparse.Namespace,
    inputs: Sequence[Input],
    hotwords: tuple[HotWord, ...],
    writer: TranscriptWriter,
    shows_bar: bool,
) -> int:
    """Let workers transcribe; write their results in the order of the inputs."""
    tasks = [Task(item.source, None) for item in inputs if item.problem is None]
    outcomes: dict[int, Outcome] = {}
    turn = 0

    def write(outcome: Outcome) -> None:
        for name, transcript in outcome.transcripts:
            writer.done(name, transcript)

    def note(number: int, outcome: Outcome) -> None:
        nonlocal turn
        outcomes[number] = outcome
        while turn in outcomes:
            write(outcomes.pop(turn))
            turn += 1

    try:
        return _complain_of_problems(inputs) + _run_jobs(args, tasks, hotwords, note, shows_bar)
    finally:
        # after Ctrl-C: those that are whole, though one before them is not
        for number in sorted(outcomes):
            write(outcomes[number])


def _run_to_files(
    args: argparse.Namespace, inputs: Sequence[Input], hotwords: tuple[HotWord, ...]
) -> int:
    """Transcribe each input to a file of its own; return how many failed."""
    targets = name_targets(
        [item for item in inputs if item.problem is None], args.format, args.output_dir
    )
    tasks, done = [], []
    for item, target in targets:
        is_done = is_newer(target, item.source) and not Partial.place(target).exists()
        if is_done and not args.overwrite and args.follow is None:
            done.append(target)
        else:
            tasks.append(Task(item.source, target))
    if done:
        what = f"{done[0]} is" if len(done) == 1 else f"{len(done)} of {len(targets)} results are"
        complain(f"{what} newer than the recording: skipped (--overwrite makes it again)", kind="")
    failed = _complain_of_problems(inputs)
    if args.parallel:
        return failed + _run_jobs(args, tasks, hotwords, lambda number, outcome: None, True)
    transcriber = load_transcriber(args, readable=not args.raw) if tasks else None
    shows_bar = sys.stderr.isatty()
    for task in tasks:
        assert transcriber is not None and task.target is not None
        try:
            transcribe_to_file(
                transcriber, task.source, task.target, args, hotwords, shows_bar=shows_bar
            )
        except (AudioError, OutputError) as exc:
            complain(name_source(task.source, str(exc)))
            failed += 1
    return failed


def _run_jobs(
    args: argparse.Namespace,
    tasks: Sequence[Task],
    hotwords: tuple[HotWord, ...],
    note: Callable[[int, Outcome], None],
    shows_bar: bool,
) -> int:
    """Let workers do the tasks, tell ``note`` of each that is done, return how many failed."""
    failed = 0
    with count_progress(len(tasks), shown=shows_bar) as advance:
        if args.ray and tasks:
            from audiossm_apps.scale_files import run_ray_tasks

            outcomes = run_ray_tasks(tasks, args, hotwords, args.jobs)
        else:
            outcomes = run_tasks(tasks, args, hotwords, args.jobs or 1)
        for number, outcome in outcomes:
            note(number, outcome)
            advance()
            if outcome.failure is not None:
                complain(name_source(tasks[number].source, outcome.failure))
                failed += 1
    return failed


def _complain_of_problems(inputs: Sequence[Input]) -> int:
    """Say what is wrong with inputs that hold no recording, and how many these are."""
    problems = [(item.source, item.problem) for item in inputs if item.problem is not None]
    for source, problem in problems:
        complain(name_source(source, problem))
    return len(problems)
