"""Average the weights of several models of one run: often a little better than each of them.

python recipes/transcribe/average.py MODEL MODEL [MODEL ...] --out DIR
python recipes/transcribe/average.py MODEL MODEL [MODEL ...] --out DIR --choose MANIFEST.jsonl

With --choose only those are averaged that help on a manifest, which shouldn't be the one that the
result is reported on.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audiossm.checkpoint import ModelFolder, read_weights, save_model
from audiossm.manifest import read_manifest
from audiossm.models import LoadedRecogniser, choose_device
from audiossm.train.corpus import Corpus
from audiossm.train.soup import Judge, Weights, average, choose_soup
from audiossm_apps.recipe import run_recipe


def main() -> None:
    """Read, choose if asked, average in float32, write as float16."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="names or folders")
    parser.add_argument("--out", type=Path, required=True, help="the new model's folder")
    parser.add_argument("--choose", type=Path, metavar="MANIFEST", help="average what helps on it")
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N (auto)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    folders = [ModelFolder.open(name) for name in args.models]
    tables = [{k: v for k, v in f.config.items() if isinstance(v, dict)} for f in folders]
    if any(table != tables[0] for table in tables):
        parser.error(
            "the tables of their config.toml differ: only one run's models can be averaged"
        )
    weights = {str(f.path): read_weights(f) for f in folders}
    names = list(weights)
    if args.choose:
        names = choose(folders[0], weights, args.choose, args.device, args.workers)
    mean = average([weights[name] for name in names])
    save_model(args.out, folders[0].kind, folders[0].config["description"], tables[0], mean)


def choose(
    first: ModelFolder, weights: dict[str, Any], manifest: Path, device: str, workers: int
) -> list[str]:
    """Return which models to average, by the words that averages get wrong."""
    place = str(choose_device(device))
    network = LoadedRecogniser.load(first.path).network.to(place)
    # one that stands on a codec's encoder is saved without it
    part = network.above_encoder() if "codec" in first.config else network
    corpus = Corpus.load(read_manifest(manifest), (), (), workers).to(place)

    def wrong(candidate: Weights) -> float:
        part.load_state_dict(candidate)
        return judge.word_error_rate(network)

    def tell(names: Sequence[str], rate: float) -> None:
        print(f"{100 * rate:.2f} % of the words wrong: {' + '.join(names)}", flush=True)

    with Judge(corpus, workers) as judge:
        chosen = choose_soup(weights, wrong, tell)
    print(f"averaged: {' + '.join(chosen)}")
    return chosen


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
