"""Train the generator: a Mamba-3 backbone that says a script, a voice's codes frame by frame.

    python recipes/generate/train.py --data DIR --out DIR
    python recipes/generate/train.py --smoke --out DIR      # a minute on a CPU

    torchrun --nproc_per_node 2 --max-restarts 3 recipes/generate/train.py ...

DIR holds the manifests and shards that config.toml names, and said.jsonl by time_scripts.py. A run
that was stopped goes on from its last checkpoint with the same command, on any number of processes,
which share the rows of a batch. README.md has the numbers.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from audiossm.codec import load_codec
from audiossm.config import change_value, from_dict, load_toml
from audiossm.manifest import Utterance
from audiossm.models.generator import GeneratorConfig
from audiossm.models.loaded_generator import save_generator
from audiossm.pronouncer import Pronouncer
from audiossm.script import ScriptReader
from audiossm.train.curves import draw_curves
from audiossm.train.journal import Journal
from audiossm.train.losses import send
from audiossm.train.ranks import Ranks
from audiossm.train.recitals import Recitals
from audiossm.train.run import Run
from audiossm.train.settings import adopt_sets, check_settings
from audiossm.train.takes import find_voices, load_strangers, load_takes, usual_frames
from audiossm.train.talker import Talker, capture, compile_layers, score_talker
from audiossm.train.text_card import write_text_card
from audiossm.train.timed_scripts import TimedScript
from audiossm_apps.recipe import StepBar, run_recipe

HERE = Path(__file__).parent
SMOKE_DATA = {"train": ["manifest"], "rows": 4, "row_frames": 96, "voice_frames": 100}
SMOKE_DATA |= {"dev_share": 0.25, "dev_batches": 1}
SMOKE_TRAIN = {"steps": 60, "warmup": 5, "lr": 3e-3, "ema": 0.9, "log_every": 10, "dev_every": 30}


def part_evenly(
    utterances: Iterable[Utterance], frames: Mapping[str, int]
) -> Iterable[TimedScript]:
    """Say when each unit is said as if all took the same time: enough to see a run work."""
    pronouncer = Pronouncer.load()
    for utterance in utterances:
        reader, count = ScriptReader(pronouncer), frames.get(utterance.key, 0)
        units = reader.push(utterance.text).units + reader.finish().units
        if 0 < len(units) <= count:
            borders = np.linspace(0, count, len(units) + 1).astype(int)
            yield TimedScript(utterance.key, units, tuple(np.diff(borders).tolist()))


def main() -> None:
    """Load, encode, train, evaluate, export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "tests" / "speech")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=HERE / "config.toml")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    parser.add_argument(
        "--codec", default="first-frames", help="whose codes: name or folder, or transformers:NAME"
    )
    parser.add_argument("--init", help="begin from this generator: a name or a folder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after, to be resumed")
    parser.add_argument("--save-minutes", type=float, default=5.0, help="between checkpoints")
    parser.add_argument("--halve-gradients", action="store_true", help="sent as bfloat16")
    parser.add_argument("--anneal", action="store_true", help="the rate falls by --minutes' end")
    parser.add_argument("--compile", action="store_true", help="CUDA: compile and capture")
    parser.add_argument("--tensorboard", action="store_true", help="events in OUT/tensorboard")
    parser.add_argument("--smoke", action="store_true", help="a tiny network on the test audio")
    args = parser.parse_args()
    if args.compile and not args.device.startswith("cuda"):
        parser.error(f"--compile needs a CUDA device, but --device is {args.device}")
    began = time.monotonic()
    ranks = Ranks.join(args.device)
    args.out.mkdir(parents=True, exist_ok=True)

    table = load_toml(args.config)
    if args.smoke:
        table["data"] |= SMOKE_DATA
        table["train"] |= SMOKE_TRAIN
    table["data"] = adopt_sets(table["data"], args.data)
    for change in args.set:
        change_value(table, change)
    check_settings(table, HERE / "config.toml", ("data", "train"))
    data, hp = table["data"], table["train"]
    config = from_dict(GeneratorConfig, table["generator"], "generator")
    codec = load_codec(args.codec)
    quantiser = codec.config.quantiser
    if args.smoke:
        config = replace(GeneratorConfig.tiny(), num_groups=config.num_groups)
    config = replace(config, levels=quantiser.levels)
    codec.choose_groups(config.num_groups)
    scripter = part_evenly if args.smoke else None
    with ranks.in_turn():
        train, held_out = load_takes(
            args.data, data, codec, args.out, args.workers, ranks.device, scripter
        )
        strangers = load_strangers(args.data, data, codec, args.out, args.workers, ranks.device)
    speakers, usual = find_voices(train, data["voice_frames"]), usual_frames(train)
    recitals = Recitals(config, train, speakers, usual, data, hp["seed"], ranks)
    dev = Recitals(config, held_out, speakers, usual, data, hp["seed"]).dev_ways()
    others = Recitals(config, strangers, [], usual, data, hp["seed"]) if strangers else None
    unknown = [alone for _, _, alone in others.dev_ways()] if others else []
    hours = len(recitals.codes) * codec.config.frame_size / codec.config.sample_rate / 3600
    told = f"{hours:.2f} hours of speech, {len(speakers)} voices"
    if ranks.leads:
        print(f"{told}, encoded in {time.monotonic() - began:.0f} s", flush=True)

    torch.set_float32_matmul_precision("high")  # codes were made in float32
    torch.manual_seed(hp["seed"])
    talker = Talker(config, len(speakers), hp["noise"], ranks)
    if args.init:
        talker.begin_from(args.init, speakers)  # on the CPU, where it leaves the weights
    talker.to(ranks.device)
    settings = {name: hp[name] for name in ("lr", "weight_decay", "ema")}
    run = Run(talker, talker, betas=(0.9, 0.98), **settings)
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        run.load(checkpoint)
        if ranks.leads:
            print(f"resumed at step {run.step}", flush=True)
    if args.compile and ranks.count > 1:
        compile_layers(talker)
    elif args.compile:
        capture(talker, recitals.recital(run.step).to(run.device))
    model = ranks.wrap(talker, halved=args.halve_gradients)
    weights = torch.tensor([*hp["group_weights"][: config.num_groups], hp["ends_weight"]])
    weights = weights.to(run.device)

    journal = Journal(args.out, run.step, tensorboard=args.tensorboard, ranks=ranks)
    bar = StepBar(hp["steps"], run.step, shown=ranks.leads)
    saved = minutes = ranks.agree((time.monotonic() - began) / 60)
    while run.step < hp["steps"] and minutes < args.minutes:
        progress = run.step / hp["steps"]
        if args.anneal:
            progress = max(progress, minutes / args.minutes)
        cosine = 0.5 + 0.5 * math.cos(math.pi * min(progress, 1.0))
        lr = hp["lr"] * min((run.step + 1) / hp["warmup"], cosine + 0.01)
        recital = recitals.recital(run.step)
        worth = torch.tensor(ranks.shares(recital.counts(config.num_codes)))
        halved = run.device.type == "cuda"
        with torch.autocast(run.device.type, torch.bfloat16, enabled=halved, cache_enabled=False):
            losses = model(recital.to(run.device)) * send(worth, run.device)
        norm = run.advance((losses * weights).sum(), lr, hp["grad_clip"])
        minutes = ranks.agree((time.monotonic() - began) / 60)
        if run.step % hp["log_every"] == 0:
            row = {"step": run.step, "minutes": round(minutes, 3)}
            *groups, ends = ranks.mean(losses).tolist()
            row |= {"norm": norm.item()} | {f"nats_{g}": x for g, x in enumerate(groups)}
            row["ends"] = ends
            if ranks.leads and run.step % hp["dev_every"] == 0:
                row |= score_talker(run.ema, dev, unknown)
            journal.write(row)
            bar.show(run.step, row)
        bar.show(run.step)
        if minutes - saved > args.save_minutes:
            run.save(checkpoint, ranks=ranks)
            saved = minutes

    run.save(checkpoint, ranks=ranks)
    bar.close(), journal.close()
    ranks.leave()  # only the first one goes on
    final = score_talker(run.ema, dev, unknown)
    print(f"step {run.step} of {hp['steps']}, {json.dumps(final)}", flush=True)
    folder = args.out / "model"
    save_generator(folder, "English scripts to speech", run.ema.generator, codec)
    run.ema.save_voices(args.out, speakers, recitals.mean_paces(speakers))
    write_text_card(
        folder,
        f"audiossm evaluate generate --model {folder}",
        run,
        read=told,
        chosen=f"{len(held_out)} recordings that it didn't learn from",
        scores=final,
        unit="bits per frame",
        source="recordings",
    )
    log = args.out / "log.jsonl"
    if log.exists() and not draw_curves([args.out], args.out / "curves.png"):
        print("no curves.png: matplotlib isn't installed")


if __name__ == "__main__":
    sys.exit(run_recipe(main))
