"""``audiossm codec``: audio to a file of codes and back."""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from audiossm.errors import AudioError, ModelError
from audiossm_apps.complaint import complain, name_source
from audiossm_apps.options import add_model_options, count, load_codec, positive, seconds
from audiossm_apps.outputs import ByteOutput, open_bytes
from audiossm_apps.progress import show_progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from audiossm.audio import AudioReader
    from audiossm.codec import CodeReader
    from audiossm.streaming import AudioCodec

__all__ = ["add_command", "run_decode", "run_encode", "run_info"]

ENCODE = """\
Encode audio (wav, flac, ogg, opus or mp3, any sample rate) to a file of codes, by custom called
.ssma. Channels are coded each for itself. '-' is standard input or output; blocks of a second go
out as they are whole."""
DECODE = """\
Decode a file of codes to 16-bit WAV at the codec's sample rate, as long as the audio that was
encoded. '-' is standard input or output. What is damaged is concealed, what is missing left out: a
line says where, and the exit code is 1. If codes say that they were generated, so does the WAV."""
INFO = """\
Tell which codec made a file of codes, how long it is, and whether it is whole. A damaged file
makes the exit code 1."""


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``codec`` to the command line."""
    parser = commands.add_parser(
        "codec", help="audio to codes and back", description="Audio to a file of codes and back."
    )
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", required=True)
    encode = tasks.add_parser("encode", help="audio to codes", description=ENCODE)
    encode.add_argument("input", metavar="IN", help="audio file, or - for a pipe")
    encode.add_argument("output", metavar="OUT", help="file of codes, or - for a pipe")
    encode.add_argument(
        "--groups",
        type=count,
        metavar="N",
        help="groups of codes a frame: fewer are smaller and coarser (default: all)",
    )
    encode.add_argument(
        "--raw-rate",
        type=count,
        metavar="HZ",
        help="'-' is raw signed 16-bit little-endian mono at this rate (default: it has a header)",
    )
    encode.set_defaults(run=run_encode, parser=encode)
    decode = tasks.add_parser("decode", help="codes to audio", description=DECODE)
    decode.add_argument("input", metavar="IN", help="file of codes, or - for a pipe")
    decode.add_argument("output", metavar="OUT.wav", help="WAV file, or - for a pipe")
    decode.add_argument(
        "--start", type=seconds, default=0.0, metavar="S", help="begin there (default: %(default)s)"
    )
    decode.add_argument(
        "--duration", type=positive, metavar="S", help="seconds to decode (default: to the end)"
    )
    decode.set_defaults(run=run_decode, parser=decode)
    for task in (encode, decode):
        add_model_options(task, lookahead=False)
    info = tasks.add_parser("info", help="what a file of codes holds", description=INFO)
    info.add_argument("input", metavar="IN", help="file of codes, or - for a pipe")
    info.set_defaults(run=run_info, parser=info)


def run_encode(args: argparse.Namespace) -> int:
    """Encode one recording."""
    _check_usage(args)
    if args.raw_rate is not None and args.input != "-":
        args.parser.error("--raw-rate is about standard input: give - as IN")
    with open_bytes(args.output) as stream:
        codec = load_codec(args, args.model)
        try:
            _encode(codec, args, stream)
        except AudioError as exc:
            complain(name_source(args.input, str(exc)))
            return 1
    return 0


def run_decode(args: argparse.Namespace) -> int:
    """Decode one file of codes."""
    _check_usage(args)
    if args.output != "-" and Path(args.output).suffix.lower() != ".wav":
        args.parser.error(f"{args.output}: decoded audio is written as WAV: give a name in .wav")
    from audiossm.codec import open_codes

    with open_bytes(args.output) as stream, open_codes(args.input) as reader:
        codec = load_codec(args, args.model or _find_codec(reader.form.model))
        try:
            _decode(codec, reader, args, stream)
        except (AudioError, ModelError) as exc:
            complain(name_source(args.input, str(exc)))
            return 1
    return 0


def run_info(args: argparse.Namespace) -> int:
    """Print ``name: value`` lines; return 1 if the file is damaged."""
    from audiossm.codec import open_codes

    with open_codes(args.input) as reader:
        form = reader.form
        num_lost = sum(block.codes.shape[2] for block in reader if block.lost)
        length = reader.num_samples
        if length is None:
            length = reader.num_frames * form.frame_size
        rows = {
            "codec": form.model,
            "hash": form.codes_hash,
            "duration": f"{length / form.sample_rate:.2f} s ({length} samples)",
            "rate": f"{form.sample_rate} Hz, frames of {form.frame_size} samples",
            "channels": str(form.channels),
            "groups": f"{form.num_groups} of {form.num_codes} codes",
            "bit rate": f"{form.bits_per_second / 1000:g} kbit/s of codes",
            "frames": f"{reader.num_frames} in blocks of {form.frames_per_block}, {num_lost} lost",
        }
        if reader.comment is not None:
            rows["comment"] = reader.comment
        for name, value in rows.items():
            print(f"{name + ':':<10} {value}")
        if reader.problem is not None:
            complain(reader.problem)
            return 1
    return 0


class StoppableReader:
    """A recording that Ctrl-C ends where it is read, so that nothing else is left half done.

    A second Ctrl-C stops at once.
    """

    def __init__(self, reader: "AudioReader") -> None:
        self.reader, self.sample_rate, self.channels = reader, reader.sample_rate, reader.channels
        self.reading = self.stopped = False

    def __enter__(self) -> Self:
        self.before = signal.signal(signal.SIGINT, self.stop)
        return self

    def __exit__(self, *exc: object) -> None:
        signal.signal(signal.SIGINT, self.before)

    def stop(self, *_: object) -> None:
        """Take a Ctrl-C."""
        if self.reading or self.stopped:
            raise KeyboardInterrupt
        self.stopped = True

    def read(self, max_samples: int, /) -> "NDArray[np.float32]":
        """Do what the reader's ``read`` does."""
        self.reading = True
        try:
            if self.stopped:
                raise KeyboardInterrupt
            return self.reader.read(max_samples)
        finally:
            self.reading = False


