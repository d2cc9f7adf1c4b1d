"""``audiossm export``: a model's steps as ONNX graphs."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiossm.errors import AudioError, ConfigError, ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from audiossm.graphs import Step

__all__ = ["add_command", "run"]

DESCRIPTION = """\
Export what a model does in one step of a live stream as ONNX graphs, which run several times as
fast on a CPU. Shipped models have theirs already: this is for models of your own, and needs the
packages of the extra "export". A graph holds no weights and serves all models of the same sizes.
A model whose weights are bytes, as shipped ones are, also gets a graph of one frame that leaves
them so: as exact, faster, and for this model alone."""


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``export`` to the command line."""
    parser = commands.add_parser(
        "export", help="a model's steps as ONNX graphs", description=DESCRIPTION
    )
    parser.add_argument("model", metavar="MODEL", help="a model's name or folder")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for the graphs (default: where sessions look for them, "
        "~/.cache/audiossm/graphs; DIR/graphs of a model's folder is another such place)",
    )
    parser.add_argument(
        "--frames",
        type=frame_counts,
        default=[1, 4, 64],
        metavar="N,N,...",
        help="frames that a graph takes at once, one graph for each (default: 1,4,64)",
    )
    parser.add_argument(
        "--int8",
        nargs="+",
        type=Path,
        default=[],
        metavar="AUDIO",
        help="also make graphs of 8 bits, for --backend onnx-int8; the sizes of activations are "
        "measured on these recordings, a minute of speech or more",
    )
    parser.set_defaults(run=run)


def frame_counts(text: str) -> list[int]:
    """Read whole numbers from 1 to 1000 separated by commas."""
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = [0]
    if not all(1 <= value <= 1000 for value in values) or len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of different whole numbers from 1 to 1000 such as 1,4"
        )
    return values


def run(args: argparse.Namespace) -> int:
    """Write a graph for each step, frame count and precision, and print their paths."""
    from audiossm.checkpoint import ModelFolder
    from audiossm.codec import LoadedCodec
    from audiossm.graphs import cache_folder
    from audiossm.graphs.exact import split_graph
    from audiossm.graphs.exporter import export_graph
    from audiossm.graphs.int8 import quantise_graph
    from audiossm.models import LoadedGenerator, LoadedRecogniser, LoadedWriter

    kind, frames = ModelFolder.open(args.model).kind, args.frames
    todo: list[tuple[Step[Any], list[Tensor]]]
    if kind == "codec":
        codec = LoadedCodec.load(args.model, backend="torch")
        signals = _read(args.int8, codec.config.sample_rate, codec.config.frame_size)
        latents = [codec.network.quantiser.decode(codec.network.encode(x)) for x in signals]
        todo = [(codec.encoder_ways.step, signals), (codec.decoder_ways.step, latents)]
    elif kind == "recogniser":
        recogniser = LoadedRecogniser.load(args.model, backend="torch")
        rate, step = recogniser.sample_rate, recogniser.ways.step
        todo = [(step, _read(args.int8, rate, step.unit))]
    elif kind in ("writer", "generator"):
        if args.int8:
            raise ConfigError(f"{args.model}: a {kind} has no graphs of 8 bits")
        if kind == "writer":
            todo = [(LoadedWriter.load(args.model).ways.step, [])]
        else:
            todo = [(LoadedGenerator.load(args.model, backend="torch").ways.step, [])]
        frames = [1]  # each depends on the one before
    else:
        raise ModelError(f"{args.model}: a {kind} model has no step to export")
    for step, inputs in todo:
        folder = args.out or cache_folder(step)
        folder.mkdir(parents=True, exist_ok=True)
        for num_frames in frames:
            path = folder / step.file_name(num_frames)
            print(f"exporting {path.name}, which takes about a minute", file=sys.stderr)
            data = export_graph(step, num_frames)
            path.write_bytes(data)
            print(path)
            # more frames share what it costs to bring the weights in
            if num_frames == 1 and (split := split_graph(data, step, num_frames)) is not None:
                path = folder / step.file_name(num_frames, "bytes")
                path.write_bytes(split)
                print(path)
            if inputs:
                path = folder / step.file_name(num_frames, "int8")
                path.write_bytes(quantise_graph(data, step, num_frames, inputs))
                print(path)
    return 0


def _read(paths: list[Path], sample_rate: int, multiple: int) -> "list[Tensor]":
    """Return recordings (1, samples), ``multiple`` by ``multiple``."""
    import torch

    from audiossm.evaluate.recording import read_recording
    from audiossm.manifest import Utterance

    signals = []
    for path in paths:
        samples = read_recording(Utterance(key=path.name, text="", path=path)).at_rate(sample_rate)
        length = len(samples) // multiple * multiple
        if length:
            signals.append(torch.from_numpy(samples[:length]).unsqueeze(0))
    if paths and not signals:
        raise AudioError(f"{paths[0]}: no audio to measure activations on")
    return signals
