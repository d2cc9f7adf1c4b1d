"""``audiossm transcribe``: speech in files or on standard input to text."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from audiossm.errors import AudioError
from audiossm.hotwords import HotWord, read_hotwords
from audiossm_apps.complaint import complain, name_source
from audiossm_apps.options import (
    add_decoder_option,
    add_model_options,
    count,
    load_transcriber,
    positive,
    seconds_list,
)
from audiossm_apps.outputs import FORMATS, LiveText, TranscriptWriter, make_writer, open_output
from audiossm_apps.progress import show_progress

if TYPE_CHECKING:
    from audiossm.streaming import EndpointRules, Transcriber

__all__ = ["add_command", "run"]

BLOCK_S = 20.0
LIVE_BLOCK_S = 0.02

DESCRIPTION = """\
Write down English speech, with capitals, punctuation and digits. FILE is a wav, flac, ogg, opus
or mp3 file, or '-' for standard input (audio of these kinds, or raw 16-bit samples with
--raw-rate)."""
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
  srt, vtt  subtitles, of one file

A file that can't be read costs a line on standard error and exit code 1; the others go on. What was
recognised before the damage, or before Ctrl-C, is printed."""


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``transcribe`` to the command line."""
    parser = commands.add_parser(
        "transcribe",
        help="English speech to text, from files or standard input",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio file, or - for a pipe")
    parser.add_argument(
        "--format", choices=FORMATS, default="txt", help="see below (default: %(default)s)"
    )
    parser.add_argument(
        "--output", metavar="FILE", help="write there as words come (default: standard output)"
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
        help="'-' is raw signed 16-bit little-endian mono at this rate (default: it has a header)",
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
    hotwords = () if args.hotwords is None else read_hotwords(args.hotwords)
    several = len(args.files) > 1 or args.channels == "split"
    with open_output(args.output) as stream:
        transcriber = load_transcriber(args, readable=not args.raw)
        shows_bar = sys.stderr.isatty() and not args.live
        writer: TranscriptWriter
        if args.live and args.format == "txt" and stream.isatty():
            writer = LiveText()
        else:
            writer = make_writer(
                args.format,
                stream,
                as_list=several,
                # a progress bar and growing text can't share a terminal
                as_they_come=args.channels == "mix" and not (shows_bar and stream.isatty()),
            )
        failed = 0
        try:
            for source in args.files:
                try:
                    _transcribe_file(transcriber, source, writer, args, shows_bar, hotwords)
                except AudioError as exc:
                    complain(name_source(source, str(exc)))
                    failed += 1
        finally:
            writer.close()
    if failed and len(args.files) > 1:
        complain(f"{failed} of {len(args.files)} files failed", kind="")
    return 1 if failed else 0


def _check_usage(args: argparse.Namespace) -> None:
    parser: argparse.ArgumentParser = args.parser
    names = [name if name == "-" else os.path.realpath(name) for name in args.files]
    for index, name in enumerate(names):
        if name in names[:index]:
            given = "standard input (-)" if name == "-" else args.files[index]
            parser.error(f"{given} is given twice: name each input once")
    if args.raw_rate is not None and "-" not in names:
        parser.error("--raw-rate is about standard input: give - as the file")
    if args.hotwords is not None and args.decoder == "greedy":
        parser.error("--hotwords needs --decoder beam: greedy decoding can't weigh hot words")
    if args.no_endpoints and (args.pause or args.longest_segment):
        parser.error("--no-endpoints leaves no use for --pause and --longest-segment")
    if args.nbest and args.format not in ("json", "jsonl"):
        parser.error(f"--nbest needs --format json or jsonl: {args.format} has no alternatives")
    if args.format in ("srt", "vtt") and (len(names) > 1 or args.channels == "split"):
        parser.error(f"--format {args.format} holds one transcript: give one file, channels mixed")
    if args.output is not None and os.path.realpath(args.output) in names:
        parser.error(f"--output {args.output} is one of the inputs: it would be overwritten")


def _transcribe_file(
    transcriber: "Transcriber",
    source: str,
    writer: TranscriptWriter,
    args: argparse.Namespace,
    shows_bar: bool,
    hotwords: tuple[HotWord, ...],
) -> None:
    from audiossm.audio import open_audio
    from audiossm.streaming import Session, Token, TranscriptDraft, Word, WrittenWord
    from audiossm.streaming.files import transcribe_channels

    def show_unfinished(session: Session) -> None:
        if isinstance(writer, LiveText) and not split:
            words = (*(word.word for word in session.unwritten), session.partial.strip())
            writer.unfinished(" ".join(words))

    split = args.channels == "split"
    raw_rate = args.raw_rate if source == "-" else None
    with open_audio(source, raw_rate=raw_rate) as reader:
        kind = Word if transcriber.writer is None else WrittenWord
        num_channels = reader.channels if split else 1
        drafts = [
            TranscriptDraft(transcriber.writer is not None, args.nbest) for _ in range(num_channels)
        ]
        rules = _read_rules(args)
        num_samples = 0
        complete = False

        sessions: list[Session] = []

        def begin_session() -> Session:
            begun = transcriber.session(
                reader.sample_rate, args.lookahead_ms, hotwords, rules, args.nbest
            )
            sessions.append(begun)
            return begun

        def count_block(size: int) -> None:
            nonlocal num_samples
            num_samples += size
            advance(size)
            show_unfinished(sessions[0])

        try:
            with show_progress(reader.name, reader.num_samples, shown=shows_bar) as advance:
                for channel, event in transcribe_channels(
                    reader,
                    begin_session,
                    channels=args.channels,
                    block_s=LIVE_BLOCK_S if args.live else BLOCK_S,
                    flush_at=args.flush_at,
                    on_block=count_block,
                ):
                    drafts[channel].add(event)
                    if isinstance(event, kind):
                        writer.word(event)
                    elif isinstance(event, Token):
                        writer.token(event)
            complete = True
        finally:
            for channel, draft in enumerate(drafts):
                if not complete and kind is WrittenWord and channel < len(sessions):
                    for word in sessions[channel].unwritten:
                        draft.words.append(word)
                        writer.word(word)
                if complete or draft.words:
                    name = f"{source} [channel {channel + 1}]" if split else source
                    duration_s = num_samples / reader.sample_rate
                    writer.done(name, draft.build(duration_s, transcriber.name))


def _read_rules(args: argparse.Namespace) -> "EndpointRules | None":
    from audiossm.streaming import EndpointRules

    if args.no_endpoints:
        return None
    given = {"pause_s": args.pause, "longest_s": args.longest_segment}
    return EndpointRules(**{name: value for name, value in given.items() if value is not None})
