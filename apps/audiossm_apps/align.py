"""``audiossm align``: when each word of a known text is said in a recording."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiossm.errors import AlignmentError, AudioError
from audiossm.textgrid import format_textgrid
from audiossm_apps.complaint import complain, name_source
from audiossm_apps.options import add_model_options, load_transcriber
from audiossm_apps.outputs import open_output, write_text

if TYPE_CHECKING:
    from audiossm.streaming import AlignedPhone, AlignedWord, Alignment

__all__ = ["add_command", "run"]

FORMATS = ("json", "textgrid", "tsv")

DESCRIPTION = """\
Find when each word of a text, and each phone if the model knows phones, is said in a recording.
AUDIO is a wav, flac, ogg, opus or mp3 file, TEXT a UTF-8 file with all that is said in it; one of
them may be '-' for standard input."""
EPILOG = """\
formats:
  json      an object {"text", "duration_s", "model", "misfit", "phones", "words": [{"word",
            "start_s", "end_s", "confidence", "phones": [{"phone", "start_s", "end_s",
            "confidence"}]}]}; "phones" is "ipa", and null where there are none: at the top if the
            model has none, in a word of sounds that it doesn't know
  textgrid  tiers "words" and "phones" for Praat
  tsv       a header, then a line each: word or phone, start_s, end_s, text, confidence

Words keep their spelling; those that aren't spelled in letters, such as 42, get what lies between
their neighbours, and no confidence."""


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``align`` to the command line."""
    parser = commands.add_parser(
        "align",
        help="word and phone times of a known English text",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("audio", metavar="AUDIO", help="audio file, or - for a pipe")
    parser.add_argument(
        "text_file", nargs="?", metavar="TEXT", help="text file, or - for a pipe; or use --text"
    )
    parser.add_argument("--text", metavar="WORDS", help="the text itself")
    parser.add_argument(
        "--format", choices=FORMATS, default="json", help="see below (default: %(default)s)"
    )
    parser.add_argument("--output", metavar="FILE", help="write there (default: standard output)")
    add_model_options(parser)
    parser.set_defaults(run=run, parser=parser, decoder="greedy")


def run(args: argparse.Namespace) -> int:
    """Align one recording with its text."""
    _check_usage(args)
    text = args.text if args.text_file is None else _read_text(args.text_file)
    with open_output(args.output) as stream:
        transcriber = load_transcriber(args)
        try:
            alignment = transcriber.align(args.audio, text, lookahead_ms=args.lookahead_ms)
        except (AlignmentError, AudioError) as exc:
            complain(name_source(args.audio, str(exc)))
            return 1
        _warn(alignment)
        write_text(stream, format_alignment(alignment, args.format))
    return 0


def format_alignment(alignment: "Alignment", kind: str) -> str:
    """Write an alignment in one of ``FORMATS``."""
    match kind:
        case "json":
            return json.dumps(_to_json(alignment), indent=2) + "\n"
        case "tsv":
            return _to_tsv(alignment)
    words = [(word.start_s, word.end_s, word.word) for word in alignment.words]
    tiers = [("words", words)]
    if alignment.has_phones:
        phones = (phone for word in alignment.words for phone in word.phones or ())
        tiers.append(("phones", [(item.start_s, item.end_s, item.phone) for item in phones]))
    return format_textgrid(alignment.duration_s, tiers)


def _check_usage(args: argparse.Namespace) -> None:
    parser: argparse.ArgumentParser = args.parser
    if (args.text_file is None) == (args.text is None):
        parser.error("give the text either as a file, TEXT, or with --text")
    if args.audio == "-" and args.text_file == "-":
        parser.error("only one of AUDIO and TEXT can be standard input (-)")
    names = [os.path.realpath(name) for name in (args.audio, args.text_file or "-") if name != "-"]
    if args.output is not None and os.path.realpath(args.output) in names:
        parser.error(f"--output {args.output} is one of the inputs: it would be overwritten")


def _read_text(source: str) -> str:
    """Read UTF-8 text, with or without a byte order mark."""
    name = "standard input" if source == "-" else str(Path(source))
    if source == "-" and sys.stdin is None:
        raise AlignmentError("standard input is closed, so there is no text to read from it")
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as exc:
        raise AlignmentError(f"{name}: can't read the text: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise AlignmentError(f"{name}: the text isn't UTF-8: expected a plain text file") from exc


def _warn(alignment: "Alignment") -> None:
    """Say on standard error what makes times doubtful."""
    if not alignment.fits:
        complain(
            f"the text doesn't seem to be what is said (misfit {alignment.misfit:.1f}, right texts "
            "lie below 3): don't trust these times",
            kind="warning: ",
        )
    if not alignment.is_calibrated:
        complain(
            f"how late model {alignment.model!r} hears was never measured (no table 'alignment' in "
            "its config.toml): these times are late",
            kind="warning: ",
        )
    unspelled = [word.word for word in alignment.words if word.confidence is None]
    if unspelled:
        complain(
            f"{_list(unspelled)} can't be spelled in letters: got what lies between neighbours",
            kind="warning: ",
        )
    unknown = [
        word.word
        for word in alignment.words
        if alignment.has_phones and word.phones is None and word.confidence is not None
    ]
    if unknown:
        complain(
            f"of sounds that model {alignment.model!r} doesn't know, so without phones: "
            f"{_list(unknown)}",
            kind="warning: ",
        )


def _list(words: Sequence[str]) -> str:
    words = list(dict.fromkeys(words))
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")


def _to_json(alignment: "Alignment") -> dict[str, Any]:
    return {
        "text": alignment.text,
        "duration_s": round(alignment.duration_s, 3),
        "model": alignment.model,
        "misfit": round(alignment.misfit, 3),
        "phones": "ipa" if alignment.has_phones else None,
        "words": [
            {
                "word": word.word,
                **_tell(word),
                "phones": None
                if word.phones is None
                else [{"phone": phone.phone, **_tell(phone)} for phone in word.phones],
            }
            for word in alignment.words
        ],
    }


def _tell(item: "AlignedWord | AlignedPhone") -> dict[str, float | None]:
    return {
        "start_s": round(item.start_s, 3),
        "end_s": round(item.end_s, 3),
        "confidence": None if item.confidence is None else round(item.confidence, 4),
    }


def _to_tsv(alignment: "Alignment") -> str:
    lines = ["kind\tstart_s\tend_s\ttext\tconfidence"]
    for word in alignment.words:
        lines.append(_to_row("word", word, word.word))
        lines += [_to_row("phone", phone, phone.phone) for phone in word.phones or ()]
    return "\n".join(lines) + "\n"


def _to_row(kind: str, item: "AlignedWord | AlignedPhone", text: str) -> str:
    confidence = "" if item.confidence is None else f"{item.confidence:.4f}"
    return f"{kind}\t{item.start_s:.3f}\t{item.end_s:.3f}\t{text}\t{confidence}"
