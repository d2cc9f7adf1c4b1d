"""Ranks of MIMO at equal parameters, Euler's rule, states that don't turn: short runs alike.

    python recipes/transcribe/ablate.py --data DIR --out DIR --compile --steps 3000

Every arm begins from one recogniser. What it takes over is the same in each: the encoder, which
stays as it is, convolutions, look-ahead and heads whole, and of the feed-forward layers the
channels that weigh most, as many as the narrowest arm has. All mixers begin anew, and so do the
other channels. What a rank costs in parameters its feed-forward layers lack. The arms hear the
same rows. A row of JSON for each arm goes to OUT/arms.jsonl, with dev at the end.
"""

import argparse
import gc
import json
import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchaudio.functional import edit_distance

from audiossm.config import change_value, from_dict, load_toml
from audiossm.decoding import best_labels
from audiossm.models import LoadedRecogniser, Recogniser, RecogniserConfig
from audiossm.nn import Block
from audiossm.text import Vocabulary
from audiossm.train.corpus import Corpus
from audiossm.train.lessons import Lessons
from audiossm.train.losses import ctc
from audiossm.train.phones import Phones, read_phones
from audiossm.train.run import Run
from audiossm.train.scoring import greedy_wer, utterances
from audiossm.train.spoken import load_spoken
from audiossm.train.trainee import Trainee

HERE = Path(__file__).parent
RANKS = {"rank1": 1, "rank2": 2, "rank4": 4, "rank8": 8, "euler": 1, "again": 1}
RANKS |= {"still": 1, "bank": 1}  # no turns; a resonator bank in a quarter of the heads
WIDTHS = 8  # the feed-forward layers' width is a multiple of it


def main() -> None:
    """Load once, then train and score one arm after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=HERE / "config.toml")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    parser.add_argument("--init", default="first-light", help="a recogniser: a name or a folder")
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=list(RANKS),
        default=list(RANKS),
        help="again is rank1 with another seed, for the noise",
    )
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--minutes", type=float, default=1e9, help="no arm begins that won't end")
    parser.add_argument("--cache", type=Path, help="a folder that keeps what was decoded")
    parser.add_argument("--prepare", action="store_true", help="only decode into the cache")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--compile", action="store_true", help="CUDA: compile and capture")
    parser.add_argument("--capture", action="store_true", help="CUDA: capture without compiling")
    args = parser.parse_args()
    began = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    table = load_toml(args.config)
    short = {"steps": args.steps, "warmup": 200, "consistency_weight": 0.0, "ema": 0.998}
    table["train"] |= short | {"log_every": 250}
    for change in args.set:
        change_value(table, change)
    data, hp = table["data"], table["train"]
    torch.set_float32_matmul_precision("high")
    phones = read_phones(args.data / "phones.json")
    shipped = LoadedRecogniser.load(args.init, device=args.device).network
    train, dev, noise = load_speech(args, data, shipped.config, phones)
    print(f"{train[0].hours:.2f} h, loaded in {time.monotonic() - began:.0f} s", flush=True)
    if args.prepare:
        return

    base = replace(shipped.config, dropout=table["recogniser"]["dropout"])
    # as the recipe starts a network's steps, not as the model file says
    fresh = from_dict(RecogniserConfig, table["recogniser"], "recogniser").backbone
    starts = {"dt_min": fresh.dt_min, "dt_max": fresh.dt_max, "max_memory": fresh.max_memory}
    base = replace(base, backbone=replace(base.backbone, **starts))
    kept = min(arm_config(base, name).backbone.d_intermediate for name in RANKS)
    longest = 0.0
    for name in args.arms:
        at = time.monotonic()
        if (at - began + longest) / 60 > args.minutes:
            print(f"{name}: no time left", flush=True)
            continue
        config = arm_config(base, name)
        other = hp | {"seed": hp["seed"] + (name == "again")}
        row = {"arm": name} | train_arm(args, config, shipped, kept, train, noise, data, other)
        row |= score(row.pop("network"), dev)
        row["seconds"] = round(time.monotonic() - at)
        print(json.dumps(row), flush=True)
        with (args.out / "arms.jsonl").open("a") as file:
            print(json.dumps(row), file=file)
        longest = max(longest, time.monotonic() - at)
        gc.collect()
        if args.device.startswith("cuda"):
            torch.cuda.empty_cache()


def load_speech(
    args: argparse.Namespace, data: dict[str, Any], config: RecogniserConfig, phones: Phones
) -> tuple[list[Corpus], Corpus, Corpus | None]:
    """Return training speech, dev with its letters and phones, and noise."""
    vocabulary, cache = Vocabulary(config.pieces), args.cache or args.out
    (cache / "dev").mkdir(parents=True, exist_ok=True)
    given = (vocabulary, phones)
    train, _, noise = load_spoken(args.data, data, *given, cache, args.workers, args.device)
    told = {"train": data["dev"], "dev": data["dev"], "noise": [], "speeds": [1.0]}
    dev, _, _ = load_spoken(args.data, told, *given, cache / "dev", args.workers, args.device)
    return train, dev[0], noise


def arm_config(base: RecogniserConfig, name: str) -> RecogniserConfig:
    """Return an arm's sizes: as many parameters as ``base`` has, to within a per cent."""
    rank = RANKS[name]
    changes: dict[str, Any] = {"trapezoid": name != "euler", "turns": name != "still"}
    changes["resonators"] = 0.25 if name == "bank" else 0.0
    if rank > 1:
        changes |= {"is_mimo": True, "mimo_rank": rank}
    backbone = replace(base.backbone, **changes)
    spare = count(base.backbone, base) - count(backbone, base)
    wide = base.backbone.d_intermediate + spare / (3 * backbone.d_model)
    backbone = replace(backbone, d_intermediate=WIDTHS * round(wide / WIDTHS))
    return replace(base, backbone=backbone)


