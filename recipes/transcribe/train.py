"""Train the recogniser: codec encoder and Mamba-3 backbone together, CTC, on one device.

    python recipes/transcribe/train.py --data DIR --out DIR
    python recipes/transcribe/train.py --smoke --out DIR      # a minute on a CPU

DIR holds the manifests and shards that config.toml names, and phones.json by make_phones.py. A run
that was stopped goes on from its last checkpoint with the same command. README.md has the numbers.
"""

import argparse
import json
import math
import os
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audiossm.checkpoint import ModelFolder, load_weights, save_model
from audiossm.config import from_dict, load_toml, to_dict
from audiossm.errors import ManifestError
from audiossm.manifest import Utterance
from audiossm.models import Recogniser, RecogniserConfig
from audiossm.text import Vocabulary, normalise_text
from audiossm.train.augment import augment_audio, mask_spectra
from audiossm.train.corpus import Batch, Corpus, pack_rows, read_manifests
from audiossm.train.losses import consistency, ctc, send
from audiossm.train.phones import Phones, read_phones
from audiossm.train.run import Run
from audiossm.train.scoring import greedy_wer
from audiossm.train.trainee import Trainee

HERE = Path(__file__).parent
SAVE_MINUTES = 5
SMOKE_DATA = {"train": ["manifest"], "dev": ["manifest"], "noise": [], "speeds": [1.0], "rows": 2}
SMOKE_TRAIN = {
    "steps": 30,
    "warmup": 5,
    "consistency_from": 10,
    "ema": 0.9,
    "augment": 0.0,
    "log_every": 5,
}


def load_corpus(
    data: dict[str, Any], args: argparse.Namespace, pieces: tuple[str, ...], phones: Phones
) -> tuple[list[Corpus], Corpus, Corpus | None]:
    """Decode all sets: training (one corpus for each speed), dev and noise."""
    vocabulary = Vocabulary(pieces)

    def letters(utterance: Utterance) -> list[int]:
        return vocabulary.encode(normalise_text(utterance.text))

    def spoken(names: list[str]) -> list[Utterance]:
        # digits aren't spelled out, so such a transcript doesn't say what is heard
        heard = [u for u in read_manifests(args.data, names) if normalise_text(u.text)]
        return [u for u in heard if not any(map(str.isdigit, u.text))]

    def load(name: str, utterances: list[Utterance], **labels: Any) -> Corpus:
        none: dict[str, Any] = {"labellers": (), "joints": ()}
        cache = args.out / f"{name}.pt"
        corpus = Corpus.load(utterances, workers=args.workers, cache=cache, **(none | labels))
        return corpus.to(args.device)

    labellers, joints = (letters, phones.label), ([vocabulary.word_break], [])
    train = load("train", spoken(data["train"]), labellers=labellers, joints=joints)
    noise = read_manifests(args.data, data["noise"])[::2]
    return (
        [train.at_speed(speed) for speed in data["speeds"]],
        load("dev", spoken(data["dev"])),
        load("noise", noise) if noise else None,
    )


def batches(
    train: list[Corpus], data: dict[str, Any], hp: dict[str, Any], first: int
) -> Iterator[Batch]:
    """Yield the batch of each step for ever, from step ``first`` on.

    A pass sees each speed once, with other synthetic utterances each time. Once there are two
    views of a row, a batch has half as many rows: the network always gets ``rows`` of them.
    """
    samples, rows, step = round(data["row_s"] * 16000), data["rows"], 0
    for number in range(1 << 30):
        rng = random.Random(hp["seed"] * 1_000_003 + number)
        packed = [
            list(pack_rows(corpus.sizes, samples, rng, choose(corpus, data, rng)))
            for corpus in train
        ]
        starts = [(i, at) for i, p in enumerate(packed) for at in range(0, len(p) - rows + 1, rows)]
        if not starts:
            raise ManifestError(
                f"not enough speech for a batch of {rows} rows of {samples} samples"
            )
        rng.shuffle(starts)
        for i, at in starts:
            count = rows // num_views(hp, step)
            for begin in range(at, at + rows, count):
                if step >= first:
                    gaps = random.Random(hp["seed"] * 1_000_003 + step)
                    yield train[i].batch(packed[i][begin : begin + count], samples, gaps)
                step += 1


def num_views(hp: dict[str, Any], step: int) -> int:
    """How often the network sees each row of a step, masked in another way each time."""
    return 2 if hp["consistency_weight"] and step >= hp["consistency_from"] else 1


def choose(corpus: Corpus, data: dict[str, Any], rng: random.Random) -> list[int]:
    """Choose the items of a pass: all real ones, and synthetic ones up to their share.

    Without any real ones it is all.
    """
    synthetic = [i for i, source in enumerate(corpus.sources) if source.startswith("synthetic")]
    chosen = sorted(set(range(len(corpus))) - set(synthetic))
    if not chosen:
        return synthetic
    share = data["synthetic_share"]
    spare = share / (1 - share) * sum(int(corpus.sizes[i]) for i in chosen)
    rng.shuffle(synthetic)
    for item in synthetic:
        spare -= int(corpus.sizes[item])
        if spare < 0:
            break
        chosen.append(item)
    return chosen


