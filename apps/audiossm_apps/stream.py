"""``audiossm stream``: a recording to a server, at the pace of speech or faster."""

import argparse
import asyncio
import sys

from audiossm.errors import AudioError
from audiossm.hotwords import read_hotwords
from audiossm_apps.complaint import name_source
from audiossm_apps.options import count, positive

__all__ = ["add_command", "run"]

PIECE_S = 0.1

DESCRIPTION = """\
Stream a recording to a server ('audiossm serve') and write down what it recognises, as it comes.
Lost connections and servers that die are waited for, and cost no word."""


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``stream`` to the command line."""
    parser = commands.add_parser(
        "stream", help="a recording to a server, live", description=DESCRIPTION
    )
    parser.add_argument("file", metavar="FILE", help="audio file, or - for a pipe")
    parser.add_argument(
        "--server",
        metavar="URL",
        default="ws://127.0.0.1:8765",
        help="where it is (default: %(default)s)",
    )
    parser.add_argument("--key", metavar="KEY", help="API key, if the server wants one")
    parser.add_argument(
        "--speed",
        type=positive,
        metavar="X",
        help="times the pace of speech (default: as fast as the server takes it)",
    )
    parser.add_argument(
        "--raw-rate",
        type=count,
        metavar="HZ",
        help="'-' is raw signed 16-bit little-endian mono at this rate (default: it has a header)",
    )
    parser.add_argument(
        "--raw", action="store_true", help="plain words, without capitals, punctuation and digits"
    )
    parser.add_argument(
        "--opus",
        action="store_true",
        help="send Opus at some 32 kbit/s, a tenth of the bytes; words may then differ a little, "
        "and more so after a lost connection (needs the extra 'media', here and there)",
    )
    parser.add_argument("--hotwords", metavar="LIST", help="a file of words to write more readily")
    parser.add_argument(
        "--lookahead-ms",
        type=int,
        choices=[0, 160, 320],
        default=320,
        help="how far the model looks ahead (default: %(default)s)",
    )
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Stream one recording."""
    if args.raw_rate is not None and args.file != "-":
        args.parser.error("--raw-rate is about standard input: give - as the file")
    try:
        return asyncio.run(_stream(args))
    except AudioError as exc:
        raise AudioError(name_source(args.file, str(exc))) from exc


async def _stream(args: argparse.Namespace) -> int:
    from audiossm.audio import mix, open_audio
    from audiossm.audio.reader import AudioReader
    from audiossm.protocol.native import Word, Written
    from audiossm_apps.client import AsyncStream, connect

    hotwords = () if args.hotwords is None else read_hotwords(args.hotwords)
    with open_audio(args.file, raw_rate=args.raw_rate) as reader:

        async def send(stream: AsyncStream, reader: AudioReader) -> None:
            loop = asyncio.get_running_loop()
            started, num_samples = loop.time(), 0
            size = max(1, round(reader.sample_rate * PIECE_S))
            damage: AudioError | None = None
            try:
                while (audio := await asyncio.to_thread(reader.read, size)).shape[-1]:
                    await stream.send(mix(audio))
                    num_samples += audio.shape[-1]
                    if args.speed:
                        due = started + num_samples / reader.sample_rate / args.speed
                        await asyncio.sleep(max(0.0, due - loop.time()))
            except AudioError as exc:
                damage = exc  # it ends the recording; what came before counts
            await stream.finish()
            if damage is not None:
                raise damage

        async with connect(
            args.server,
            key=args.key,
            sample_rate=reader.sample_rate,
            encoding="opus" if args.opus else "f32",
            lookahead_ms=args.lookahead_ms,
            hotwords=tuple((word.phrase, word.weight) for word in hotwords),
            partials=False,
        ) as stream:
            sending = asyncio.create_task(send(stream, reader))
            words, written = [], False
            try:
                async for reply in stream:
                    # a server without a writer tells plain words alone: they are shown at the end
                    if isinstance(reply, Written) and not args.raw:
                        _show(reply.text, not written)
                        written = True
                    elif isinstance(reply, Word):
                        words.append(reply.word)
                        if args.raw:
                            _show(reply.word, len(words) == 1)
                if not written and not args.raw:
                    _show(" ".join(words), True)
                print(flush=True)
                await sending
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
                if stream.reconnects:
                    print(f"audiossm: connected again: {stream.reconnects}", file=sys.stderr)
    return 0


def _show(text: str, first: bool) -> None:
    print(text if first else f" {text}", end="", flush=True)
