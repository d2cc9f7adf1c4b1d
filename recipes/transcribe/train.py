"""Train the recogniser: codec encoder and Mamba-3 backbone together, CTC, on one device.

    python recipes/transcribe/train.py --data DIR --out DIR
    python recipes/transcribe/train.py --smoke --out DIR      # a minute on a CPU

DIR holds the manifests and shards that config.toml names, and phones.json by make_phones.py. A run
that was stopped goes on from its last checkpoint with the same command. README.md has the numbers.
"""

import argparse
import copy
import json
import math
import os
import random
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audiossm.checkpoint import save_model
from audiossm.config import from_dict, load_toml, to_dict
from audiossm.decoding import best_labels
from audiossm.manifest import Utterance
from audiossm.models import Recogniser, RecogniserConfig
from audiossm.text import Vocabulary, normalise_text
from audiossm.train.augment import augment_audio, mask_spectra
from audiossm.train.corpus import Batch, Corpus, pack_rows, read_manifests
from audiossm.train.losses import consistency, ctc
from audiossm.train.phones import Phones, read_phones
from audiossm.train.scoring import word_errors

HERE = Path(__file__).parent


class Trainee(nn.Module):
    """The recogniser and what only training needs: a phone head at half depth."""

    def __init__(self, config: RecogniserConfig, num_phones: int) -> None:
        super().__init__()
        self.recogniser = Recogniser(config)
        self.phone_norm = nn.LayerNorm(config.backbone.d_model)
        self.phone_head = nn.Linear(config.backbone.d_model, config.stack * (num_phones + 1))
        self.register_buffer("rights", torch.tensor(config.lookahead_frames), persistent=False)

    def forward(self, spectra: Tensor, option: Tensor) -> tuple[Tensor, Tensor]:
        """Map spectra to log-probabilities of pieces and phones, both in time with the audio.

        ``option`` (rows,) picks each row's look-ahead; the spectra end with the longest one's
        silence, which is gone from the result.
        """
        net = self.recogniser
        state = net.init_state(len(spectra))
        state = state._replace(lookahead=state.lookahead._replace(option=option))
        encoded, encoder = net.encoder.step_spectra(spectra, state.encoder)
        hidden, middle, _ = net.step_encoded(encoded, state._replace(encoder=encoder))
        frames = torch.arange(hidden.shape[1] - int(max(net.config.lookahead_frames)))
        late = frames.to(option.device) + self.rights[option].unsqueeze(1)
        index = late.unsqueeze(-1).expand(-1, -1, hidden.shape[-1])
        phones = self.phone_head(self.phone_norm(middle.gather(1, index))).float()
        phones = phones.unflatten(-1, (net.config.stack, -1)).flatten(1, 2)
        return net.log_probs(hidden.gather(1, index)), phones.log_softmax(-1)


def load_corpus(data: dict[str, Any], args: argparse.Namespace, phones: Phones) -> dict[str, Any]:
    """Decode all sets: ``train`` (one corpus for each speed), ``dev`` and ``noise``."""
    vocabulary = Vocabulary(RecogniserConfig.tiny().pieces)

    def letters(utterance: Utterance) -> list[int]:
        return vocabulary.encode(normalise_text(utterance.text))

    def fit(names: list[str]) -> list[Utterance]:
        spoken = read_manifests(args.data, names)
        return [u for u in spoken if normalise_text(u.text) and not any(map(str.isdigit, u.text))]

    def load(name: str, utterances: list[Utterance]) -> Corpus:
        cache = args.out / f"{name}.pt"
        corpus = Corpus.load(utterances, (letters, phones.label), args.workers, cache)
        return corpus.to(args.device)

    train = load("train", fit(data["train"]))
    noise = read_manifests(args.data, data["noise"])[::2]
    return {
        "train": [train.at_speed(speed) for speed in data["speeds"]],
        "dev": load("dev", fit(data["dev"])),
        "noise": load("noise", noise) if noise else None,
    }


def batches(train: list[Corpus], data: dict[str, Any], rng: random.Random) -> Any:
    """Yield batches for ever; each pass goes once through the corpus, at mixed speeds."""
    samples = round(data["row_s"] * 16000)
    while True:
        rows = [list(pack_rows(corpus.sizes, samples, rng)) for corpus in train]
        starts = [(i, at) for i in range(len(train)) for at in range(0, len(rows[i]), data["rows"])]
        rng.shuffle(starts)
        for i, at in starts:
            picked = rows[i][at : at + data["rows"]]
            if len(picked) == data["rows"]:
                yield train[i].batch(picked, samples, rng)


