"""``audiossm generate``: speech of a text, and audio that goes on."""

import argparse
import codecs
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiossm.errors import AudioError, PronunciationError
from audiossm_apps.complaint import complain, name_source
from audiossm_apps.options import count, positive
from audiossm_apps.outputs import write_text
from audiossm_apps.progress import show_progress
from audiossm_apps.speech_outputs import SUFFIXES, open_speech

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from audiossm.streaming import Sound, Speaker, SpeechEvent, SpokenWord
    from audiossm_apps.speech_client import RemoteSpeech

__all__ = ["add_command", "run"]

DESCRIPTION = """\
Say an English text, of --text or standard input: speech starts before the text ends. Or let audio
go on: --prompt. What can't be said, such as emoji and other scripts, is left out, and a line on
standard error says what. The same text, options and seed are said in the same way."""
EPILOG = f"""\
output: -o FILE, whose name ends in {", ".join(SUFFIXES)} (codes); '-o -' is WAV in a pipe,
with --raw bare samples. Generated audio says so in the file's comment (WAV: INFO, codes: their
header, others: their own tags), and so does what 'audiossm codec decode' makes of such codes; pipes
of --raw have no place for that.

formats, on standard output:
  json   an object at the end: {{"model", "voice", "seed", "duration_s", "words": [{{"word",
         "start_s", "end_s"}}], "skipped": [..]}}
  jsonl  an object a word, when it is said: {{"word", "start_s", "end_s"}}"""
TOLD = 5  # things that were left out, in the line about them
PIECE = 1 << 16  # bytes of text that are read at once


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``generate`` to the command line."""
    parser = commands.add_parser(
        "generate",
        help="English text to speech, and audio that goes on",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_argument_group("what is said")
    source.add_argument("--text", metavar="WORDS", help="a text (default: standard input)")
    source.add_argument("--prompt", metavar="AUDIO", help="an audio file that is to go on")
    source.add_argument(
        "--seconds", type=positive, metavar="S", help="how much is added to the prompt"
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--voice",
        metavar="NAME|FILE",
        help="a voice that --voices lists, or its file (default: the model's own; with --prompt "
        "nobody's, as it goes on with whoever speaks there)",
    )
    how.add_argument("--voices", action="store_true", help="list the model's voices, and end")
    how.add_argument(
        "--speed",
        type=positive,
        default=1.0,
        metavar="X",
        help="0.25 to 4: below 1 slower, above it faster; beyond 1.5 more and more words are lost "
        "(default: %(default)s)",
    )
    how.add_argument(
        "--seed",
        type=whole,
        default=0,
        metavar="N",
        help="another one says it in another way (default: %(default)s)",
    )
    how.add_argument(
        "--temperature",
        type=temperature,
        metavar="T",
        help="less is more even, 0 the likeliest (default: 0.7, with --prompt 1)",
    )
    target = parser.add_argument_group("where it goes")
    target.add_argument("-o", "--output", metavar="FILE", help="a file, or - for a pipe")
    target.add_argument("--play", action="store_true", help="play it on the loudspeaker")
    target.add_argument("--raw", action="store_true", help="with '-o -': 16-bit samples, no header")
    target.add_argument("--format", choices=("json", "jsonl"), help="tell word times; see below")
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        metavar="NAME|DIR",
        help="a generator that 'audiossm models' lists, or its folder (default: the shipped one)",
    )
    model.add_argument(
        "--backend",
        choices=["auto", "torch", "numba", "onnx"],
        default="auto",
        help="onnx runs a step as a graph, numba as compiled loops; auto takes the fastest one "
        "(default: %(default)s)",
    )
    model.add_argument(
        "--threads", type=count, metavar="N", help="CPU threads (default: as torch chooses)"
    )
    server = parser.add_argument_group("a server")
    server.add_argument(
        "--server",
        metavar="URL",
        help="have an 'audiossm serve' say it, such as localhost:8765 (default: said here)",
    )
    server.add_argument("--key", metavar="KEY", help="API key, if the server wants one")
    parser.set_defaults(run=run, parser=parser)


def whole(text: str) -> int:
    """Read a whole number of at least 0."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return value


