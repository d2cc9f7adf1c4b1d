"""Short runs that differ in one thing: ranks, rule, turns, attention, depth, what a head writes.

    python recipes/transcribe/ablate.py --data DIR --out DIR --compile --steps 3000
    python recipes/transcribe/ablate.py --data DIR --out DIR --compile --steps 3000 \\
        --arms letters pieces256 pieces512 --text TEXT.xz

Every arm begins from one recogniser and hears the same rows. The encoder stays as it is. Arms of
ranks and depths take over convolutions, look-ahead and heads whole, and of the feed-forward layers
the channels that weigh most, as many as the narrowest rank has; all mixers begin anew, and so do
the other channels. What a rank costs in parameters its feed-forward layers lack. A shallow arm
takes layers evenly, a deep one has new layers between those, which begin as if their convolutions
and feed-forward layers weren't there. The arms ``letters`` and ``pieces`` take over everything but
the first head, which begins anew and writes letters or pieces of words, learnt from a text. A row
of JSON for each arm goes to OUT/arms.jsonl, with dev at the end.
"""

import argparse
import gc
import json
import lzma
import math
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchaudio.functional import edit_distance

from audiossm.config import change_value, from_dict, load_toml
from audiossm.decoding import best_labels
from audiossm.models import BackboneConfig, LoadedRecogniser, Recogniser, RecogniserConfig
from audiossm.nn import AnyLayer
from audiossm.text import BLANK, CHARACTERS, WORD_BREAK, Vocabulary, normalise_text
from audiossm.train.corpus import Corpus
from audiossm.train.journal import append_row
from audiossm.train.lessons import Lessons
from audiossm.train.losses import ctc
from audiossm.train.phones import Phones, read_phones
from audiossm.train.pieces import BEGIN, Pieces
from audiossm.train.run import Run
from audiossm.train.scoring import greedy_wer, utterances
from audiossm.train.settings import adopt_sets, check_settings
from audiossm.train.spoken import load_spoken
from audiossm.train.trainee import Trainee
from audiossm_apps.recipe import run_recipe

HERE = Path(__file__).parent
WIDTHS = 8  # the feed-forward layers' width is a multiple of it
LEAST = -12.0  # log-probabilities below it aren't kept


@dataclass(frozen=True)
class Arm:
    """What an arm differs in from "rank1"."""

    rank: int = 1
    trapezoid: bool = True
    turns: bool = True  # states do
    resonators: float = 0.0  # part of the heads that have a bank of them
    attention: tuple[int, ...] = ()  # layers that attend instead
    seed: int = 0  # more than the recipe's
    depth: float = 1.0  # times as many layers
    only_head: bool = False  # all but the first head is taken over
    pieces: int = 0  # of words, with the blank, which that head writes instead of letters


RANKS = {
    "rank1": Arm(),
    "rank2": Arm(rank=2),
    "rank4": Arm(rank=4),
    "rank8": Arm(rank=8),
    "euler": Arm(trapezoid=False),
    "still": Arm(turns=False),
    "bank": Arm(resonators=0.25),
    "hybrid1": Arm(attention=(5,)),
    "hybrid2": Arm(attention=(4, 8)),
    "again": Arm(seed=1),
}
ARMS = RANKS | {
    "half": Arm(depth=0.5),
    "double": Arm(depth=2.0),
    "letters": Arm(only_head=True),
    "letters-again": Arm(only_head=True, seed=1),
    "pieces256": Arm(only_head=True, pieces=256),
    "pieces512": Arm(only_head=True, pieces=512),
}


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
        choices=list(ARMS),
        default=list(RANKS),
        help="again is another seed, for the noise (default: the ranks')",
    )
    parser.add_argument("--text", type=Path, help="pieces: sentences, one a line, plain or .xz")
    parser.add_argument("--keep", action="store_true", help="what dev's frames say: OUT/ARM.npz")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--minutes", type=float, default=1e9, help="no arm begins that won't end")
    parser.add_argument("--cache", type=Path, help="a folder that keeps what was decoded")
    parser.add_argument("--prepare", action="store_true", help="only decode into the cache")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--compile", action="store_true", help="CUDA: compile and capture")
    parser.add_argument("--capture", action="store_true", help="CUDA: capture without compiling")
    args = parser.parse_args()
    if args.text is None and any(ARMS[name].pieces for name in args.arms):
        parser.error("arms of pieces need --text, which they are learnt from")
    began = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    table = load_toml(args.config)
    short = {"steps": args.steps, "warmup": 200, "consistency_weight": 0.0, "ema": 0.998}
    table["train"] |= short | {"log_every": 250}
    table["data"] = adopt_sets(table["data"], args.data)
    for change in args.set:
        change_value(table, change)
    check_settings(table, HERE / "config.toml", ("data", "train"))
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
    alike = [name for name, arm in RANKS.items() if not arm.attention or name in args.arms]
    kept = min(arm_config(base, name).backbone.d_intermediate for name in alike)
    counts = count_words(args.text) if args.text else Counter()
    longest = 0.0
    for name in args.arms:
        at, arm = time.monotonic(), ARMS[name]
        if (at - began + longest) / 60 > args.minutes:
            print(f"{name}: no time left", flush=True)
            continue
        config, heard, asked = arm_config(base, name), train, dev
        if arm.pieces:
            pieces = Pieces.learn(counts, arm.pieces)
            config = replace(config, pieces=(BLANK, *map(mark, pieces.symbols)))
            asked, *heard = (spell(corpus, pieces) for corpus in (dev, *train))
        other = hp | {"seed": hp["seed"] + arm.seed}
        row = {"arm": name}
        row |= train_arm(
            args, config, shipped, 0 if arm.only_head else kept, heard, noise, data, other
        )
        row |= score(row.pop("network"), asked, args.out / f"{name}.npz" if args.keep else None)
        row["seconds"] = round(time.monotonic() - at)
        print(json.dumps(row), flush=True)
        append_row(args.out / "arms.jsonl", row)
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
    told = data | {"train": data["dev"], "dev": data["dev"], "noise": [], "speeds": [1.0]}
    dev, _, _ = load_spoken(args.data, told, *given, cache / "dev", args.workers, args.device)
    return train, dev[0], noise


