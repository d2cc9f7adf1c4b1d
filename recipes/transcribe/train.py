r"""Train the recogniser: a Mamba-3 backbone on a codec's encoder, or together with one; CTC.

    python recipes/transcribe/train.py --data DIR --out DIR --codec MODEL
    python recipes/transcribe/train.py --smoke --out DIR      # a minute on a CPU

    torchrun --nproc_per_node 2 --max-restarts 3 recipes/transcribe/train.py ...
    python recipes/transcribe/train.py --config recipes/transcribe/fine_tune.toml --init MODEL \
        --data DIR --out DIR --models 12 --choose MANIFEST    # tune it twelve times and average

DIR holds the manifests and shards that config.toml names, and phones.json by make_phones.py. A run
that was stopped goes on from its last checkpoint with the same command, on any number of processes,
which share the rows of a batch. README.md has the numbers.
"""

import argparse
import copy
import json
import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from audiossm.checkpoint import ModelFolder, read_weights
from audiossm.codec import ForeignCodec, LoadedCodec, load_codec
from audiossm.config import change_value, from_dict, load_toml
from audiossm.errors import ConfigError
from audiossm.manifest import read_manifest
from audiossm.models import Recogniser, RecogniserConfig, save_recogniser
from audiossm.text import Vocabulary
from audiossm.train.card import write_card
from audiossm.train.corpus import Corpus
from audiossm.train.curves import draw_curves
from audiossm.train.journal import Journal, Means
from audiossm.train.lessons import Lessons
from audiossm.train.phones import Phones, read_phones
from audiossm.train.ranks import Ranks
from audiossm.train.run import Run
from audiossm.train.scoring import greedy_wer, transducer_wer
from audiossm.train.settings import adopt_sets, check_settings
from audiossm.train.soup import average, blend
from audiossm.train.spoken import load_spoken
from audiossm.train.trainee import Trainee
from audiossm_apps.recipe import StepBar, run_recipe

HERE = Path(__file__).parent
SMOKE_DATA = {"train": ["manifest"], "dev": ["manifest"], "noise": [], "speeds": [1.0], "rows": 2}
SMOKE_TRAIN = {
    "steps": 30,
    "warmup": 5,
    "consistency_from": 10,
    "ema": 0.9,
    "augment": 0.0,
    "log_every": 5,
}


def errors(network: Recogniser, whole: nn.Module, dev: Corpus) -> dict[str, float]:
    """Return greedy word error rates: CTC's, and the transducer's if ``whole`` has one."""
    found = {"dev_wer": greedy_wer(network, dev)}
    if isinstance(whole, Trainee) and whole.transducer is not None:
        found["dev_wer_transducer"] = transducer_wer(network, whole.transducer, dev)
    return found


def learn(
    run: Run[nn.Module],
    lessons: Lessons,
    seed: int,
    out: Path,
    dev: Corpus,
    args: argparse.Namespace,
) -> None:
    """Take the steps of a run that are left, or as many as the minutes allow; ``out`` keeps it."""
    ranks, hp, checkpoint = lessons.ranks, lessons.hp, out / "checkpoint.pt"
    out.mkdir(parents=True, exist_ok=True)
    before = run.load(checkpoint) if checkpoint.exists() else None
    lessons.begin(seed, run.step)
    if before is not None:
        lessons.load_state_dict(before)
        if ranks.leads:
            print(f"resumed at step {run.step}", flush=True)
    averaged = recogniser_of(run.ema)
    journal = Journal(out, run.step, tensorboard=args.tensorboard, ranks=ranks)
    means = Means()
    bar = StepBar(hp["steps"], run.step, shown=ranks.leads)
    saved = minutes = ranks.agree((time.monotonic() - args.began) / 60)
    while run.step < hp["steps"] and minutes < args.minutes:
        progress = run.step / hp["steps"]
        if args.anneal:
            progress = max(progress, minutes / args.minutes)
        cosine = 0.5 + 0.5 * math.cos(math.pi * min(progress, 1.0))
        lr = hp["lr"] * min((run.step + 1) / hp["warmup"], cosine + 0.01)
        loss, parts = lessons.next_loss()
        norm = run.advance(loss, lr, hp["grad_clip"])
        means.add(parts)
        minutes = ranks.agree((time.monotonic() - args.began) / 60)
        if run.step % hp["log_every"] == 0:
            parts = {name: ranks.mean(part) for name, part in means.take().items()}
            row = {"step": run.step, "minutes": round(minutes, 4), "norm": norm.item()}
            row |= {name: part.item() for name, part in parts.items()}
            if ranks.leads and run.step % hp["dev_every"] == 0:
                row |= errors(averaged, run.ema, dev)
            journal.write(row)
            bar.show(run.step, row)
        bar.show(run.step)
        if minutes - saved > args.save_minutes:
            run.save(checkpoint, lessons.state_dict(), ranks)
            saved = minutes
    run.save(checkpoint, lessons.state_dict(), ranks)
    bar.close(), journal.close()