def train_step(
    model: nn.Module,
    net: Recogniser,
    batch: Batch,
    noise: Corpus | None,
    hp: dict[str, Any],
    step: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of one batch and its parts."""
    config, device = net.config, batch.audio.device
    with torch.no_grad():
        audio = augment_audio(batch.audio, noise, hp["augment"])
        late = max(config.lookahead_frames) * config.frame_size
        audio = torch.nn.functional.pad(audio, (0, late))
        spectra = net.encoder.stft(audio)
        views = torch.cat([mask_spectra(spectra), mask_spectra(spectra)])
    option = torch.randint(len(config.lookahead_frames), (len(audio),), device=device).repeat(2)
    frames = config.stack * (batch.lengths + config.frame_size - 1).div(
        config.frame_size, rounding_mode="floor"
    ).repeat(2)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        letters, phones = model(views, option)
    parts = {"ctc": ctc(letters, frames, batch.labels[0] * 2)}
    if hp["phone_weight"]:
        parts["phone"] = ctc(phones, frames, batch.labels[1] * 2)
    if step >= hp["consistency_from"]:
        parts["consistency"] = consistency(letters, frames)
    loss = parts["ctc"] + sum(hp[f"{k}_weight"] * v for k, v in parts.items() if k != "ctc")
    return loss, parts


@torch.no_grad()
def evaluate(net: Recogniser, dev: Corpus, rows: int = 32) -> float:
    """Return the greedy word error rate on ``dev`` at the longest look-ahead."""
    net = net.eval()
    vocabulary, late = Vocabulary(net.config.pieces), max(net.config.lookahead_frames)
    order, errors, words = sorted(range(len(dev)), key=lambda i: dev.sizes[i]), 0, 0
    for at in range(0, len(order), rows):
        items = order[at : at + rows]
        longest = max(int(dev.sizes[i]) for i in items)
        samples = (-(-longest // net.config.frame_size) + late) * net.config.frame_size
        log_probs = net(dev.batch([[i] for i in items], samples, random.Random(0)).audio)
        for row, item in enumerate(items):
            frames = -(-int(dev.sizes[item]) // net.config.frame_size) * net.config.stack
            first = late * net.config.stack
            labels, _ = best_labels(log_probs[row, first : first + frames])
            kept = [b for a, b in zip([0, *labels], labels, strict=False) if b and a != b]
            wrong, total = word_errors(normalise_text(dev.texts[item]), vocabulary.decode(kept))
            errors, words = errors + wrong, words + total
    net.train()
    return errors / words


def main() -> None:
    """Load, train, evaluate, export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "tests" / "speech")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=HERE / "config.toml")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop (to be resumed) after")
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    parser.add_argument("--smoke", action="store_true", help="a tiny network on the test audio")
    args = parser.parse_args()
    began = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)

    table = load_toml(args.config)
    config = from_dict(RecogniserConfig, table["recogniser"], "recogniser")
    data, hp = table["data"], table["train"]
    if args.smoke:
        config = RecogniserConfig.tiny()
        data |= {
            "train": ["manifest"],
            "dev": ["manifest"],
            "noise": [],
            "speeds": [1.0],
            "rows": 2,
        }
        hp |= {"steps": 30, "warmup": 5, "consistency_from": 10, "ema": 0.9, "augment": 0.0}
    phones_file = args.data / "phones.json"
    phones = read_phones(phones_file) if phones_file.exists() else Phones((), {})
    hp["phone_weight"] *= bool(phones.symbols)
    corpus = load_corpus(data, args, phones)
    hours = corpus["train"][0].hours
    print(f"{hours:.2f} h, decoded in {time.monotonic() - began:.0f} s", flush=True)

    random.seed(hp["seed"])
    torch.manual_seed(hp["seed"])
    trainee = Trainee(config, len(phones.symbols)).to(args.device)
    ema = copy.deepcopy(trainee.recogniser).requires_grad_(False)
    decayed = [p for p in trainee.parameters() if p.dim() >= 2]
    others = [p for p in trainee.parameters() if p.dim() < 2]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, lr=hp["lr"], betas=(0.9, 0.98), weight_decay=hp["weight_decay"]
    )
    checkpoint, step = args.out / "checkpoint.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=args.device, weights_only=True)
        trainee.load_state_dict(saved["trainee"])
        ema.load_state_dict(saved["ema"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
        print(f"resumed at step {step}", flush=True)
    rng = random.Random(hp["seed"] + step)
    torch.manual_seed(hp["seed"] + step)
    model = torch.compile(trainee, dynamic=False) if args.compile else trainee
    source = batches(corpus["train"], data, rng)
    log = (args.out / "log.jsonl").open("a")

    while step < hp["steps"] and (time.monotonic() - began) / 60 < args.minutes:
        done = step / hp["steps"]
        lr = hp["lr"] * min((step + 1) / hp["warmup"], 0.5 + 0.5 * math.cos(math.pi * done) + 0.007)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss, parts = train_step(model, trainee.recogniser, next(source), corpus["noise"], hp, step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(trainee.parameters(), hp["grad_clip"])
        if norm.isfinite():
            optimizer.step()
        with torch.no_grad():
            keep = min(hp["ema"], (1 + step) / (10 + step))
            ours = list(trainee.recogniser.parameters())
            torch._foreach_lerp_(list(ema.parameters()), ours, 1 - keep)
        step += 1
        if step % (5 if args.device == "cpu" else 50) == 0:
            values = {k: round(v.item(), 4) for k, v in parts.items()}
            row = {"step": step, "lr": lr, "norm": round(norm.item(), 3), **values}
            row["minutes"] = round((time.monotonic() - began) / 60, 2)
            if step % 1000 == 0 or step == hp["steps"]:
                row["dev_wer"] = round(evaluate(ema, corpus["dev"]), 4)
            print(json.dumps(row), file=log, flush=True)
            print(json.dumps(row), flush=True)

    state = {"trainee": trainee.state_dict(), "ema": ema.state_dict(), "step": step}
    torch.save(state | {"optimizer": optimizer.state_dict()}, checkpoint)
    wer = evaluate(ema, corpus["dev"])
    print(f"step {step} of {hp['steps']}, dev WER {wer:.4f}, {time.monotonic() - began:.0f} s")
    description = f"English, CTC over characters, {hours:.1f} h of speech, {step} steps"
    tables = {"recogniser": to_dict(config)}
    save_model(args.out / "model", "recogniser", description, tables, ema.state_dict())


if __name__ == "__main__":
    main()
