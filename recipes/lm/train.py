"""Train a small Mamba-3 language model over pieces of words, to be compared with the n-grams.

    python recipes/lm/train.py FILE ... --out DIR --minutes 8 --compile
    python recipes/lm/train.py FILE ... --out DIR --smoke         # a minute on a CPU

A FILE is a text with a sentence a line (.xz, .bz2 or plain); each counts once, and one of 400 is
held out, chosen by its letters. Words are pieces, as 65 533 classes of words would make four fifths
of the network, and letters would make rows five times as long: the commonest words are one piece,
the others a few.
"""

import argparse
import bz2
import json
import lzma
import math
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiossm.config import change_value, load_toml
from audiossm.models import choose_device
from audiossm.models.language_model import LanguageModel, LanguageModelConfig
from audiossm.train.pieces import BORDER, Pieces
from audiossm.train.run import Run
from audiossm.train.settings import check_settings
from audiossm.train.text_model import TextModel, piece_loss
from audiossm_apps.recipe import run_recipe

HERE = Path(__file__).parent
SMOKE_NETWORK = {"d_model": 32, "d_intermediate": 64, "n_layer": 2}
SMOKE_SSM = {"d_state": 16, "headdim": 16}
SMOKE_DATA = {"num_pieces": 128, "min_count": 1, "held_out": 20}
SMOKE_TRAIN = {"steps": 60, "warmup": 5, "lr": 2e-2, "rows": 8, "row_pieces": 48, "ema": 0.9}
SMOKE_TRAIN |= {"log_every": 10}


def main() -> None:
    """Read, learn pieces, train, score what was held out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pieces", type=Path, help="JSON: learnt here, unless it is there already")
    parser.add_argument("--config", type=Path, default=HERE / "config.toml")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=1e9, help="of all; the rate falls by then")
    parser.add_argument("--compile", action="store_true", help="CUDA: compile the layers")
    parser.add_argument("--smoke", action="store_true", help="a tiny network")
    args = parser.parse_args()
    args.device = str(choose_device(args.device))
    began = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    table = load_toml(args.config)
    for change in args.set:
        change_value(table, change)
    check_settings(table, HERE / "config.toml", ("data", "train"))
    sizes, data, hp = table["network"], table["data"], table["train"]
    if args.smoke:
        sizes = sizes | SMOKE_NETWORK | {"ssm_cfg": sizes["ssm_cfg"] | SMOKE_SSM}
        data, hp = data | SMOKE_DATA, hp | SMOKE_TRAIN
    torch.set_float32_matmul_precision("high")
    pieces, stream, held_out = read_text(args.files, data, args.pieces)
    (args.out / "held-out.txt").write_text("".join(f"{line}\n" for line in held_out))
    print(f"{len(stream)} pieces, read in {time.monotonic() - began:.0f} s", flush=True)

    torch.manual_seed(hp["seed"])
    config = LanguageModelConfig.from_json(sizes | {"vocab_size": len(pieces)})
    network = LanguageModel(config).to(args.device)
    settings = {name: hp[name] for name in ("lr", "weight_decay", "ema")}
    run = Run(network, network, betas=(0.9, 0.98), **settings)
    if args.compile:
        for layer in network.blocks():
            layer.step = torch.compile(layer.step, dynamic=False)  # type: ignore[method-assign]
    print(f"{sum(p.numel() for p in network.parameters())} parameters", flush=True)
    total_s = 60 * args.minutes
    source = read_rows(torch.from_numpy(stream.astype(np.int32)).to(args.device), hp)
    while run.step < hp["steps"] and time.monotonic() - began < total_s:
        # the rate falls with the steps or the time, whichever ends first
        progress = max(run.step / hp["steps"], (time.monotonic() - began) / total_s)
        cosine = 0.5 + 0.5 * math.cos(math.pi * min(progress, 1.0))
        lr = hp["lr"] * min((run.step + 1) / hp["warmup"], cosine + 0.01)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=run.device.type == "cuda"):
            loss = piece_loss(network, next(source))
        norm = run.advance(loss, lr, hp["grad_clip"])
        if run.step % hp["log_every"] == 0:
            row = {"step": run.step, "minutes": round((time.monotonic() - began) / 60, 3)}
            row |= {"loss": round(loss.item(), 4), "norm": round(norm.item(), 3)}
            print(json.dumps(row), flush=True)
            with (args.out / "log.jsonl").open("a") as log:
                print(json.dumps(row), file=log)

    model = TextModel(pieces, run.ema)
    model.save(args.out / "model")
    scores = model.score(held_out[:4000])
    words = sum(map(len, scores))
    nats = -sum(map(sum, scores)) / max(words, 1)
    row = {"step": run.step, "held_out_words": words, "perplexity": round(math.exp(nats), 2)}
    print(json.dumps(row), flush=True)
    with (args.out / "log.jsonl").open("a") as log:
        print(json.dumps(row), file=log)


def read_text(
    files: Sequence[Path], data: dict[str, Any], known: Path | None = None
) -> tuple[Pieces, NDArray[np.uint16], list[str]]:
    """Return pieces, the text in them, and the lines that were held out of both."""
    lines: list[str] = []
    held_out: list[str] = []
    for line in dict.fromkeys(line for path in files for line in read_lines(path)):
        (lines if zlib.crc32(line.encode()) % data["held_out"] else held_out).append(line)
    if known is not None and known.exists():
        pieces = Pieces(json.loads(known.read_text(encoding="utf-8")))
    else:
        counts = Counter(word for line in lines for word in line.split())
        often = {word: n for word, n in counts.items() if n >= data["min_count"]}
        pieces = Pieces.learn(often, data["num_pieces"])
        if known is not None:
            known.write_text(json.dumps(pieces.symbols), encoding="utf-8")
    return pieces, pieces.encode(lines), held_out


def read_lines(path: Path) -> Iterator[str]:
    """Yield a file's sentences."""
    begin = {".xz": lzma.open, ".bz2": bz2.open}.get(path.suffix, open)
    with begin(path, "rt", encoding="utf-8") as file:
        yield from (str(line).strip() for line in file)


def read_rows(stream: Tensor, hp: dict[str, Any]) -> Iterator[Tensor]:
    """Yield (rows, row_pieces + 1) ids for ever; a row begins with a sentence.

    Each pass begins its rows elsewhere, so that no piece is at a row's end in all of them.
    """
    length, device = hp["row_pieces"] + 1, stream.device
    starts = (stream == BORDER).nonzero()[:, 0]
    starts = starts[starts + length <= len(stream)]
    generator = torch.Generator(device).manual_seed(hp["seed"])
    frame = torch.arange(length, device=device)
    while True:
        first = torch.randint(hp["row_pieces"], (1,), generator=generator, device=device)
        marks = torch.arange(0, len(stream) - length, hp["row_pieces"], device=device) + first
        found = torch.searchsorted(starts, marks).clamp(max=len(starts) - 1)
        begins = starts[found]
        begins = begins[torch.randperm(len(begins), generator=generator, device=device)]
        for rows in begins.split(hp["rows"]):
            if len(rows) == hp["rows"]:
                yield stream[rows.unsqueeze(1) + frame].long()


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
