"""Train the writer, which gives plain words their capitals, commas, full stops, question marks.

    python recipes/text/train.py --data DIR --out DIR
    python recipes/text/train.py --smoke --out DIR      # a minute on a CPU

DIR holds the file of written sentences that config.toml names. A run that was stopped goes on from
its last checkpoint with the same command. README.md has the numbers.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import torch

from audiossm.config import change_value, from_dict, load_toml
from audiossm.evaluate.writing import find_logits, read_lines, score_forms, true_forms
from audiossm.marks import STOP, MarkedWord, read_marks
from audiossm.models import Writer, WriterConfig, choose_device, choose_forms, save_writer
from audiossm.train.curves import draw_curves
from audiossm.train.dictation import Dictation, writing_loss
from audiossm.train.offsets import find_offsets
from audiossm.train.run import Run
from audiossm.train.sentences import Sentences, hold_out, leave_out
from audiossm.train.settings import check_settings
from audiossm.train.text_card import write_text_card
from audiossm_apps.recipe import run_recipe

HERE = Path(__file__).parent
SAVE_MINUTES = 5
SMOKE_WRITER = {"num_affixes": 512, "d_embedding": 32}
SMOKE_BACKBONE = {
    "d_model": 32,
    "num_layers": 2,
    "d_intermediate": 32,
    "d_state": 16,
    "head_dim": 16,
}
SMOKE_DATA = {"sentences": "sentences.txt", "test": 20, "dev": 20, "num_words": 300}
SMOKE_TRAIN = {"steps": 80, "warmup": 5, "rows": 4, "row_words": 64, "ema": 0.9, "log_every": 10}


def score(network: Writer, words: list[MarkedWord]) -> dict[str, float]:
    """Return the F1 of each class on a stream of words."""
    network.eval()
    forms = choose_forms(find_logits(network, words), STOP)
    scores = score_forms(true_forms(words), forms)
    return {f"dev_{name.replace(' ', '_')}": round(s.f1, 4) for name, s in scores.items()}


def main() -> None:
    """Load, train, choose offsets, export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "tests" / "text")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=HERE / "config.toml")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after, to be resumed")
    parser.add_argument("--smoke", action="store_true", help="a tiny network on a few sentences")
    args = parser.parse_args()
    args.device = str(choose_device(args.device))
    began = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)

    table = load_toml(args.config)
    for change in args.set:
        change_value(table, change)
    check_settings(table, HERE / "config.toml", ("data", "train"))
    sizes, data, hp = table["writer"], table["data"], table["train"]
    if args.smoke:
        sizes = sizes | SMOKE_WRITER | {"backbone": sizes["backbone"] | SMOKE_BACKBONE}
        data, hp = data | SMOKE_DATA, hp | SMOKE_TRAIN
    torch.set_float32_matmul_precision("high")

    held_out, cached = args.out / "held-out.txt", args.out / "sentences.npz"
    if not cached.exists():
        lines = read_lines(args.data / data["sentences"])
        test, dev_lines = hold_out(lines, data["test"], data["dev"])
        held_out.write_text("".join(f"{line}\n" for line in test))
        (args.out / "dev.txt").write_text("".join(f"{line}\n" for line in dev_lines))
        Sentences.read(leave_out(lines, test + dev_lines)).save(cached)
    sentences = Sentences.load(cached)
    dev = [item for line in read_lines(args.out / "dev.txt") for item in read_marks(line)]
    words = " ".join(sentences.words[: data["num_words"]])
    config = from_dict(WriterConfig, sizes | {"words": words}, "writer")
    print(f"{len(sentences.ids)} words, read in {time.monotonic() - began:.0f} s", flush=True)

    torch.manual_seed(hp["seed"])
    network = Writer(config).to(args.device)
    settings = {name: hp[name] for name in ("lr", "weight_decay", "ema")}
    run = Run(network, network, betas=(0.9, 0.98), **settings)
    dictation = Dictation(config, sentences, hp, run.device)
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        run.load(checkpoint)
        print(f"resumed at step {run.step}", flush=True)

    saved = began
    while run.step < hp["steps"] and (time.monotonic() - began) / 60 < args.minutes:
        cosine = 0.5 + 0.5 * math.cos(math.pi * run.step / hp["steps"])
        lr = hp["lr"] * min((run.step + 1) / hp["warmup"], cosine + 0.01)
        page = dictation.page(run.step)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=run.device.type == "cuda"):
            logits = network.train()(page.features)
        loss, parts = writing_loss(logits, page)
        norm = run.advance(loss, lr, hp["grad_clip"])
        if run.step % hp["log_every"] == 0:
            row = {"step": run.step, "minutes": round((time.monotonic() - began) / 60, 3)}
            row |= {"norm": norm.item()} | {name: part.item() for name, part in parts.items()}
            if run.step % hp["dev_every"] == 0:
                row |= score(run.ema, dev)
            print(json.dumps(row), flush=True)
            with (args.out / "log.jsonl").open("a") as log:
                print(json.dumps(row), file=log)
        if time.monotonic() - saved > 60 * SAVE_MINUTES:
            run.save(checkpoint)
            saved = time.monotonic()

    run.save(checkpoint)
    offsets = find_offsets(run.ema.eval(), dev)
    with torch.no_grad():
        run.ema.head.bias += offsets.to(run.device)
    final = score(run.ema, dev)
    print(f"step {run.step} of {hp['steps']}, {json.dumps(final)}", flush=True)
    description = "Capitals, commas, full stops and question marks for plain English words"
    save_writer(args.out / "model", description, run.ema)
    command = f"audiossm evaluate writing {held_out} --model {args.out / 'model'}"
    write_text_card(
        args.out / "model",
        command,
        run,
        read=f"{len(sentences.starts) - 1} written sentences of {len(sentences.ids)} words",
        chosen="the sentences that offsets were chosen by",
        scores=final,
        unit="F1",
        source="sentences",
    )
    log = args.out / "log.jsonl"
    if log.exists() and not draw_curves([args.out], args.out / "curves.png"):
        print("no curves.png: matplotlib isn't installed")


if __name__ == "__main__":
    sys.exit(run_recipe(main))