def _encode(codec: "AudioCodec", args: argparse.Namespace, stream: ByteOutput) -> None:
    from audiossm.audio import open_audio
    from audiossm.codec import CodeWriter
    from audiossm.streaming import encode_stream
    from audiossm.streaming.code_files import FRAMES_PER_STEP

    form = codec.describe(num_groups=args.groups)  # before a pipe has to give its first bytes
    with open_audio(args.input, raw_rate=args.raw_rate) as reader:
        session = codec.encoder_session(
            sample_rate=reader.sample_rate,
            channels=reader.channels,
            num_groups=form.num_groups,
            frames_per_step=FRAMES_PER_STEP,
        )
        form = codec.describe(channels=reader.channels, num_groups=form.num_groups)
        writer = CodeWriter(stream, form)
        shown = sys.stderr.isatty()
        with show_progress(reader.name, reader.num_samples, shown=shown) as advance:
            try:
                with StoppableReader(reader) as source:
                    for codes in encode_stream(source, session, on_block=advance):
                        writer.write(codes)
            finally:
                # what was encoded before damage or Ctrl-C is a whole file
                if session.finished and session.num_samples:
                    writer.finish(session.num_samples)


def _decode(
    codec: "AudioCodec", reader: "CodeReader", args: argparse.Namespace, stream: ByteOutput
) -> None:
    from audiossm.audio import WavWriter
    from audiossm.streaming import decode_stream

    rate = reader.form.sample_rate
    start = round(args.start * rate)
    length = None if args.duration is None else max(1, round(args.duration * rate))
    expected = None  # a pipe tells its length at its end
    if reader.num_samples is not None:
        left = max(0, reader.num_samples - start)
        expected = left if length is None else min(left, length)
    writer = WavWriter(stream, rate, reader.form.channels, expected, comment=reader.comment)
    shown = sys.stderr.isatty()
    with show_progress(reader.name, expected, shown=shown) as advance:
        try:
            for samples in decode_stream(
                reader, codec, start=start, num_samples=length, on_block=advance
            ):
                writer.write(samples)
        finally:
            writer.finish()


def _find_codec(name: str) -> str | None:
    """Return a file's codec if it is a shipped one: a file may not name a folder of ours."""
    from audiossm.checkpoint import model_names

    return name if name in model_names() else None


def _check_usage(args: argparse.Namespace) -> None:
    parser: argparse.ArgumentParser = args.parser
    if args.output == "-":
        if sys.stdout.isatty():
            parser.error("standard output is a terminal: give a file or a pipe")
    elif args.input != "-" and os.path.realpath(args.output) == os.path.realpath(args.input):
        parser.error(f"{args.output} is the input: it would be overwritten")
