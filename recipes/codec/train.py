"""Train the codec's first stage: encoder, quantiser and decoder by spectral distances and phones.

    python recipes/codec/train.py --data DIR --out DIR
    python recipes/codec/train.py --data DIR --out DIR --recogniser MODEL   # both on one encoder
    python recipes/codec/train.py --smoke --out DIR      # half a minute on a CPU

    torchrun --nproc_per_node 2 --max-restarts 3 recipes/codec/train.py ...

DIR holds the manifests and shards that config.toml names, and perhaps phones.json. A run that was
stopped goes on from its last checkpoint with the same command, on any number of processes, which
share the rows of a batch. README.md has the rest.
"""

import argparse
import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from audiossm.audio import write_audio
from audiossm.checkpoint import save_model
from audiossm.codec import CodecConfig, LoadedCodec
from audiossm.config import change_value, from_dict, load_toml, to_dict
from audiossm.manifest import Utterance
from audiossm.models import RecogniserConfig, save_recogniser
from audiossm.text import Vocabulary
from audiossm.train.augment import mask_spectra
from audiossm.train.card import write_card
from audiossm.train.codec_trainee import CodecTrainee, capture
from audiossm.train.corpus import Batch, Corpus
from audiossm.train.crops import batch_shapes, draw_batch, draw_crops, vary
from audiossm.train.curves import draw_curves
from audiossm.train.journal import Journal, Means
from audiossm.train.lessons import Lessons
from audiossm.train.losses import ctc
from audiossm.train.phones import Phones, read_phones
from audiossm.train.ranks import ALONE, Ranks
from audiossm.train.run import Run
from audiossm.train.scoring import greedy_wer
from audiossm.train.settings import adopt_sets, check_settings
from audiossm.train.sounds import load_sounds
from audiossm.train.spectral import SpectralLoss
from audiossm.train.spoken import load_spoken
from audiossm.train.trainee import Trainee
from audiossm_apps.recipe import StepBar, run_recipe

HERE = Path(__file__).parent
SMOKE_DATA = {"train": ["manifest"], "sounds": [], "dev": ["manifest"], "dev_rows": 4}
SMOKE_DATA |= {"crop_s": 0.64, "crop_rows": 4, "long_s": 4.48, "long_rows": 1}
SMOKE_SPOKEN = {"train": ["manifest"], "dev": ["manifest"], "noise": [], "speeds": [1.0]}
SMOKE_SPOKEN |= {"rows": 4, "row_s": 6.0}
SMOKE_TRAIN = {"steps": 40, "warmup": 5, "lr": 4e-3, "ema": 0.9, "log_every": 5, "dev_every": 20}


def train_step(
    model: nn.Module,
    trainee: CodecTrainee,
    distance: SpectralLoss,
    batch: Batch,
    noise: Corpus | None,
    hp: dict[str, Any],
    ranks: Ranks = ALONE,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of one batch and its parts, whose means over processes are the batch's."""
    codec, frame, device = trainee.codec, trainee.codec.config.frame_size, batch.audio.device
    with torch.no_grad():
        audio = vary(batch.audio, noise, hp["noise_share"], ranks)
        spectra = codec.encoder.stft(audio)
        holes = ranks.rand(len(audio), 1, 1, device=device) < hp["masked_share"]
        spectra = torch.where(holes, mask_spectra(spectra, hp["masks"], ranks), spectra)
        num_groups = ranks.own_rows(codec.quantiser.draw_num_groups(ranks.count * len(audio)))
    on_gpu = device.type == "cuda"
    with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu, cache_enabled=False):
        samples, group = model(spectra, num_groups)
    skip, late = hp["skip_frames"] * frame, codec.delay
    far = distance(samples[:, skip + late :], audio[:, skip : audio.shape[1] - late])
    parts = {"mel": far.mel, "magnitude": far.magnitude}
    loss = hp["mel_weight"] * far.mel + hp["magnitude_weight"] * far.magnitude
    if batch.labels:
        log_probs = trainee.phone_head(group)
        (worth,) = ranks.shares([sum(map(len, batch.labels[0]))])
        frames = (batch.lengths + frame - 1) // frame
        parts["group_phone"] = worth * ctc(log_probs, frames, batch.labels[0])
        loss = loss + hp["phone_weight"] * parts["group_phone"]
    return loss, {name: part.detach() for name, part in parts.items()}


