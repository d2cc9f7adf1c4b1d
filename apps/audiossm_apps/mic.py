"""``audiossm mic``: what a microphone hears, as text."""

import argparse

from audiossm_apps.options import add_decoder_option, add_model_options, positive

__all__ = ["add_command", "run"]

DESCRIPTION = """\
Write down English speech from a microphone as it is said, until Ctrl-C, with a new line after each
pause. On a terminal, words that may still change are dim, and a line shows the level. The model
runs in this process, or with --server in an 'audiossm serve'."""


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``mic`` to the command line."""
    parser = commands.add_parser(
        "mic",
        help="English speech to text, from a microphone",
        description=DESCRIPTION,
        conflict_handler="resolve",  # --device is the microphone here, not what computes
    )
    parser.add_argument("--list-devices", action="store_true", help="list the microphones and end")
    parser.add_argument(
        "--save",
        metavar="NAME",
        help="keep the sound in NAME.wav and the words in NAME.srt (default: neither)",
    )
    parser.add_argument(
        "--duration-s",
        type=positive,
        metavar="S",
        help="end after so many seconds (default: Ctrl-C ends it)",
    )
    parser.add_argument(
        "--raw", action="store_true", help="plain words, without capitals, punctuation and digits"
    )
    parser.add_argument(
        "--hotwords",
        metavar="FILE",
        help="words and phrases to write more readily: one a line, perhaps with a tab and a weight "
        "after it (default: none, and weight 1)",
    )
    parser.add_argument(
        "--server", metavar="URL", help="let a server listen, such as ws://127.0.0.1:8765"
    )
    parser.add_argument("--key", metavar="KEY", help="API key, if the server wants one")
    add_decoder_option(parser)
    add_model_options(parser)
    parser.add_argument(
        "--device",
        dest="microphone",
        metavar="NUMBER|NAME",
        help="a microphone that --list-devices has, or a part of its name (default: the system's)",
    )
    parser.set_defaults(run=run, parser=parser, device="cpu")


def run(args: argparse.Namespace) -> int:
    """Listen until somebody has heard enough."""
    from audiossm_apps.dictation import dictate, list_devices

    if args.list_devices:
        print("\n".join(list_devices()))
        return 0
    _check_options(args)
    dictate(args)
    return 0


def _check_options(args: argparse.Namespace) -> None:
    if args.server is None:
        if args.key is not None:
            args.parser.error("--key is a server's: give --server")
        return
    for name, default in (("model", None), ("decoder", None), ("backend", "auto")):
        if getattr(args, name) != default:
            args.parser.error(f"--{name} is about this process: the server has its own model")
    if args.threads is not None:
        args.parser.error("--threads is about this process: the server has its own")