def capture(trainee: Trainee, rows: int, num_samples: int) -> nn.Module:
    """Compile the layers, then capture the network, forward and backward, as CUDA graphs."""
    net = trainee.recogniser
    for block in net.blocks():
        block.step = torch.compile(block.step, dynamic=False)  # type: ignore[method-assign]
    encoder = net.encoder
    encoder.step_spectra = torch.compile(encoder.step_spectra, dynamic=False)  # type: ignore[method-assign]
    device = trainee.rights.device
    late = max(net.config.lookahead_frames) * net.config.frame_size
    spectra = encoder.stft(torch.zeros(rows, num_samples + late, device=device)).detach()
    option = torch.zeros(rows, dtype=torch.int64, device=device)
    with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
        trainee(spectra, option)  # compiles
        torch.cuda.make_graphed_callables(trainee, (spectra, option), allow_unused_input=True)
    return trainee  # its forward now replays the graphs


def train_step(
    model: nn.Module, net: Recogniser, batch: Batch, noise: Corpus | None, hp: dict[str, Any]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of one batch and its parts."""
    config, device, views = net.config, batch.audio.device, hp["views"]
    with torch.no_grad():
        audio = augment_audio(batch.audio, noise, hp["augment"])
        late = max(config.lookahead_frames) * config.frame_size
        spectra = net.encoder.stft(nn.functional.pad(audio, (0, late)))
        masked = torch.cat([mask_spectra(spectra, hp["masks"]) for _ in range(views)])
    shares = torch.tensor(hp["lookahead_shares"])
    option = send(torch.multinomial(shares, len(audio), replacement=True).repeat(views), device)
    whole_frames = (batch.lengths + config.frame_size - 1) // config.frame_size
    frames = config.stack * whole_frames.repeat(views)
    on_gpu = device.type == "cuda"
    with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu, cache_enabled=False):
        letters, phones = model(masked, option)
    parts = {"ctc": ctc(letters, frames, batch.labels[0] * views)}
    loss = parts["ctc"]
    if phones is not None:
        parts["phone"] = ctc(phones, frames, batch.labels[1] * views)
        loss = loss + hp["phone_weight"] * parts["phone"]
    if views == 2:
        parts["consistency"] = consistency(letters, frames)
        loss = loss + hp["consistency_weight"] * parts["consistency"]
    return loss, parts


def main() -> None:
    """Load, train, evaluate, export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "tests" / "speech")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=HERE / "config.toml")
    parser.add_argument("--init", help="begin from this model: a name or a folder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after, to be resumed")
    parser.add_argument("--compile", action="store_true", help="CUDA: compile and capture")
    parser.add_argument("--smoke", action="store_true", help="a tiny network on the test audio")
    args = parser.parse_args()
    began = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)

    table = load_toml(args.config)
    config = from_dict(RecogniserConfig, table["recogniser"], "recogniser")
    data, hp = table["data"], table["train"]
    if args.smoke:
        config, data, hp = RecogniserConfig.tiny(), data | SMOKE_DATA, hp | SMOKE_TRAIN
    torch.set_float32_matmul_precision("high")
    phones_file = args.data / "phones.json"
    phones = read_phones(phones_file) if phones_file.exists() else Phones((), {})
    config = replace(config, phones=phones.symbols)
    train, dev, noise = load_corpus(data, args, config.pieces, phones)
    print(f"{train[0].hours:.2f} h, decoded in {time.monotonic() - began:.0f} s", flush=True)

    torch.manual_seed(hp["seed"])
    trainee = Trainee(config).to(args.device)
    if args.init:
        load_weights(ModelFolder.open(args.init), trainee.recogniser, fresh=("phones.",))
    settings = {name: hp[name] for name in ("lr", "weight_decay", "ema")}
    run = Run(trainee, trainee.recogniser, betas=(0.9, 0.98), **settings)
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        run.load(checkpoint)
        print(f"resumed at step {run.step}", flush=True)
    model: nn.Module = trainee
    if args.compile:
        model = capture(trainee, data["rows"], round(data["row_s"] * 16000))
        print(f"captured at {time.monotonic() - began:.0f} s", flush=True)
    source = batches(train, data, hp, run.step)

    saved = began
    while run.step < hp["steps"] and (time.monotonic() - began) / 60 < args.minutes:
        cosine = 0.5 + 0.5 * math.cos(math.pi * run.step / hp["steps"])
        lr = hp["lr"] * min((run.step + 1) / hp["warmup"], cosine + 0.01)
        # a phone head that begins anew over trained layers would tear at them
        ramp = min((run.step + 1) / hp["warmup"], 1.0) ** 2
        now = hp | {"phone_weight": ramp * hp["phone_weight"], "views": num_views(hp, run.step)}
        loss, parts = train_step(model, trainee.recogniser, next(source), noise, now)
        norm = run.advance(loss, lr, hp["grad_clip"])
        if run.step % hp["log_every"] == 0:
            row = {"step": run.step, "minutes": round((time.monotonic() - began) / 60, 2)}
            row |= {"norm": norm.item()} | {name: part.item() for name, part in parts.items()}
            if run.step % hp["dev_every"] == 0:
                row["dev_wer"] = greedy_wer(run.ema, dev)
            print(json.dumps(row), flush=True)
            with (args.out / "log.jsonl").open("a") as log:
                print(json.dumps(row), file=log)
        if time.monotonic() - saved > 60 * SAVE_MINUTES:
            run.save(checkpoint)
            saved = time.monotonic()

    run.save(checkpoint)
    print(f"step {run.step} of {hp['steps']}, dev WER {greedy_wer(run.ema, dev):.4f}", flush=True)
    description = f"English speech to lower-case words, trained on {train[0].hours:.1f} h"
    tables = {"recogniser": to_dict(config)}
    save_model(args.out / "model", "recogniser", description, tables, run.ema.state_dict())


if __name__ == "__main__":
    main()
