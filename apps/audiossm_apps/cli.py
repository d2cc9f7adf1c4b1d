"""The ``audiossm`` command: its parser, its exit codes and what it does when it is stopped."""

import argparse
import io
import os
import sys

from audiossm import __version__
from audiossm.errors import AudioSSMError
from audiossm_apps import (
    align,
    codec,
    conformance,
    convert,
    evaluate,
    export,
    generate,
    loadtest,
    mic,
    models,
    prepare,
    pronounce,
    serve,
    soak,
    stream,
    transcribe,
    voice,
)
from audiossm_apps.complaint import complain

__all__ = ["main", "make_parser"]

EPILOG = """\
exit codes: 0 all went well; 1 something could not be done (a line on standard error says what);
2 wrong usage; 130 stopped with Ctrl-C (what was done until then is kept).
The shipped models understand English only."""


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="audiossm",
        description="Real-time audio toolkit: English speech to text and text to speech, audio to "
        "codes and back.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"audiossm {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    transcribe.add_command(commands)
    mic.add_command(commands)
    align.add_command(commands)
    codec.add_command(commands)
    generate.add_command(commands)
    voice.add_command(commands)
    pronounce.add_command(commands)
    serve.add_command(commands)
    stream.add_command(commands)
    loadtest.add_command(commands)
    soak.add_command(commands)
    evaluate.add_command(commands)
    prepare.add_command(commands)
    conformance.add_command(commands)
    export.add_command(commands)
    convert.add_command(commands)
    models.add_commands(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit code; wrong usage raises ``SystemExit(2)``."""
    _open_streams()
    # torch's threads spin before they sleep: two commands at once on two cores take each other's
    # time, and over ten times as long. It is read when torch is loaded, which is later.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    args = make_parser().parse_args(argv)
    code = _run(args)
    try:
        sys.stdout.flush()
    except OSError:
        # told already; Python flushes once more at exit and would complain then
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _open_streams() -> None:
    """Make results and complaints come out, or fail with a word, in any surroundings."""
    if sys.stderr is None:  # closed; print() would turn to standard output then
        sys.stderr = open(os.devnull, "w")
    if sys.stdout is None:
        sys.stdout = open(os.devnull)  # closed: writing to this one is an OSError as well
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for what its encoding doesn't have


def _run(args: argparse.Namespace) -> int:
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except AudioSSMError as exc:
        return _fail(str(exc))
    except BrokenPipeError:
        return 1  # nobody reads on: not worth a word
    except OSError as exc:
        return _fail(f"{exc.filename or 'standard output'}: {exc.strerror or exc}")
    except KeyboardInterrupt:
        complain("stopped", kind="")
        return 130
    return code


def _fail(message: str) -> int:
    complain(message)
    return 1


if __name__ == "__main__":
    sys.exit(main())
