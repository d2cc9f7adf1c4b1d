"""Train the sounder, which tells the phones of words that no lexicon has.

    python recipes/pronounce/train.py --data DIR --out DIR
    python recipes/pronounce/train.py --smoke --out DIR      # a minute on a CPU

DIR holds the file of pronunciations that config.toml names. A run that was stopped goes on from its
last checkpoint with the same command. README.md has the numbers.
"""

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch

from audiossm.config import change_value, from_dict, load_toml
from audiossm.evaluate.pronounce import score_pronunciations
from audiossm.lexicon import Lexicon, read_pronunciations
from audiossm.models import Sounder, SounderConfig, choose_device, save_sounder, sound_out
from audiossm.train.curves import draw_curves
from audiossm.train.pronunciations import WordBatches, fits, hold_out_words, sounding_loss
from audiossm.train.run import Run
from audiossm.train.settings import check_settings
from audiossm.train.text_card import write_text_card
from audiossm_apps.recipe import run_recipe

HERE = Path(__file__).parent
SAVE_MINUTES = 5
SMOKE_SOUNDER = {"d_embedding": 16}
SMOKE_BACKBONE = {
    "d_model": 32,
    "num_layers": 2,
    "d_intermediate": 32,
    "d_state": 16,
    "head_dim": 16,
}
SMOKE_DATA = {"pronunciations": "english.txt.xz", "test": 20, "rare": 20, "dev": 20}
SMOKE_TRAIN = {"steps": 60, "warmup": 5, "batch": 32, "ema": 0.9, "log_every": 10}
SMOKE_WORDS = 2000


def score(network: Sounder, references: Mapping[str, str]) -> dict[str, float]:
    """Return phone error rates and the share of right words, with stress and without."""
    network.eval()
    words = list(references)
    found = dict(zip(words, sound_out(network, words), strict=True))
    scores = score_pronunciations(found, {word: references[word].split() for word in words})
    return {
        f"dev_{name}": round(value, 4)
        for name, value in (
            ("phone_errors", scores.stressed.rate),
            ("phone_errors_without_stress", scores.plain.rate),
            ("right_words", scores.stressed.accuracy),
            ("right_words_without_stress", scores.plain.accuracy),
        )
    }


def write_words(path: Path, words: list[str], phones: Mapping[str, str]) -> None:
    """Write a line for each word: the word, a tab, its phones."""
    path.write_text("".join(f"{word}\t{phones[word]}\n" for word in words), encoding="utf-8")


def main() -> None:
    """Load, hold out, train, export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "assets" / "lexicon")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=HERE / "config.toml")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after, to be resumed")
    parser.add_argument("--smoke", action="store_true", help="a tiny network on a few words")
    args = parser.parse_args()
    args.device = str(choose_device(args.device))
    began = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)

    table = load_toml(args.config)
    for change in args.set:
        change_value(table, change)
    check_settings(table, HERE / "config.toml", ("data", "train"))
    sizes, data, hp = table["sounder"], table["data"], table["train"]
    if args.smoke:
        sizes = sizes | SMOKE_SOUNDER | {"backbone": sizes["backbone"] | SMOKE_BACKBONE}
        data, hp = data | SMOKE_DATA, hp | SMOKE_TRAIN
    torch.set_float32_matmul_precision("high")

    phones = read_pronunciations(args.data / data["pronunciations"])
    if args.smoke:
        phones = dict(list(phones.items())[:: len(phones) // SMOKE_WORDS])
    lexicon = Lexicon.load()
    common = {word for word in phones if lexicon.pronounce(word)}
    sets = {"held-out": common, "rare": phones.keys() - common, "dev": set(phones)}
    counts = [data[name] for name in ("test", "rare", "dev")]
    chosen, kept = hold_out_words(phones, list(sets.values()), counts)
    for name, words in zip(sets, chosen, strict=True):
        write_words(args.out / f"{name}.txt", words, phones)
    dev = {word: phones[word] for word in chosen[-1]}
    seen = Counter(symbol for word in kept for symbol in set(phones[word].split()))
    symbols = sorted(symbol for symbol, count in seen.items() if count >= data["least"])
    config = from_dict(SounderConfig, sizes | {"symbols": " ".join(symbols)}, "sounder")
    rows = {
        word: row
        for word in kept
        if set(row := phones[word].split()) <= set(symbols) and fits(word, row, config.slots)
    }
    print(f"{len(phones)} words, {len(kept)} not held out, {len(rows)} of them learnt", flush=True)

    torch.manual_seed(hp["seed"])
    network = Sounder(config).to(args.device)
    settings = {name: hp[name] for name in ("lr", "weight_decay", "ema")}
    run = Run(network, network, betas=(0.9, 0.98), **settings)
    batches = WordBatches(config, rows, hp, run.device)
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        run.load(checkpoint)
        print(f"resumed at step {run.step}", flush=True)

    saved = began
    while run.step < hp["steps"] and (time.monotonic() - began) / 60 < args.minutes:
        cosine = 0.5 + 0.5 * math.cos(math.pi * run.step / hp["steps"])
        lr = hp["lr"] * min((run.step + 1) / hp["warmup"], cosine + 0.01)
        spelling = batches.batch(run.step)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=run.device.type == "cuda"):
            log_probs = network.train()(spelling.letters, spelling.lengths)
        loss = sounding_loss(log_probs, spelling, config.slots)
        norm = run.advance(loss, lr, hp["grad_clip"])
        if run.step % hp["log_every"] == 0:
            row = {"step": run.step, "minutes": round((time.monotonic() - began) / 60, 3)}
            row |= {"norm": norm.item(), "loss": loss.item()}
            if run.step % hp["dev_every"] == 0:
                row |= score(run.ema, dev)
            print(json.dumps(row), flush=True)
            with (args.out / "log.jsonl").open("a") as log:
                print(json.dumps(row), file=log)
        if time.monotonic() - saved > 60 * SAVE_MINUTES:
            run.save(checkpoint)
            saved = time.monotonic()

    run.save(checkpoint)
    final = score(run.ema, dev)
    print(f"step {run.step} of {hp['steps']}, {json.dumps(final)}", flush=True)
    save_sounder(args.out / "model", "English words to their phones, with stress", run.ema)
    command = f"audiossm evaluate pronounce {args.out}/held-out.txt --model {args.out / 'model'}"
    write_text_card(
        args.out / "model",
        command,
        run,
        read=f"{len(rows)} words",
        chosen="the words that the run was watched by",
        scores=final,
        unit="share",
        source="words",
    )
    log = args.out / "log.jsonl"
    if log.exists() and not draw_curves([args.out], args.out / "curves.png"):
        print("no curves.png: matplotlib isn't installed")


if __name__ == "__main__":
    sys.exit(run_recipe(main))