def open_recogniser(
    args: argparse.Namespace, config: CodecConfig, phones: Phones, ranks: Ranks
) -> tuple[Trainee, Corpus, tuple[list[Corpus], Corpus | None, dict[str, Any], dict[str, Any]]]:
    """Return a recogniser to go on with, its dev set, and its lessons, as its own recipe says."""
    table = load_toml(HERE.parent / "transcribe" / "config.toml")
    data, hp = table["data"], table["train"]
    sizes = from_dict(RecogniserConfig, table["recogniser"], "recogniser")
    if args.smoke:
        sizes, data, hp = RecogniserConfig.tiny(), data | SMOKE_SPOKEN, hp | {"warmup": 5}
    data = adopt_sets(data, args.data)
    sizes = replace(sizes, phones=phones.symbols, encoder=config.encoder)
    student = Trainee(sizes).to(ranks.device)
    if args.recogniser != "new":
        student.begin_from(args.recogniser)
    vocabulary = Vocabulary(sizes.pieces)
    with ranks.in_turn():
        train, dev, noise = load_spoken(
            args.data, data, vocabulary, phones, args.out, args.workers, ranks.device
        )
    return student, dev, (train, noise, data, hp)


@torch.no_grad()
def measure(
    kept: nn.ModuleDict, audio: Tensor, distance: SpectralLoss, dev: Corpus
) -> dict[str, float]:
    """Return the mel distance of decoded dev audio from each number of groups, and dev WER.

    The audio is that of ``dev_rows`` utterances, the error rate that of the recogniser's whole dev.
    """
    codec: Any = kept["codec"]
    counts = codec.quantiser.group_counts.tolist()
    found = {
        f"dev_mel_{g}": distance(codec.reconstruct(audio, g), audio).mel.item() for g in counts
    }
    if "recogniser" in kept:
        network: Any = kept["recogniser"]
        found["dev_wer"] = greedy_wer(network, dev)
    return found