def temperature(text: str) -> float:
    """Read a number from 0 to 10."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 10")
    return value


def run(args: argparse.Namespace) -> int:
    """Speak, or list the voices."""
    _check_usage(args)
    if args.server is not None:
        return _have_said(args)
    import torch

    from audiossm.models.voices import make_nobody
    from audiossm.streaming import Speaker

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    speaker = Speaker.load(args.model, backend=args.backend)
    if args.voices:
        for name in speaker.voices:
            voice = speaker.voice(name)
            print(name, voice.licence, voice.origin, sep="\t")
        return 0
    unknown = args.prompt is not None and args.voice is None  # whoever speaks there
    args.voice = make_nobody(speaker) if unknown else speaker.voice(args.voice)
    if args.prompt is not None:
        try:
            _speak(args, speaker, _go_on(args, speaker))
        except AudioError as exc:
            complain(name_source(args.prompt, str(exc)))
            return 1
        return 0
    _speak(args, speaker, _say(args, speaker))
    return 0


def _have_said(args: argparse.Namespace) -> int:
    """Have a server say it."""
    from audiossm_apps.speech_client import RemoteSpeech

    with RemoteSpeech(
        args.server,
        args.key,
        voice=args.voice,
        speed=args.speed,
        seed=args.seed,
        temperature=args.temperature,
    ) as remote:
        _speak(args, remote, _explain(args, remote.say))
    return 0


def _explain(
    args: argparse.Namespace, say: "Callable[[Iterable[str]], Iterator[SpeechEvent]]"
) -> "Iterator[SpeechEvent]":
    """Yield what a server makes of the text, or say why this is nothing."""
    from audiossm.streaming import Sound
    from audiossm.streaming.speaker import explain_silence

    beginning, spoken = "", False

    def read() -> Iterator[str]:
        nonlocal beginning
        for text in _read_text() if args.text is None else [args.text]:
            beginning = (beginning + text)[:80]
            yield text

    for event in say(read()):
        spoken |= isinstance(event, Sound)
        yield event
    if not spoken:
        raise PronunciationError(explain_silence(beginning))


def _say(args: argparse.Namespace, speaker: "Speaker") -> "Iterator[SpeechEvent]":
    from audiossm.streaming import Sound
    from audiossm.streaming.speaker import explain_silence

    session = speaker.session(
        voice=args.voice, speed=args.speed, seed=args.seed, temperature=args.temperature
    )
    beginning, spoken = "", False
    for text in _read_text() if args.text is None else [args.text]:
        beginning = (beginning + text)[:80]
        for event in session.push(text):
            spoken |= isinstance(event, Sound)
            yield event
    for event in session.finish():
        spoken |= isinstance(event, Sound)
        yield event
    if not spoken:
        raise PronunciationError(explain_silence(beginning))


def _read_text() -> Iterator[str]:
    """Read UTF-8 text from standard input as it comes, with or without a byte order mark."""
    if sys.stdin is None:
        raise PronunciationError("standard input is closed, so there is no text to read from it")
    stream = sys.stdin.buffer
    read = getattr(stream, "read1", stream.read)
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        while data := read(PIECE):
            yield decoder.decode(data)
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as exc:
        raise PronunciationError(
            "standard input: the text isn't UTF-8: expected plain text"
        ) from exc


def _go_on(args: argparse.Namespace, speaker: "Speaker") -> "Iterator[Sound]":
    import numpy as np

    from audiossm.audio import mix, open_audio

    pieces: list[NDArray[np.float32]] = []
    with open_audio(args.prompt) as reader:
        while (block := reader.read(reader.sample_rate)).shape[1]:
            pieces.append(mix(block))
        samples = np.concatenate([np.zeros(0, np.float32), *pieces])
        yield from speaker.continue_stream(
            samples,
            reader.sample_rate,
            args.seconds,
            voice=args.voice,
            seed=args.seed,
            temperature=args.temperature,
        )


def _speak(
    args: argparse.Namespace,
    speaker: "Speaker | RemoteSpeech",
    events: "Iterable[SpeechEvent]",
) -> None:
    """Bring events where they belong."""
    from audiossm.streaming import Skipped, Sound, SpokenWord
    from audiossm.streaming.speaker import describe_speech

    num_samples, words = 0, list[SpokenWord]()
    skipped: dict[str, None] = {}
    expected = None if args.seconds is None else round(args.seconds * speaker.sample_rate)
    name = args.prompt or "speech"
    shown = sys.stderr.isatty() and not args.play
    target = None if args.play else args.output
    comment = describe_speech(speaker.name, _name_voice(args, speaker))
    with (
        open_speech(target, speaker, comment, raw=args.raw) as output,
        show_progress(name, expected, shown=shown) as advance,
    ):
        try:
            for event in events:
                match event:
                    case Sound():
                        output.write(event)
                        num_samples += len(event.samples)
                        advance(len(event.samples))
                    case SpokenWord():
                        if args.format == "jsonl":
                            write_text(sys.stdout, f"{json.dumps(_to_json(event))}\n")
                        elif args.format == "json":
                            words.append(event)
                    case Skipped():
                        skipped[event.text] = None
        finally:
            output.finish()
    if skipped:
        names = [text if len(text) <= 40 else f"{text[:40]}..." for text in list(skipped)[:TOLD]]
        more = f" and {len(skipped) - TOLD} more" if len(skipped) > TOLD else ""
        complain(f"left out, as it can't be said: {', '.join(names)}{more}", kind="warning: ")
    if args.format == "json":
        result = {
            "model": speaker.name,
            "voice": _name_voice(args, speaker) or None,
            "seed": args.seed,
            "duration_s": round(num_samples / speaker.sample_rate, 3),
            "words": [_to_json(word) for word in words],
            "skipped": list(skipped),
        }
        write_text(sys.stdout, f"{json.dumps(result, indent=2)}\n")


def _name_voice(args: argparse.Namespace, speaker: "Speaker | RemoteSpeech") -> str:
    """Return the voice's name, "" if it has none."""
    return str(args.voice.name if args.server is None else speaker.voice)


