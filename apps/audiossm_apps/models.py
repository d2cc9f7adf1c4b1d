"""``audiossm models`` and ``audiossm info``: what this installation has."""

import argparse
import platform

from audiossm import __version__
from audiossm.errors import ModelError

__all__ = ["add_commands", "run_info", "run_models"]


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``models`` and ``info`` to the command line."""
    models = commands.add_parser(
        "models", help="list the models", description="List the models of this installation."
    )
    models.set_defaults(run=run_models)
    info = commands.add_parser(
        "info",
        help="versions, devices and numerics, for a bug report",
        description="Print versions, devices, threads, models and the numerics in force.",
    )
    info.set_defaults(run=run_info)


def run_models(args: argparse.Namespace) -> int:
    """Print a table of the models."""
    from rich.table import Table

    from audiossm.checkpoint import ModelFolder, model_names
    from audiossm.codec import LoadedCodec
    from audiossm.models import LoadedGenerator, LoadedSounder, LoadedWriter
    from audiossm.streaming import Transcriber
    from audiossm_apps.tables import print_table

    names = model_names()
    if not names:
        raise ModelError("this installation has no models: install it again from a full copy")
    table = Table()
    for heading in ("name", "kind", "size", "hash", "description"):
        table.add_column(heading, overflow="fold")
    for name in names:
        folder = ModelFolder.open(name)
        size = f"{folder.weights.stat().st_size / 1e6:.1f} MB"
        # loading also proves that the weights are whole
        if folder.kind == "codec":
            digest = LoadedCodec.load(name).hash
        elif folder.kind == "writer":
            digest = LoadedWriter.load(name).hash
        elif folder.kind == "generator":
            digest = LoadedGenerator.load(name).hash
        elif folder.kind == "sounder":
            digest = LoadedSounder.load(name).hash
        else:
            digest = Transcriber.load(name).hash
        table.add_row(name, folder.kind, size, digest, folder.description)
    print_table(table)
    return 0


def run_info(args: argparse.Namespace) -> int:
    """Print ``name: value`` lines."""
    import torch

    from audiossm.checkpoint import model_names

    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    rows = {
        "audiossm": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "torch": str(torch.__version__),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cuda": ", ".join(cuda) or "no device",
        "threads": str(torch.get_num_threads()),
        "models": ", ".join(model_names()) or "none",
        "numerics": (
            f"{str(torch.get_default_dtype()).removeprefix('torch.')}, "
            f"matmul precision {torch.get_float32_matmul_precision()}, "
            f"TF32 convolutions {'on' if torch.backends.cudnn.allow_tf32 else 'off'} (CUDA only)"
        ),
    }
    for name, value in rows.items():
        print(f"{name + ':':<10} {value}")
    return 0
