"""``audiossm convert``: the Mamba-3 authors' checkpoints to model folders and back."""

import argparse
from pathlib import Path

from audiossm.errors import ConfigError, ModelError, OutputError
from audiossm_apps.complaint import complain

__all__ = ["add_command", "run"]

DESCRIPTION = """\
Turn a checkpoint of the Mamba-3 authors' repository (a folder with config.json and
pytorch_model.bin or model.safetensors) into a model folder of audiossm, or such a model folder into
theirs. Which of the two, SOURCE says. Every tensor keeps its name, its dtype and its values, so
that the way there and back changes nothing. Nothing of a file is executed."""
EPILOG = """\
in Python:
  audiossm.models.load_language_model(FOLDER) gives the network, a stream like every other; its
  blocks() are layers of the same class as a recogniser's and a generator's"""


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``convert`` to the command line."""
    parser = commands.add_parser(
        "convert",
        help="the Mamba-3 authors' checkpoints to model folders and back",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a checkpoint's folder")
    parser.add_argument(
        "target", type=Path, metavar="TARGET", help="the new folder, which isn't there yet"
    )
    parser.add_argument(
        "--a-activation",
        choices=["heavy_tail", "softplus"],
        help="what made the decay positive when the checkpoint was trained: their code has had "
        "heavy_tail since June 2026 and had softplus before, and a checkpoint doesn't say "
        "(default: heavy_tail)",
    )
    parser.add_argument(
        "--safetensors",
        action="store_true",
        help="on the way back, write model.safetensors (default: pytorch_model.bin, which is "
        "what their code reads)",
    )
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Convert, and print what it was."""
    parser: argparse.ArgumentParser = args.parser
    back = (args.source / "config.toml").is_file()
    if not back and not (args.source / "config.json").is_file():
        raise ModelError(
            f"{args.source}: has no config.json, as the authors' checkpoints do, and no "
            "config.toml, as model folders do"
        )
    if back and args.a_activation:
        parser.error("--a-activation is about the way from the authors' checkpoint")
    if args.safetensors and not back:
        parser.error("--safetensors is about the way back: model folders hold no other weights")
    if args.target.exists():
        raise OutputError(f"{args.target}: is there already: name a new folder")

    from dataclasses import replace

    from audiossm.models import interchange

    if back:
        config, tensors = interchange.read_language_model(args.source)
        if config.ssm_cfg.a_activation != "heavy_tail":
            complain("their config can't say a_activation = softplus: remember it", kind="")
        interchange.write_authors_folder(args.target, config, tensors, safe=args.safetensors)
    else:
        try:
            config, tensors = interchange.read_authors_folder(args.source)
        except ConfigError as exc:
            raise ModelError(str(exc)) from exc
        if args.a_activation:
            ssm = replace(config.ssm_cfg, a_activation=args.a_activation)
            config = replace(config, ssm_cfg=ssm)
        description = f"a Mamba-3 language model, converted from {args.source.name}"
        interchange.save_language_model(args.target, description, config, tensors)
    count = sum(tensor.numel() for tensor in tensors.values())
    kind = "MIMO" if config.ssm_cfg.is_mimo else "SISO"
    print(
        f"{args.target}: Mamba-3 {kind}, {config.n_layer} layers of {config.d_model} channels, "
        f"{count / 1e6:.1f} M parameters"
    )
    return 0
