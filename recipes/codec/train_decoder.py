"""Train the codec's second stage: the decoder alone, against discriminators.

    python recipes/codec/train_decoder.py --data DIR --out DIR --init MODEL
    python recipes/codec/train_decoder.py --smoke --out DIR      # half a minute on a CPU

Encoder and quantiser stay as they are, so codes keep their meaning and what stands on the frames
keeps working. DIR holds the manifests and shards that config.toml names. A run that was stopped
goes on from its last checkpoints with the same command. README.md has the rest.
"""

import argparse
import json
import math
import os
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiossm.audio import write_audio
from audiossm.checkpoint import save_model
from audiossm.codec import Codec, CodecConfig, DetailConfig, LoadedCodec
from audiossm.config import from_dict, load_toml, to_dict
from audiossm.train.adversarial import fooling_loss, matching_loss, telling_loss
from audiossm.train.card import write_card
from audiossm.train.corpus import Corpus
from audiossm.train.crops import batch_shapes, draw_batch, draw_crops, vary
from audiossm.train.curves import draw_curves
from audiossm.train.decoder_trainee import DecoderTrainee, capture
from audiossm.train.phase import PhaseLoss
from audiossm.train.run import Run
from audiossm.train.sounds import load_sounds
from audiossm.train.spectral import SpectralLoss

HERE = Path(__file__).parent
SAVE_MINUTES = 5
SMOKE_DATA = {"train": ["manifest"], "sounds": [], "dev": ["manifest"], "dev_rows": 4}
SMOKE_TRAIN = {"steps": 12, "warmup": 2, "head_start": 4, "lr": 4e-3, "ema": 0.8, "log_every": 2}
SMOKE_TRAIN |= {"dev_every": 6, "crop_rows": 2, "long_rows": 1, "crop_s": 0.64}
SMOKE_TRAIN |= {"long_s": 1.28, "detail": {"d_model": 16, "d_hidden": 24, "num_blocks": 1}}


@torch.no_grad()
def measure(codec: Codec, audio: Tensor, distance: SpectralLoss) -> dict[str, float]:
    """Return the mel distance of decoded dev audio from each number of groups."""
    counts = codec.quantiser.group_counts.tolist()
    return {f"dev_mel_{g}": distance(codec.reconstruct(audio, g), audio).mel.item() for g in counts}


def open_codec(args: argparse.Namespace, detail: dict[str, Any] | None) -> Codec:
    """Return the codec to go on with; with ``detail`` one that has none gets the branch."""
    codec = LoadedCodec.load(args.init).network if args.init else Codec(CodecConfig.tiny())
    if detail is None or codec.detail is not None:
        return codec
    branch = from_dict(DetailConfig, detail, "second_stage.detail")
    grown = Codec(replace(codec.config, detail=branch))
    grown.load_state_dict(codec.state_dict(), strict=False)
    return grown


