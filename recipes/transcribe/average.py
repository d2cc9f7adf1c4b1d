"""Average the weights of several models of one run: often a little better than each of them.

python recipes/transcribe/average.py MODEL MODEL [MODEL ...] --out DIR
python recipes/transcribe/average.py MODEL [MODEL ...] --out DIR --choose MANIFEST --base MODEL

With --choose only those are averaged that help on a manifest, which shouldn't be the one that the
result is reported on; with --base, too, the average is taken only so far from what the models were
tuned from as helps there.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from audiossm.checkpoint import ModelFolder, read_weights, save_model
from audiossm.manifest import read_manifest
from audiossm.models import LoadedRecogniser, choose_device
from audiossm.train.corpus import Corpus
from audiossm.train.soup import Weights, average, blend
from audiossm_apps.recipe import run_recipe


def main() -> None:
    """Read, choose if asked, average in float32, write as float16."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="names or folders")
    parser.add_argument("--out", type=Path, required=True, help="the new model's folder")
    parser.add_argument("--choose", type=Path, metavar="MANIFEST", help="average what helps on it")
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N (auto)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--base", metavar="MODEL", help="what they were tuned from")
    args = parser.parse_args()
    if args.base and not args.choose:
        parser.error("--base needs --choose: recordings on which to see how far to go from it")
    folders = [ModelFolder.open(name) for name in args.models]
    base = [ModelFolder.open(args.base)] if args.base else []
    if any(read_sizes(each) != read_sizes(folders[0]) for each in [*folders, *base]):
        parser.error(
            "the tables of their config.toml differ: only one run's models can be averaged"
        )
    weights = {str(folder.path): read_weights(folder) for folder in folders}
    if args.choose:
        first = read_weights(base[0]) if base else None
        mean = choose(folders[0], weights, first, args.choose, args.device, args.workers)
    else:
        mean = average(list(weights.values()))
    tables = {k: v for k, v in folders[0].config.items() if isinstance(v, dict)}
    save_model(args.out, folders[0].kind, folders[0].config["description"], tables, mean)


def read_sizes(folder: ModelFolder) -> dict[str, Any]:
    """Return the tables of a model's config, without dropout, which is of training alone."""
    tables = {k: dict(v) for k, v in folder.config.items() if isinstance(v, dict)}
    tables.get("recogniser", {}).pop("dropout", None)
    return tables


def choose(
    first: ModelFolder,
    weights: dict[str, Weights],
    base: Weights | None,
    manifest: Path,
    device: str,
    workers: int,
) -> Weights:
    """Return the best average, judged by the words that it gets wrong."""
    place = str(choose_device(device))
    network = LoadedRecogniser.load(first.path).network.to(place)
    # one that stands on a codec's encoder is saved without it
    part = network.above_encoder() if "codec" in first.config else network
    corpus = Corpus.load(read_manifest(manifest), (), (), workers).to(place)
    return blend(weights, base, network, part, corpus, workers)


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
