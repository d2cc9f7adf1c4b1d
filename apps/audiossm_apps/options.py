"""Options that several commands share, and the model that they choose."""

import argparse
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audiossm.streaming import AudioCodec, Transcriber

__all__ = [
    "add_decoder_option",
    "add_model_options",
    "count",
    "load_codec",
    "load_transcriber",
    "positive",
    "seconds",
    "seconds_list",
    "share",
    "thread_count",
]

MAX_THREADS = 1024  # far more, and starting them takes longer than anybody waits


def add_model_options(parser: argparse.ArgumentParser, *, lookahead: bool = True) -> None:
    """Add what chooses and runs a model; ``--lookahead-ms`` is a recogniser's."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="NAME|DIR",
        help="a model that 'audiossm models' lists, or a model's folder (default: the shipped one)",
    )
    group.add_argument(
        "--device",
        choices=["cpu", "cuda", "auto"],
        default="cpu",
        help="auto takes a CUDA device where there is one (default: %(default)s)",
    )
    group.add_argument(
        "--backend",
        choices=["auto", "torch", "numba", "onnx", "onnx-int8"],
        default="auto",
        help="onnx runs a step as a graph, onnx-int8 in 8 bits, numba as compiled loops; "
        "auto takes the fastest one that is exact (default: %(default)s)",
    )
    if lookahead:
        group.add_argument(
            "--lookahead-ms",
            type=int,
            choices=[0, 160, 320],
            default=320,
            help="how far the model looks ahead: more is better and later (default: %(default)s)",
        )
    group.add_argument(
        "--threads",
        type=thread_count,
        metavar="N",
        help="CPU threads (default: as many as torch chooses)",
    )


def add_decoder_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--decoder``."""
    parser.add_argument(
        "--decoder",
        choices=["phones", "beam", "greedy"],
        help="beam: words of a lexicon, weighed by a language model; phones: the same, by how they "
        "are said; greedy: each frame's best letter (default: beam if the model spells in letters, "
        "phones if it hears them at its top)",
    )


def load_transcriber(args: argparse.Namespace, *, readable: bool = False) -> "Transcriber":
    """Load the model that the options name; ``readable`` text needs a writer that is shipped.

    Raises:
        DeviceError: ``--device cuda`` on a machine without a CUDA device.
        ModelError: there is no such model, or its files are damaged.
    """
    with _keep_what_is_loaded():
        import torch

        from audiossm.streaming import Transcriber

        if args.threads is not None:
            torch.set_num_threads(args.threads)
        return Transcriber.load(
            args.model,
            device=args.device,
            decoder=args.decoder,
            backend=args.backend,
            readable=readable,
        )


def load_codec(args: argparse.Namespace, name: str | None) -> "AudioCodec":
    """Load a codec by name or folder, the shipped one without, as the other options say.

    Raises:
        DeviceError: ``--device cuda`` on a machine without a CUDA device.
        ModelError: there is no such model, or its files are damaged.
    """
    with _keep_what_is_loaded():
        import torch

        from audiossm.models import choose_device
        from audiossm.streaming import AudioCodec

        if args.threads is not None:
            torch.set_num_threads(args.threads)
        return AudioCodec.load(name, device=choose_device(args.device), backend=args.backend)


@contextmanager
def _keep_what_is_loaded() -> Iterator[None]:
    """Look for no garbage in modules and models, now or ever again: they stay to the end.

    That takes a second of a warm start and exit of four.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def count(text: str) -> int:
    """Read a whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def thread_count(text: str) -> int:
    """Read a whole number of at least 1 that a machine can have threads."""
    value = count(text)
    if value > MAX_THREADS:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {MAX_THREADS} threads")
    return value


def positive(text: str) -> float:
    """Read a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def share(text: str) -> float:
    """Read a share of a whole, from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return value


def seconds(text: str) -> float:
    """Read a number of seconds, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds such as 1.5")
    return value


def seconds_list(text: str) -> list[float]:
    """Read seconds separated by commas: ``1.5,4``."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = [-1.0]
    if not all(0 <= value < float("inf") for value in values):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of seconds such as 1.5,4")
    return values