def main() -> None:
    """Load, train, measure, export, decode a sample."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "tests" / "speech")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=HERE / "config.toml")
    parser.add_argument("--init", help="the codec of the first stage: a name or a folder")
    parser.add_argument("--name", default="codec", help="the model's: other models ask for it")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after, to be resumed")
    parser.add_argument(
        "--compile", action="store_true", help="CUDA: capture the networks as graphs"
    )
    parser.add_argument("--smoke", action="store_true", help="a tiny network on the test audio")
    args = parser.parse_args()
    if not args.init and not args.smoke:
        parser.error("needs --init: the codec of the first stage")
    began = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)

    table = load_toml(args.config)
    data, hp = table["data"], table["second_stage"]
    if args.smoke:
        data, hp = data | SMOKE_DATA, hp | SMOKE_TRAIN
    data |= {name: hp[name] for name in ("crop_s", "crop_rows", "long_s", "long_rows")}
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(hp["seed"])
    codec = open_codec(args, hp.get("detail")).to(args.device)
    train, dev, noise = load_sounds(
        args.data, data, lambda utterance: [], args.out, args.workers, args.device
    )
    dev_audio = draw_crops(dev, data["dev_rows"], 64000, np.random.default_rng(0))
    print(f"{train.hours:.2f} h, decoded in {time.monotonic() - began:.0f} s", flush=True)

    trainee = DecoderTrainee(codec, hp["skip_frames"], train_codes=hp["train_codes"])
    trainee.to(args.device)
    settings = {name: hp[name] for name in ("lr", "weight_decay", "ema")}
    voice = Run(codec, codec, betas=(0.8, 0.99), **settings)
    judges = Run(trainee.judges, trainee.judges, betas=(0.8, 0.99), **settings)
    checkpoint, other = args.out / "decoder.pt", args.out / "judges.pt"
    if checkpoint.exists():
        judges.load(other)
        voice.load(checkpoint)
    distance = SpectralLoss(codec.config.sample_rate).to(args.device)
    phase_distance = PhaseLoss().to(args.device)
    captured = capture(trainee, batch_shapes(data)) if args.compile else {}
    print(f"begins at step {voice.step}, {time.monotonic() - began:.0f} s", flush=True)

    def halved() -> torch.autocast:
        kind = codec.to_latent.weight.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda", cache_enabled=False)

    saved, sums = began, defaultdict[str, list[Tensor]](list)
    while voice.step < hp["steps"] and (time.monotonic() - began) / 60 < args.minutes:
        step = voice.step
        cosine = 0.5 + 0.5 * math.cos(math.pi * step / hp["steps"])
        pace = min((step + 1) / hp["warmup"], cosine + 0.01)
        audio = vary(
            draw_batch(train, data, False, hp["seed"], step).audio, noise, hp["noise_share"]
        )
        speak, tell = captured.get((*audio.shape,), (trainee.speak, trainee.tell))
        with halved():
            decoded = speak(*trainee.hear(audio))
            recorded = trainee.in_time(audio)
            telling = telling_loss(tell(torch.cat([recorded, decoded.detach()])))
        judges.advance(telling, hp["judges_lr"] * pace, hp["grad_clip"])
        far, apart = distance(decoded, recorded), phase_distance(decoded, recorded)
        parts = {"mel": far.mel, "spectra": apart.spectra, "drift": apart.drift}
        loss = torch.stack([hp[f"{name}_weight"] * part for name, part in parts.items()]).sum()
        parts["telling"] = telling
        if step >= hp["head_start"]:
            with halved():
                judgements = tell(torch.cat([recorded, decoded]))
            parts |= {"fooling": fooling_loss(judgements), "matching": matching_loss(judgements)}
            for name in ("fooling", "matching"):
                loss = loss + hp[f"{name}_weight"] * parts[name]
        parts["norm"] = voice.advance(loss, hp["lr"] * pace, hp["grad_clip"])
        for name, part in parts.items():
            sums[name].append(part.detach())
        if voice.step % hp["log_every"] == 0:
            row = {"step": voice.step, "minutes": round((time.monotonic() - began) / 60, 2)}
            row |= {name: torch.stack(several).mean().item() for name, several in sums.items()}
            sums.clear()
            if voice.step % hp["dev_every"] == 0:
                row |= measure(voice.ema, dev_audio, distance)
            print(json.dumps(row), flush=True)
            with (args.out / "log.jsonl").open("a") as log:
                print(json.dumps(row), file=log)
        if time.monotonic() - saved > 60 * SAVE_MINUTES:
            judges.save(other)
            voice.save(checkpoint)
            saved = time.monotonic()

    judges.save(other)
    voice.save(checkpoint)
    reached = measure(voice.ema, dev_audio, distance)
    print(f"step {voice.step} of {hp['steps']}, {reached}", flush=True)
    export(args, voice.ema, train, dev_audio, voice.device)


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
    main()