def learn_often(
    run: Run[nn.Module],
    lessons: Lessons,
    places: list[Path],
    codec: LoadedCodec | None,
    dev: Corpus,
    args: argparse.Namespace,
) -> int:
    """Train a model into each folder, all from the same weights, then keep their average.

    Returns:
        how many are made; if the minutes end before the last one, the run is left as it is.
    """
    network = recogniser_of(run.ema)
    part = network if codec is None else network.above_encoder()
    begun = copy.deepcopy(lessons.trainee.state_dict())
    base = {name: value.cpu().clone() for name, value in part.state_dict().items()}
    for seed, place in enumerate(places, lessons.hp["seed"]):
        model, checkpoint = place / "model", place / "checkpoint.pt"
        if model.exists() and not checkpoint.exists():
            continue  # it is made: the checkpoint goes last
        torch.manual_seed(seed)
        lessons.trainee.load_state_dict(begun)
        run.restart()
        learn(run, lessons, seed, place, dev, args)
        if run.step < lessons.hp["steps"]:
            return places.index(place)
        save_recogniser(model, f"seed {seed} of {len(places)} models", network, codec)
        checkpoint.unlink()
    made = {str(place): read_weights(ModelFolder.open(place / "model")) for place in places}
    if args.choose:
        corpus = Corpus.load(read_manifest(args.choose), (), (), args.workers).to(str(run.device))
        mean = blend(made, base, network, part, corpus, args.workers)
    else:
        mean = average(list(made.values()))
    part.load_state_dict(mean)
    return len(places)


def recogniser_of(kept: nn.Module) -> Recogniser:
    """Return the recogniser in what a run keeps: it, or the trainee, whose transducer goes on."""
    network = kept.recogniser if isinstance(kept, Trainee) else kept
    assert isinstance(network, Recogniser)
    return network