def _to_json(word: "SpokenWord") -> dict[str, Any]:
    times = {"start_s": round(word.start_s, 3), "end_s": round(word.end_s, 3)}
    return {"word": word.word, **times}


def _check_usage(args: argparse.Namespace) -> None:
    parser: argparse.ArgumentParser = args.parser
    if args.key is not None and args.server is None:
        parser.error("--key is for a --server")
    if args.server is not None:
        for name in ("model", "threads", "prompt"):
            if getattr(args, name) is not None:
                parser.error(f"--{name} is about what is done here: not with --server")
        if args.voices:
            parser.error("--voices lists those that are here: not with --server")
        if args.output is not None and args.output.lower().endswith(".ssma"):
            parser.error("a server sends no codes: give another suffix than .ssma")
    if args.voices:
        return
    if args.speed != 1.0 and args.output is not None and args.output.lower().endswith(".ssma"):
        parser.error("codes have no --speed: give another suffix than .ssma")
    if args.play == (args.output is not None):
        parser.error("say where it goes: either -o FILE, -o - or --play")
    if args.prompt is not None and args.text is not None:
        parser.error("either --text is said or --prompt goes on")
    if args.prompt is not None and args.speed != 1.0:
        parser.error("--speed is for texts: a --prompt goes on as fast as it is")
    if (args.prompt is None) != (args.seconds is None):
        parser.error("--prompt needs --seconds, and --seconds a --prompt")
    if args.raw and args.output != "-":
        parser.error("--raw is about standard output: give '-o -'")
    if args.output == "-":
        if args.format is not None:
            parser.error("standard output can't get both audio and word times: give -o FILE")
        if sys.stdout.isatty():
            parser.error("standard output is a terminal: give a file or a pipe")
    elif args.output is not None:
        if Path(args.output).suffix.lower() not in SUFFIXES:
            parser.error(f"{args.output}: its name must end in one of {', '.join(SUFFIXES)}")
        if args.prompt and os.path.realpath(args.output) == os.path.realpath(args.prompt):
            parser.error(f"{args.output} is the prompt: it would be overwritten")
