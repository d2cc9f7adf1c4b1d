"""Train the codec's second stage: the decoder with a voice's source, and what makes codes.

    python recipes/codec/train_decoder.py --data DIR --out DIR --init MODEL
    python recipes/codec/train_decoder.py --smoke --out DIR      # half a minute on a CPU

    torchrun --nproc_per_node 2 --max-restarts 3 recipes/codec/train_decoder.py ...

The encoder stays as it is, so what stands on the frames keeps working; with train_codes = false
codes keep their meaning too. DIR holds the manifests and shards that its data.toml, or config.toml,
names. A run that was stopped goes on from its last checkpoint with the same command, on any number
of processes, which share the rows of a batch. README.md has the rest.
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
from torch import Tensor

from audiossm.audio import write_audio
from audiossm.checkpoint import save_model
from audiossm.codec import Codec, CodecConfig, DetailConfig, LoadedCodec, SourceConfig
from audiossm.config import change_value, from_dict, load_toml, to_dict
from audiossm.errors import ConfigError
from audiossm.train.card import write_card
from audiossm.train.corpus import Corpus
from audiossm.train.crops import batch_shapes, draw_batch, draw_crops, vary
from audiossm.train.curves import draw_curves
from audiossm.train.decoder_trainee import DecoderTrainee
from audiossm.train.duel import Duel
from audiossm.train.journal import Journal
from audiossm.train.ranks import Ranks
from audiossm.train.settings import adopt_sets, check_settings
from audiossm.train.sounds import load_sounds
from audiossm.train.spectral import SpectralLoss
from audiossm_apps.recipe import run_recipe

HERE = Path(__file__).parent
SMOKE_DATA = {"train": ["manifest"], "sounds": [], "dev": ["manifest"], "dev_rows": 4}
SMOKE_TRAIN = {
    "steps": 12,
    "warmup": 2,
    "discriminators": True,
    "head_start": 4,
    "lr": 4e-3,
    "ema": 0.8,
    "log_every": 2,
}
SMOKE_TRAIN |= {"codes_lr": 1e-3, "codes_warmup": 4, "dev_every": 6, "crop_rows": 2, "crop_s": 0.64}
SMOKE_TRAIN |= {"long_rows": 1, "long_s": 1.28}
SMOKE_TRAIN |= {"detail": {"d_model": 16, "d_hidden": 24, "num_blocks": 1}, "pitch_told": 8}
SMOKE_TRAIN |= {"source": {"pitch": {"context": 2, "d_hidden": 16}}}


@torch.no_grad()
def measure(codec: Codec, audio: Tensor, distance: SpectralLoss) -> dict[str, float]:
    """Return the mel distance of decoded dev audio from each number of groups."""
    counts = codec.quantiser.group_counts.tolist()
    return {f"dev_mel_{g}": distance(codec.reconstruct(audio, g), audio).mel.item() for g in counts}


def open_codec(args: argparse.Namespace, hp: dict[str, Any]) -> Codec:
    """Return the codec to go on with; one without a source, or a detail branch, gets it."""
    codec = LoadedCodec.load(args.init).network if args.init else Codec(CodecConfig.tiny())
    config = codec.config
    if hp["detail"] and hp["train_codes"] and config.detail is None:
        branch = from_dict(DetailConfig, hp["detail"], "second_stage.detail")
        config = replace(config, detail=branch)
    if hp["source"] and config.decoder.source is None:
        source = from_dict(SourceConfig, hp["source"], "second_stage.source")
        config = replace(config, decoder=replace(config.decoder, source=source))
    if config == codec.config:
        return codec
    grown = Codec(config)
    grown.load_state_dict(codec.state_dict(), strict=False)
    return grown


def main() -> None:
    """Load, train, measure, export, decode a sample."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "tests" / "speech")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=HERE / "config.toml")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    parser.add_argument("--init", help="the codec of the first stage: a name or a folder")
    parser.add_argument("--name", default="codec", help="the model's: other models ask for it")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after, to be resumed")
    parser.add_argument("--save-minutes", type=float, default=5.0, help="between checkpoints")
    parser.add_argument(
        "--compile", action="store_true", help="CUDA: capture whole steps as graphs"
    )
    parser.add_argument("--smoke", action="store_true", help="a tiny network on the test audio")
    args = parser.parse_args()
    if not args.init and not args.smoke:
        parser.error("needs --init: the codec of the first stage")
    if args.compile and torch.device(args.device).type != "cuda":
        parser.error(f"--compile captures CUDA graphs, but the device is {args.device}")
    began = time.monotonic()
    ranks = Ranks.join(args.device)
    args.out.mkdir(parents=True, exist_ok=True)

    table = load_toml(args.config)
    if args.smoke:
        table["data"] |= SMOKE_DATA
        table["second_stage"] |= SMOKE_TRAIN
    table["data"] = adopt_sets(table["data"], args.data)
    for change in args.set:
        change_value(table, change)
    check_settings(table, HERE / "config.toml", ("data", "second_stage"))
    data, hp = table["data"], table["second_stage"]
    data |= {name: hp[name] for name in ("crop_s", "crop_rows", "long_s", "long_rows")}
    batch_shapes(data, ranks)  # refuses what can't be shared, before anything is decoded
    if args.compile and ranks.count > 1:
        raise ConfigError(
            f"--compile captures whole steps, within which {ranks.count} processes would exchange "
            "gradients: leave it out"
        )
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(hp["seed"])
    codec = open_codec(args, hp).to(ranks.device)
    with ranks.in_turn():
        train, dev, noise = load_sounds(
            args.data, data, lambda utterance: [], args.out, args.workers, ranks.device
        )
    dev_audio = draw_crops(dev, data["dev_rows"], 64000, np.random.default_rng(0))
    if ranks.leads:
        print(f"{train.hours:.2f} h, decoded in {time.monotonic() - began:.0f} s", flush=True)

    trainee = DecoderTrainee(codec, hp["skip_frames"], train_codes=hp["train_codes"], ranks=ranks)
    duel = Duel(trainee.to(ranks.device), hp, captured=args.compile)
    checkpoint = args.out / "decoder.pt"
    duel.load(checkpoint)
    if ranks.leads:
        print(f"begins at step {duel.step}, {time.monotonic() - began:.0f} s", flush=True)

    journal = Journal(args.out, duel.step, ranks=ranks)
    saved = minutes = ranks.agree((time.monotonic() - began) / 60)
    while duel.step < hp["steps"] and minutes < args.minutes:
        step = duel.step
        cosine = 0.5 + 0.5 * math.cos(math.pi * step / hp["steps"])
        pace = min((step + 1) / hp["warmup"], cosine + 0.01)
        drawn = draw_batch(train, data, False, hp["seed"], step, ranks).audio
        audio = vary(drawn, noise, hp["noise_share"], ranks)
        num_groups = codec.quantiser.draw_num_groups(ranks.count * len(audio))
        duel.advance(audio, ranks.own_rows(num_groups), pace)
        minutes = ranks.agree((time.monotonic() - began) / 60)
        if duel.step % hp["log_every"] == 0:
            row = {"step": duel.step, "minutes": round(minutes, 2)} | duel.read()
            if ranks.leads and duel.step % hp["dev_every"] == 0:
                row |= measure(duel.voice.ema, dev_audio, duel.spectral)
            journal.write(row)
        if minutes - saved > args.save_minutes:
            duel.save(checkpoint)
            saved = minutes

    duel.save(checkpoint)
    journal.close()
    ranks.leave()  # only the first one goes on
    reached = measure(duel.voice.ema, dev_audio, duel.spectral)
    print(f"step {duel.step} of {hp['steps']}, {reached}", flush=True)
    export(args, duel.voice.ema, train, dev_audio, duel.device)


def export(
    args: argparse.Namespace, codec: Codec, train: Corpus, audio: Tensor, device: torch.device
) -> None:
    """Save the codec, a sample before and after, and curves."""
    out, log = args.out, args.out / "log.jsonl"
    description = f"16 kHz speech at {codec.config.bits_per_second:.0f} bits/s, second stage"
    save_model(
        out / args.name, "codec", description, {"codec": to_dict(codec.config)}, codec.state_dict()
    )
    command = f"audiossm evaluate codec MANIFEST.jsonl --model {out / args.name}"
    write_card(out / args.name, command, codec, train, log, device)
    loaded = LoadedCodec.load(out / args.name)
    original = audio[:1].cpu()
    heard = torch.cat([original, loaded.network.reconstruct(original)], dim=1)
    write_audio(out / "sample.wav", heard.numpy(), loaded.config.sample_rate)
    if log.exists() and not draw_curves([out], out / "curves.png"):
        print("no curves.png: matplotlib isn't installed")


if __name__ == "__main__":
    sys.exit(run_recipe(main))