def main() -> None:
    """Load, train, evaluate, export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "tests" / "speech")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=HERE / "config.toml")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    front = parser.add_mutually_exclusive_group()
    front.add_argument("--codec", help="stand on this codec's encoder; transformers:NAME: hear it")
    parser.add_argument("--init", help="begin from this recogniser: a name or a folder")
    front.add_argument("--log-mel", action="store_true", help="a control: no spectra, mels alone")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after, to be resumed")
    parser.add_argument("--save-minutes", type=float, default=5.0, help="between checkpoints")
    parser.add_argument("--halve-gradients", action="store_true", help="sent as bfloat16")
    parser.add_argument("--anneal", action="store_true", help="the rate falls by --minutes' end")
    graphs = parser.add_mutually_exclusive_group()
    graphs.add_argument("--compile", action="store_true", help="CUDA: compile and capture")
    graphs.add_argument("--capture", action="store_true", help="CUDA: capture what isn't compiled")
    parser.add_argument("--models", type=int, default=1, help="so many, averaged (%(default)s)")
    parser.add_argument("--choose", type=Path, metavar="MANIFEST", help="average what helps on it")
    parser.add_argument("--tensorboard", action="store_true", help="events in OUT/tensorboard")
    parser.add_argument("--smoke", action="store_true", help="a tiny network on the test audio")
    args = parser.parse_args()
    if (args.compile or args.capture) and not args.device.startswith("cuda"):
        parser.error(f"--compile and --capture need a CUDA device, but --device is {args.device}")
    if args.models < 1:
        parser.error(f"--models is {args.models}, expected 1 or more")
    if args.models > 1 and not args.init:
        parser.error("--models needs --init: only what began alike can be averaged")
    if args.models > 1 and args.anneal:
        parser.error("--models and --anneal: each model takes train.steps steps")
    if args.choose and args.models < 2:
        parser.error("--choose needs --models: several that it can choose from")
    if args.choose:
        read_manifest(args.choose)  # what is wrong with it is told now, not after an hour
    args.began = time.monotonic()
    ranks = Ranks.join(args.device)
    if args.models > 1 and ranks.count > 1:
        parser.error("--models trains one after the other: without torchrun")
    args.out.mkdir(parents=True, exist_ok=True)

    table = load_toml(args.config)
    if args.smoke:
        table["data"] |= SMOKE_DATA
        table["train"] |= SMOKE_TRAIN
    table["data"] = adopt_sets(table["data"], args.data)
    begun = None
    if args.init and "recogniser" not in table:  # fine-tuning: sizes and codec are the model's
        begun = ModelFolder.open(args.init).config
        table["recogniser"] = begun["recogniser"]
        args.codec = args.codec or begun.get("codec", {}).get("name")
    for change in args.set:
        change_value(table, change)
    check_settings(table, HERE / "config.toml", ("data", "train"))
    if "recogniser" not in table:
        parser.error(f"{args.config} has no table [recogniser]: name a model with --init")
    config = from_dict(RecogniserConfig, table["recogniser"], "recogniser")
    data, hp = table["data"], table["train"]
    if args.smoke:
        config = RecogniserConfig.tiny()
    torch.set_float32_matmul_precision("high")
    phones_file = args.data / "phones.json"
    phones = read_phones(phones_file) if phones_file.exists() else Phones((), {})
    if args.init and set(phones.symbols) <= set(config.phones):
        phones = phones.in_order(config.phones)  # so the model's head of phones is gone on with
    if begun and phones.symbols != config.phones:
        raise ConfigError(
            f"{phones_file}: lacks the phones that model {args.init!r} tells, or has others: "
            "audiossm prepare writes them"
        )
    config = replace(config, phones=phones.symbols)
    codec = load_codec(args.codec) if args.codec else None
    heard_codec = codec if isinstance(codec, ForeignCodec) else None
    codec = None if heard_codec else codec
    if args.log_mel:
        config = replace(config, encoder=replace(config.encoder, spectra="none"))
    if codec is not None:
        config = replace(config, encoder=codec.config.encoder)
    vocabulary = Vocabulary(config.pieces)
    with ranks.in_turn():
        train, dev, noise = load_spoken(
            args.data, data, vocabulary, phones, args.out, args.workers, ranks.device, heard_codec
        )
    # one corpus for each speed: as it was spoken, or nearly
    heard = min(zip(train, data["speeds"], strict=True), key=lambda pair: abs(pair[1] - 1))[0]
    if ranks.leads:
        print(f"{heard.hours:.2f} h, decoded in {time.monotonic() - args.began:.0f} s", flush=True)

    torch.manual_seed(hp["seed"])
    if args.models > 1 and hp["transducer_weight"]:
        raise ConfigError("--models averages recognisers: set train.transducer_weight to 0.0")
    trainee = Trainee(config, transducer=hp["transducer_weight"] > 0).to(ranks.device)
    if args.init:
        trainee.begin_from(args.init)
    if codec is not None:
        trainee.recogniser.encoder = codec.network.encoder.to(ranks.device)
    settings = {name: hp[name] for name in ("lr", "weight_decay", "ema")}
    kept = trainee if trainee.transducer is not None else trainee.recogniser
    run: Run[nn.Module] = Run(trainee, kept, betas=(0.9, 0.98), **settings)
    captured = args.compile or args.capture
    lessons = Lessons(
        trainee, train, noise, data, hp, step=0, captured=captured, compiled=args.compile,
        ranks=ranks, halved=args.halve_gradients,
    )  # fmt: skip
    averaged = recogniser_of(run.ema)
    places = [args.out]
    if args.models == 1:
        learn(run, lessons, hp["seed"], args.out, dev, args)
        done = f"step {run.step} of {hp['steps']}"
    else:
        places = [args.out / "models" / str(number) for number in range(args.models)]
        made = learn_often(run, lessons, places, codec, dev, args)
        if made < args.models:
            print(f"{made} of {args.models} models are made: the same command goes on")
            return
        done = f"average of {made} models"
    ranks.leave()  # only the first one goes on
    final = errors(averaged, run.ema, dev)
    print(f"{done}, dev WER {final['dev_wer']:.4f}", flush=True)
    if len(final) > 1:
        print(json.dumps(final), flush=True)
    description = f"English speech to lower-case words, trained on {heard.hours:.1f} h"
    if args.models > 1:
        description += f", an average of {args.models} models"
    if heard_codec is not None:
        description += f", heard through {heard_codec.name}"
    save_recogniser(args.out / "model", description, averaged, codec)
    command = f"audiossm evaluate transcribe MANIFEST.jsonl --model {args.out / 'model'}"
    log = places[-1] / "log.jsonl"
    write_card(args.out / "model", command, averaged, heard, log, run.device, final)
    if log.exists() and not all(draw_curves([place], place / "curves.png") for place in places):
        print("no curves.png: matplotlib isn't installed")


if __name__ == "__main__":
    sys.exit(run_recipe(main))