def count_words(path: Path) -> Counter[str]:
    """Count the words of a text, and each letter once, so that any word can be spelled."""
    opened = lzma.open if path.suffix == ".xz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        words = Counter(word for line in lines for word in normalise_text(line).split())
    return words + Counter(piece for piece in CHARACTERS if piece not in (BLANK, WORD_BREAK))


def mark(symbol: str) -> str:
    """Write a piece of a word as a model's vocabulary does."""
    return symbol.replace(BEGIN, WORD_BREAK)


def spell(corpus: Corpus, pieces: Pieces) -> Corpus:
    """Return a corpus whose first labels are pieces of its texts."""
    rows = [
        [piece for word in normalise_text(text).split() for piece in pieces.split(word)]
        for text in corpus.texts
    ]
    return replace(corpus, labels=(rows, *corpus.labels[1:]), joints=([], *corpus.joints[1:]))


def arm_config(base: RecogniserConfig, name: str) -> RecogniserConfig:
    """Return an arm's sizes: of equal depth, as many parameters as ``base``, to within 1 %."""
    arm = ARMS[name]
    changes: dict[str, Any] = {"trapezoid": arm.trapezoid, "attention_layers": arm.attention}
    changes |= {"turns": arm.turns, "resonators": arm.resonators}
    changes["num_layers"] = round(arm.depth * base.backbone.num_layers)
    if arm.rank > 1:
        changes |= {"is_mimo": True, "mimo_rank": arm.rank}
    backbone = replace(base.backbone, **changes)
    spare = count(base.backbone) / base.backbone.num_layers - count(backbone) / backbone.num_layers
    wide = base.backbone.d_intermediate + spare / (3 * backbone.d_model)
    backbone = replace(backbone, d_intermediate=WIDTHS * round(wide / WIDTHS))
    places = {
        place: round(arm.depth * getattr(base, place))
        for place in ("lookahead_after", "middle_after")
    }
    return replace(base, backbone=backbone, **places)


def count(backbone: BackboneConfig) -> int:
    """Count the parameters of all layers."""
    with torch.device("meta"):
        return sum(p.numel() for block in backbone.make_blocks(0.0) for p in block.parameters())


def take_over(network: Recogniser, shipped: Recogniser, kept: int) -> None:
    """Take all weights but the mixers', and of the feed-forward layers ``kept`` channels.

    With 0 that is all weights but those of the first head.
    """
    inside = ("layers.", "convs.", *(() if kept else ("head.",)))
    weights = {n: w for n, w in shipped.state_dict().items() if not n.startswith(inside)}
    network.load_state_dict(network.state_dict() | weights)
    convs = shipped.gated_convs()
    for at, source in enumerate(find_sources(network.config, shipped.config)):
        block = network.blocks()[at]
        if source is None:
            nn.init.zeros_(block.mlp.fc2.weight)
            if convs:
                nn.init.zeros_(network.gated_convs()[at].out.weight)
            continue
        take_layer(block, shipped.blocks()[source], kept)
        if convs:
            network.gated_convs()[at].load_state_dict(convs[source].state_dict())


