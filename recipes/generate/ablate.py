"""Other generators at equal parameters: a depth head, states that don't rotate. Short runs alike.

    python recipes/generate/ablate.py --data DIR --out DIR --compile --steps 1000

Every arm begins from nothing and hears the same rows. What an arm costs in parameters its
feed-forward layers lack. A row of JSON for each goes to OUT/arms.jsonl: bits per frame on dev, told
the text, not told (``_untold``), and with neither text nor voice (``_alone``).
"""

import argparse
import gc
import json
import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from audiossm.codec import LoadedCodec
from audiossm.config import change_value, from_dict, load_toml
from audiossm.models.generator import Generator, GeneratorConfig
from audiossm.train.depth_talker import DepthTalker
from audiossm.train.journal import append_row
from audiossm.train.recitals import Recital, Recitals
from audiossm.train.run import Run
from audiossm.train.settings import adopt_sets, check_settings
from audiossm.train.takes import find_voices, load_takes, usual_frames
from audiossm.train.talker import Talker, capture, score_talker
from audiossm_apps.recipe import run_recipe

HERE = Path(__file__).parent
ARMS = ("delay", "depth", "unrotated", "again")
WIDTHS = 8  # the feed-forward layers' width is a multiple of it


def main() -> None:
    """Load once, then train and score one arm after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=HERE / "config.toml")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    parser.add_argument("--codec", default="first-frames", help="whose codes: a name or a folder")
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS, default=ARMS, help="again is delay with another seed"
    )
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=1e9, help="no arm begins that won't end")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--compile", action="store_true", help="CUDA: compile and capture")
    args = parser.parse_args()
    began, longest = time.monotonic(), 0.0
    args.out.mkdir(parents=True, exist_ok=True)
    table = load_toml(args.config)
    table["train"] |= {"steps": args.steps, "warmup": 200, "ema": 0.998, "dev_every": 200}
    table["data"] = adopt_sets(table["data"], args.data)
    for change in args.set:
        change_value(table, change)
    check_settings(table, HERE / "config.toml", ("data", "train"))
    data, hp = table["data"], table["train"]
    if data["strangers"]:
        parser.error("data.strangers is train.py's alone: arms are compared by dev")
    codec = LoadedCodec.load(args.codec)
    config = from_dict(GeneratorConfig, table["generator"], "generator")
    config = replace(config, levels=codec.config.quantiser.levels)
    codec.choose_groups(config.num_groups)
    train, held_out = load_takes(args.data, data, codec, args.out, args.workers, args.device)
    speakers, usual = find_voices(train, data["voice_frames"]), usual_frames(train)
    dev = Recitals(config, held_out, speakers, usual, data, hp["seed"]).dev_ways()
    torch.set_float32_matmul_precision("high")
    for name in args.arms:
        at = time.monotonic()
        if (at - began + longest) / 60 > args.minutes:
            print(f"{name}: no time left", flush=True)
            continue
        recitals = Recitals(config, train, speakers, usual, data, hp["seed"])
        row = {"arm": name} | train_arm(args, config, name, recitals, dev, len(speakers), hp)
        longest = max(longest, time.monotonic() - at)
        row["seconds"] = round(time.monotonic() - at)
        print(json.dumps(row), flush=True)
        append_row(args.out / "arms.jsonl", row)
        gc.collect()
        if args.device.startswith("cuda"):
            torch.cuda.empty_cache()


def make_arm(base: GeneratorConfig, name: str, num_speakers: int, noise: float) -> Talker:
    """Return an arm with as many parameters as ``base`` has, to within half a per cent."""
    if name != "depth":
        return Talker(base, num_speakers, noise)
    backbone = base.backbone
    spare = count(Talker(base, num_speakers)) - count(DepthTalker(base, num_speakers))
    channels = spare / (3 * backbone.d_model * backbone.num_layers)
    wide = WIDTHS * round((backbone.d_intermediate + channels) / WIDTHS)
    config = replace(base, backbone=replace(backbone, d_intermediate=wide))
    return DepthTalker(config, num_speakers, noise)


def count(module: torch.nn.Module) -> int:
    """Count parameters."""
    return sum(p.numel() for p in module.parameters())


@torch.no_grad()
def stop_rotation(generator: Generator) -> None:
    """Make the angles 0, whatever a frame says: the states are real then, as Mamba-2's are."""
    for block in generator.blocks():
        block.mixer.in_proj.weight[-block.mixer.config.num_angles :].zero_()


def train_arm(
    args: argparse.Namespace,
    config: GeneratorConfig,
    name: str,
    recitals: Recitals,
    dev: list[tuple[Recital, Recital, Recital]],
    num_speakers: int,
    hp: dict[str, Any],
) -> dict[str, Any]:
    """Train one arm; return its figures."""
    torch.compiler.reset()
    torch.manual_seed(hp["seed"] + (name == "again"))
    talker = make_arm(config, name, num_speakers, hp["noise"]).to(args.device)
    if name == "unrotated":
        stop_rotation(talker.generator)
    settings = {key: hp[key] for key in ("lr", "weight_decay", "ema")}
    run = Run(talker, talker, betas=(0.9, 0.98), **settings)
    if args.compile:
        capture(talker, recitals.recital(0).to(run.device))
    weights = torch.tensor([*hp["group_weights"][: config.num_groups], hp["ends_weight"]])
    weights, scores = weights.to(run.device), dict[str, float]()
    while run.step < hp["steps"]:
        cosine = 0.5 + 0.5 * math.cos(math.pi * run.step / hp["steps"])
        lr = hp["lr"] * min((run.step + 1) / hp["warmup"], cosine + 0.01)
        recital = recitals.recital(run.step).to(run.device)
        halved = run.device.type == "cuda"
        with torch.autocast(run.device.type, torch.bfloat16, enabled=halved, cache_enabled=False):
            losses = talker(recital)
        run.advance((losses * weights).sum(), lr, hp["grad_clip"])
        if name == "unrotated":
            stop_rotation(talker.generator)
        if run.step % hp["dev_every"] == 0 or run.step == hp["steps"]:
            scores = score_talker(run.ema, dev)
            print(json.dumps({"arm": name, "step": run.step} | scores), flush=True)
    params = count(talker) - talker.voices.weight.numel()
    return {"params": params, "steps": run.step} | scores


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