def main() -> None:
    """Load, train, measure, export, decode a sample."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "tests" / "speech")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=HERE / "config.toml")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    parser.add_argument("--init", help="begin from this codec, or this recogniser's encoder")
    parser.add_argument("--name", default="codec", help="the model's: other models ask for it")
    parser.add_argument("--recogniser", help="train it, or a 'new' one, on the same encoder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after, to be resumed")
    parser.add_argument("--save-minutes", type=float, default=5.0, help="between checkpoints")
    parser.add_argument(
        "--compile", action="store_true", help="CUDA: capture the network as graphs"
    )
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
    config = from_dict(CodecConfig, table["codec"], "codec")
    data, hp = table["data"], table["train"]
    shapes = batch_shapes(data, ranks)
    if args.smoke:
        config = CodecConfig.tiny()
    torch.set_float32_matmul_precision("high")
    phones_file = args.data / "phones.json"
    phones = read_phones(phones_file) if phones_file.exists() else Phones((), {})

    def label(utterance: Utterance) -> list[int]:
        return phones.by_key.get(utterance.key, [])  # no transcript, no phone term

    with ranks.in_turn():
        train, dev, noise = load_sounds(
            args.data, data, label, args.out, args.workers, ranks.device
        )
    dev_audio = draw_crops(dev, data["dev_rows"], 64000, np.random.default_rng(0))
    if ranks.leads:
        print(f"{train.hours:.2f} h, decoded in {time.monotonic() - began:.0f} s", flush=True)

    torch.manual_seed(hp["seed"])
    trainee = CodecTrainee(config, len(phones.symbols)).to(ranks.device)
    if args.init:
        trainee.begin_from(args.init)
    trainees: dict[str, nn.Module] = {"codec": trainee}
    products: dict[str, nn.Module] = {"codec": trainee.codec}
    if args.recogniser:
        student, dev, spoken = open_recogniser(args, config, phones, ranks)
        trainee.codec.encoder = student.recogniser.encoder
        trainees["recogniser"], products["recogniser"] = student, student.recogniser
    settings = {name: hp[name] for name in ("lr", "weight_decay", "ema")}
    whole, kept = nn.ModuleDict(trainees), nn.ModuleDict(products)
    run = Run(whole, kept, betas=(0.8, 0.99), ranks=ranks, **settings)
    checkpoint = args.out / "checkpoint.pt"
    before = run.load(checkpoint) if checkpoint.exists() else None
    distance = SpectralLoss(config.sample_rate).to(ranks.device)
    captured = capture(trainee, shapes) if args.compile else {}
    lessons = None
    if args.recogniser:
        # two losses meet in one encoder, so gradients are averaged once both have come: by the run
        lessons = Lessons(
            student, *spoken, step=run.step, captured=args.compile, ranks=ranks, wrapped=False
        )
        if before is not None:
            lessons.load_state_dict(before)
    if ranks.leads:
        print(f"begins at step {run.step}, {time.monotonic() - began:.0f} s", flush=True)

    journal = Journal(args.out, run.step, tensorboard=args.tensorboard, ranks=ranks)
    means = Means()
    bar = StepBar(hp["steps"], run.step, shown=ranks.leads)
    saved = minutes = ranks.agree((time.monotonic() - began) / 60)
    while run.step < hp["steps"] and minutes < args.minutes:
        cosine = 0.5 + 0.5 * math.cos(math.pi * run.step / hp["steps"])
        lr = hp["lr"] * min((run.step + 1) / hp["warmup"], cosine + 0.01)
        batch = draw_batch(train, data, bool(phones.symbols), hp["seed"], run.step, ranks)
        model = captured.get((*batch.audio.shape,), trainee)
        loss, parts = train_step(model, trainee, distance, batch, noise, hp, ranks)
        if lessons is not None:
            heard, more = lessons.next_loss()
            loss, parts = hp["beside_recogniser"] * loss + heard, parts | more
        norm = run.advance(loss, lr, hp["grad_clip"])
        means.add({"norm": norm} | parts)
        minutes = ranks.agree((time.monotonic() - began) / 60)
        if run.step % hp["log_every"] == 0:
            parts = {name: ranks.mean(part) for name, part in means.take().items()}
            row = {"step": run.step, "minutes": round(minutes, 2)}
            row |= {name: part.item() for name, part in parts.items()}
            if ranks.leads and run.step % hp["dev_every"] == 0:
                row |= measure(run.ema, dev_audio, distance, dev)
            journal.write(row)
            bar.show(run.step, row)
        bar.show(run.step)
        if minutes - saved > args.save_minutes:
            run.save(checkpoint, lessons.state_dict() if lessons else None, ranks)
            saved = minutes

    run.save(checkpoint, lessons.state_dict() if lessons else None, ranks)
    bar.close(), journal.close()
    ranks.leave()  # only the first one goes on
    reached = measure(run.ema, dev_audio, distance, dev)
    print(f"step {run.step} of {hp['steps']}, {reached}", flush=True)
    export(args, run, train, dev_audio, reached)


def export(
    args: argparse.Namespace,
    run: Run[nn.ModuleDict],
    train: Corpus,
    audio: Tensor,
    reached: dict[str, float],
) -> None:
    """Save the codec, the recogniser that stands on it, a sample before and after, and curves."""
    out, log, codec = args.out, args.out / "log.jsonl", run.ema["codec"]
    rate = codec.config.bits_per_second
    description = f"16 kHz speech at {rate:.0f} bits/s, trained on {train.hours:.1f} h"
    tables = {"codec": to_dict(codec.config)}
    save_model(out / args.name, "codec", description, tables, codec.state_dict())
    command = f"audiossm evaluate codec MANIFEST.jsonl --model {out / args.name}"
    write_card(out / args.name, command, codec, train, log, run.device, reached)
    loaded = LoadedCodec.load(out / args.name)
    if "recogniser" in run.ema:
        description = "English speech to lower-case words, trained together with its codec"
        save_recogniser(out / "recogniser", description, run.ema["recogniser"], loaded)
    original = audio[:1].cpu()
    heard = torch.cat([original, loaded.network.reconstruct(original)], dim=1)
    write_audio(out / "sample.wav", heard.numpy(), loaded.config.sample_rate)
    if log.exists() and not draw_curves([out], out / "curves.png"):
        print("no curves.png: matplotlib isn't installed")


if __name__ == "__main__":
    sys.exit(run_recipe(main))