def find_sources(ours: RecogniserConfig, theirs: RecogniserConfig) -> list[int | None]:
    """Return for each of our layers which of theirs it begins as: None is none of them.

    Those below the look-ahead come from below it.
    """
    sources: list[int | None] = []
    splits = [(c.lookahead_after, c.backbone.num_layers) for c in (ours, theirs)]
    for begin, number, have in (
        (0, splits[0][0], splits[1][0]),
        (splits[1][0], splits[0][1] - splits[0][0], splits[1][1] - splits[1][0]),
    ):
        if number <= have:
            sources += [begin + round(x) for x in np.linspace(0, have - 1, number).tolist()]
        else:
            times = number // have
            sources += [begin + i // times if i % times == 0 else None for i in range(number)]
    return sources


@torch.no_grad()
def take_layer(ours: AnyLayer, theirs: AnyLayer, kept: int) -> None:
    """Take a layer's weights: all of them if ``kept`` is 0, otherwise as ``take_over`` says."""
    inside = ("mixer.", "mlp.") if kept else ()
    weights = {n: w for n, w in theirs.state_dict().items() if not n.startswith(inside)}
    ours.load_state_dict(ours.state_dict() | weights)
    if kept:
        best = heaviest(theirs, kept)
        halves = ours.mlp.fc1.weight.chunk(2), theirs.mlp.fc1.weight.chunk(2)
        for new, old in zip(*halves, strict=True):
            new[:kept] = old[best]
        ours.mlp.fc2.weight[:, :kept] = theirs.mlp.fc2.weight[:, best]


def heaviest(block: AnyLayer, kept: int) -> Tensor:
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
def score(network: Recogniser, dev: Corpus, kept: Path | None = None) -> dict[str, float]:
    """Return CTC losses and greedy errors of letters and phones at the longest look-ahead.

    Losses are nats a letter and nats a phone, also where the head writes pieces of words.
    """
    network.eval()
    sums = {"letters": 0.0, "phones": 0.0}
    counts, wrong = {"letters": 0, "phones": 0}, 0
    config, cut = network.config, network.config.stack * max(network.config.lookahead_frames)
    frames_of: dict[str, dict[int, Tensor]] = {kind: {} for kind in sums}
    for items, backbone_frames, audio in utterances(dev, config, rows=32):
        letters, phones, _ = network.run(audio, network.init_state(len(items)))
        assert phones is not None, "the recogniser has no head for phones"
        letters, phones = letters[:, cut:], phones[:, cut:]
        frames = config.stack * torch.tensor(backbone_frames)
        counts["letters"] += sum(len(normalise_text(dev.texts[item])) for item in items)
        counts["phones"] += sum(len(dev.labels[1][item]) for item in items)
        for kind, log_probs, labels in zip(sums, (letters, phones), dev.labels, strict=True):
            rows = [labels[item] for item in items]
            sums[kind] += ctc(log_probs, frames, rows).item() * max(sum(map(len, rows)), 1)
            for row, item in enumerate(items):
                frames_of[kind][item] = log_probs[row, : int(frames[row])].cpu()
        for row, item in enumerate(items):
            best, _ = best_labels(phones[row, : int(frames[row])])
            told = [new for old, new in zip([0, *best], best, strict=False) if new not in (0, old)]
            wrong += edit_distance(dev.labels[1][item], told)
    if kept is not None:
        keep(kept, dev, frames_of)
    losses = {f"dev_{kind}": round(sums[kind] / max(counts[kind], 1), 4) for kind in sums}
    return losses | {
        "dev_wer": round(greedy_wer(network, dev), 4),
        "dev_per": round(wrong / max(counts["phones"], 1), 4),
    }


def keep(path: Path, dev: Corpus, frames_of: dict[str, dict[int, Tensor]]) -> None:
    """Write what isn't improbable: of each frame how many labels, which, and their log-probs."""
    arrays = {"texts": np.array(dev.texts), "sources": np.array(dev.sources)}
    for kind, by_item in frames_of.items():
        rows = [by_item[item] for item in range(len(dev))]
        whole = torch.cat(rows).numpy()
        likely = whole > LEAST
        arrays |= {
            f"{kind}_frames": np.array([len(row) for row in rows]),
            f"{kind}_symbols": np.array(whole.shape[1]),
            f"{kind}_counts": likely.sum(1).astype(np.uint16),
            f"{kind}_labels": np.nonzero(likely)[1].astype(np.uint16),
            f"{kind}_log_probs": whole[likely].astype(np.float16),
        }
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
