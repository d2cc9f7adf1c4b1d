"""Average the weights of several models of one run: often a little better than each of them.

python recipes/transcribe/average.py MODEL MODEL [MODEL ...] --out DIR
"""

import argparse
from pathlib import Path

import torch

from audiossm.checkpoint import ModelFolder, read_weights, save_model


def main() -> None:
    """Read, average in float32, write as float16."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="names or folders")
    parser.add_argument("--out", type=Path, required=True, help="the new model's folder")
    args = parser.parse_args()
    folders = [ModelFolder.open(name) for name in args.models]
    tables = [{k: v for k, v in f.config.items() if isinstance(v, dict)} for f in folders]
    if any(table != tables[0] for table in tables):
        parser.error(
            "the tables of their config.toml differ: only one run's models can be averaged"
        )
    weights = [read_weights(folder) for folder in folders]
    mean = {name: torch.stack([each[name] for each in weights]).mean(0) for name in weights[0]}
    save_model(args.out, folders[0].kind, folders[0].config["description"], tables[0], mean)


if __name__ == "__main__":
    main()
