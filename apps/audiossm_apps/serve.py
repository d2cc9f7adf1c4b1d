"""``audiossm serve``: the live service on a port."""

import argparse
import importlib.util

from audiossm.errors import DependencyError, OutputError
from audiossm_apps.options import (
    add_decoder_option,
    add_model_options,
    count,
    positive,
)
from audiossm_apps.serving import make_service

__all__ = ["add_command", "run"]

NEEDED = ("msgpack", "starlette", "uvicorn", "websockets", "multipart")

DESCRIPTION = """\
Serve live transcription and speech over websockets and HTTP, in this process, until Ctrl-C or
SIGTERM. A stream that is transcribed survives dropped connections and the server's death: its
snapshots are kept in --store, where another server, or this one after a restart, goes on from
them."""
EPILOG = """\
routes:
  /v1/stream                 websocket, the native protocol (audiossm stream FILE --server URL)
  /                          a page for browsers: microphone and recordings to text
  /                          websocket, as vosk-server's
  /v1/audio/transcriptions   POST, as OpenAI's
  /v1/realtime               websocket, as OpenAI's, for transcription
  /v1/audio/speech           POST, as OpenAI's: text to speech, sent while it is made
  /v1/audio/voices           GET, the voices
  /v1/speak                  websocket, the native protocol for speech
  /v1/listen                 websocket and POST, as Deepgram's
  /sherpa                    websocket, as sherpa-onnx's online server
  /api/asr-streaming         websocket, as Kyutai's moshi-server
  /healthz, /readyz, /metrics

Without --keys everybody who reaches the port may use it; by default only this machine does. Logs
are lines of JSON on standard error, without audio and text."""


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``serve`` to the command line."""
    parser = commands.add_parser(
        "serve",
        help="live transcription and speech over websockets and HTTP",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument(
        "--port", type=port, default=8765, help="0 takes a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--store",
        metavar="DIR|URL",
        help="where snapshots are kept: a folder, or redis://host:port/number, which servers of "
        "several machines may share (default: audiossm/streams in the user's cache)",
    )
    parser.add_argument(
        "--store-key",
        metavar="FILE",
        help="32 bytes that sign snapshots (default: made once, and kept in the store)",
    )
    parser.add_argument(
        "--keep-s",
        type=positive,
        default=3600.0,
        metavar="S",
        help="how long a stream without a client is kept, in seconds (default: %(default)g)",
    )
    parser.add_argument(
        "--capacity",
        type=count,
        metavar="N",
        help="streams at once (default: measured at the start; on a card 512)",
    )
    parser.add_argument(
        "--workers",
        type=count,
        metavar="N",
        help="threads that compute (default: one a core; on a card up to 64, which wait for it)",
    )
    parser.add_argument(
        "--keys",
        metavar="FILE",
        help="API keys: one a line, perhaps with a tab and how many streams it may have",
    )
    parser.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="URL",
        help="a web page that may connect, beside this server's own; * is all (default: none)",
    )
    parser.add_argument(
        "--max-hours",
        type=positive,
        default=12.0,
        metavar="H",
        help="audio of one stream at most (default: %(default)g)",
    )
    parser.add_argument("--certificate", metavar="FILE", help="PEM; turns TLS on (default: none)")
    parser.add_argument("--private-key", metavar="FILE", help="of the certificate, PEM")
    parser.add_argument(
        "--raw", action="store_true", help="plain words, without capitals, punctuation and digits"
    )
    parser.add_argument(
        "--speaker",
        metavar="NAME|DIR",
        help="the generator that speaks, or its folder; 'none' is none (default: the shipped one, "
        "if there is one)",
    )
    parser.add_argument(
        "--speech-capacity",
        type=count,
        metavar="N",
        help="texts that are said at once (default: measured at the start; on a card 32)",
    )
    cluster = parser.add_argument_group("more than one machine, by Ray")
    cluster.add_argument(
        "--replicas",
        type=count,
        metavar="N",
        help="serve by so many processes of a Ray cluster, behind one port on each of its "
        "machines; needs the extra 'ray', and a --store that all of them reach (default: this "
        "process alone)",
    )
    cluster.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="of the cluster (default: what RAY_ADDRESS says, or a new one on this machine)",
    )
    cluster.add_argument(
        "--replica-cpus",
        type=positive,
        default=1.0,
        metavar="N",
        help="cores that Ray keeps for each of them (default: %(default)g)",
    )
    add_decoder_option(parser)
    add_model_options(parser, lookahead=False)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            raise DependencyError(
                f"serving needs the package {name}: pip install 'audiossm[serve]'"
            )
    if (args.certificate is None) != (args.private_key is None):
        args.parser.error("--certificate and --private-key go together")
    if args.ray_address and not args.replicas:
        args.parser.error("--ray-address needs --replicas")
    if args.replicas:
        if args.certificate:
            args.parser.error("--certificate isn't for --replicas: a proxy in front has it")
        if args.store is None:
            args.parser.error("--replicas need a --store that all of them reach, such as a Redis")
        from audiossm_apps.scale import serve_on_ray

        serve_on_ray(args)
        return 0
    service = make_service(args)

    from audiossm_apps.live.log_lines import log_to_stderr
    from audiossm_apps.live.server import make_server

    log_to_stderr()
    server = make_server(
        service,
        host=args.host,
        port=args.port,
        ssl_certfile=args.certificate,
        ssl_keyfile=args.private_key,
    )
    try:
        server.run()
    except SystemExit as exc:  # uvicorn has said why on standard error
        raise OutputError(f"can't serve on {args.host}:{args.port}") from exc
    return 0


def port(text: str) -> int:
    """Read a port's number."""
    if not (text.isdecimal() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)