def count(backbone: Any, config: RecogniserConfig) -> int:
    """Count the parameters of a layer."""
    with torch.device("meta"):
        block = Block(backbone.mixer, backbone.d_intermediate, dropout=config.dropout)
    return sum(p.numel() for p in block.parameters())


def take_over(network: Recogniser, shipped: Recogniser, kept: int) -> None:
    """Take all weights but the mixers', and of the feed-forward layers ``kept`` channels."""
    weights = {
        name: weight
        for name, weight in shipped.state_dict().items()
        if name.startswith("encoder.") or not (".mixer." in name or ".mlp." in name)
    }
    network.load_state_dict(network.state_dict() | weights)
    with torch.no_grad():
        for ours, theirs in zip(network.blocks(), shipped.blocks(), strict=True):
            best = heaviest(theirs, kept)
            halves = ours.mlp.fc1.weight.chunk(2), theirs.mlp.fc1.weight.chunk(2)
            for new, old in zip(*halves, strict=True):
                new[:kept] = old[best]
            ours.mlp.fc2.weight[:, :kept] = theirs.mlp.fc2.weight[:, best]


def heaviest(block: Block, kept: int) -> Tensor:
    """Return which channels of a feed-forward layer have the largest weights."""
    value, gate = (part.norm(dim=1) for part in block.mlp.fc1.weight.chunk(2))
    return (value * gate * block.mlp.fc2.weight.norm(dim=0)).topk(kept).indices.sort().values


def train_arm(
    args: argparse.Namespace,
    config: RecogniserConfig,
    shipped: Recogniser,
    kept: int,
    train: list[Corpus],
    noise: Corpus | None,
    data: dict[str, Any],
    hp: dict[str, Any],
) -> dict[str, Any]:
    """Train one arm; return its figures and the averaged ``network``."""
    torch.compiler.reset()
    torch.manual_seed(hp["seed"])
    trainee = Trainee(config).to(args.device)
    net = trainee.recogniser
    take_over(net, shipped, kept)
    net.encoder.requires_grad_(False)
    settings = {name: hp[name] for name in ("lr", "weight_decay", "ema")}
    run = Run(trainee, net, betas=(0.9, 0.98), **settings)
    started = time.monotonic()
    lessons = Lessons(
        trainee, train, noise, data, hp,
        step=0, captured=args.compile or args.capture, compiled=args.compile,
    )  # fmt: skip
    compiling = time.monotonic() - started
    begun, timed = time.monotonic(), 0
    figures: dict[str, Any] = {}
    while run.step < hp["steps"]:
        cosine = 0.5 + 0.5 * math.cos(math.pi * run.step / hp["steps"])
        lr = hp["lr"] * min((run.step + 1) / hp["warmup"], cosine + 0.01)
        loss, parts = lessons.next_loss()
        run.advance(loss, lr, hp["grad_clip"])
        if run.step == 20:  # what is tuned at first isn't timed
            loss.item()
            begun, timed = time.monotonic(), run.step
        if run.step % hp["log_every"] == 0 or run.step == hp["steps"]:
            figures = {name: round(part.item(), 4) for name, part in parts.items()}
            print(json.dumps({"step": run.step} | figures), flush=True)
    step_s = (time.monotonic() - begun) / max(run.step - timed, 1)
    above = sum(p.numel() for p in net.above_encoder().parameters())
    return {
        "params": above,
        "d_intermediate": config.backbone.d_intermediate,
        "steps": run.step,
        "ms_per_step": round(1000 * step_s, 2),
        "start_s": round(compiling),
        "last": figures,
        "network": run.ema,
    }


@torch.no_grad()
def score(network: Recogniser, dev: Corpus) -> dict[str, float]:
    """Return CTC losses and greedy errors of letters and phones at the longest look-ahead."""
    network.eval()
    sums = {"letters": 0.0, "phones": 0.0}
    counts, wrong = {"letters": 0, "phones": 0}, 0
    config, cut = network.config, network.config.stack * max(network.config.lookahead_frames)
    for items, backbone_frames, audio in utterances(dev, config, rows=32):
        letters, phones, _ = network.run(audio, network.init_state(len(items)))
        assert phones is not None, "the recogniser has no head for phones"
        letters, phones = letters[:, cut:], phones[:, cut:]
        frames = config.stack * torch.tensor(backbone_frames)
        for kind, log_probs, labels in zip(sums, (letters, phones), dev.labels, strict=True):
            rows = [labels[item] for item in items]
            number = sum(map(len, rows))
            sums[kind] += ctc(log_probs, frames, rows).item() * max(number, 1)
            counts[kind] += number
        for row, item in enumerate(items):
            best, _ = best_labels(phones[row, : int(frames[row])])
            told = [new for old, new in zip([0, *best], best, strict=False) if new not in (0, old)]
            wrong += edit_distance(dev.labels[1][item], told)
    losses = {f"dev_{kind}": round(sums[kind] / max(counts[kind], 1), 4) for kind in sums}
    return losses | {
        "dev_wer": round(greedy_wer(network, dev), 4),
        "dev_per": round(wrong / max(counts["phones"], 1), 4),
    }


if __name__ == "__main__":
    main()
