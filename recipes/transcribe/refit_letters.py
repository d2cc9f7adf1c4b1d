"""Teach the head of letters anew, by CTC alone, on a network that stays as it is.

    python recipes/transcribe/refit_letters.py MODEL --data DIR --out DIR [--minutes 120]

A network that was trained against a grammar (``grammar_weight``) leaves to the grammar what it
knows, so its best letters alone aren't the likeliest text any more. This gives greedy decoding its
letters back; the phones, and all below the head, don't change. A quarter of an hour on a CPU.
"""

import argparse
import random
import sys
from pathlib import Path

import torch
from torch import Tensor

from audiossm.codec import LoadedCodec
from audiossm.config import load_toml
from audiossm.manifest import Utterance
from audiossm.models import LoadedRecogniser, save_recogniser
from audiossm.text import Vocabulary, normalise_text
from audiossm.train.corpus import Corpus, read_manifests
from audiossm.train.losses import ctc
from audiossm.train.settings import adopt_sets
from audiossm_apps.recipe import run_recipe

HERE = Path(__file__).parent
ROWS = 16


def main() -> None:
    """Hear some of the training speech, fit the head to its letters, write the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a recogniser: a name or a folder")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--codec", default="first-frames", help="that it stands on")
    parser.add_argument("--minutes", type=float, default=120, help="of speech to fit on")
    parser.add_argument("--passes", type=int, default=12)
    parser.add_argument("--lr", type=float, default=2e-3)
    args = parser.parse_args()
    torch.manual_seed(0)
    network = LoadedRecogniser.load(args.model).network.eval()
    vocabulary = Vocabulary(network.config.pieces)

    def letters(utterance: Utterance) -> list[int]:
        return vocabulary.encode(normalise_text(utterance.text))

    names = adopt_sets(load_toml(HERE / "config.toml")["data"], args.data)["train"]
    spoken = [u for u in read_manifests(args.data, names) if not u.source.startswith("synthetic")]
    spoken = [u for u in spoken if letters(u) and not any(map(str.isdigit, u.text))]
    random.Random(0).shuffle(spoken)
    seconds, chosen = 60 * args.minutes, []
    for utterance in spoken:
        seconds -= utterance.seconds or 0.0
        if seconds < 0:
            break
        chosen.append(utterance)
    corpus = Corpus.load(chosen, (letters,), ((),))
    print(f"{corpus.hours:.2f} h", flush=True)
    heard = hear(network, corpus)
    print(f"heard {len(heard)} utterances", flush=True)
    fit(network, heard, args.passes, args.lr)
    description = f"letters fitted anew on {corpus.hours:.1f} h"
    save_recogniser(args.out, description, network, LoadedCodec.load(args.codec))


@torch.no_grad()
def hear(network: torch.nn.Module, corpus: Corpus) -> list[tuple[Tensor, list[int]]]:
    """Return what the head sees of each utterance, (frames, d_model), and its letters."""
    config = network.config
    late, heard = max(config.lookahead_frames), []
    order = sorted(range(len(corpus)), key=lambda item: int(corpus.sizes[item]))
    for at in range(0, len(order), ROWS):
        items = order[at : at + ROWS]
        frames = [-(-int(corpus.sizes[item]) // config.frame_size) for item in items]
        samples = (max(frames) + late) * config.frame_size
        audio = corpus.batch([[item] for item in items], samples, random.Random(0)).audio
        state = network.init_state(len(items), late)
        encoded, encoder = network.encoder.step(audio, state.encoder)
        hidden, _, _ = network.step_encoded(encoded, state._replace(encoder=encoder))
        for row, item in enumerate(items):
            seen = hidden[row, late : late + frames[row]].clone()
            heard.append((seen, corpus.labels[0][item]))
    return heard


def fit(
    network: torch.nn.Module, heard: list[tuple[Tensor, list[int]]], passes: int, lr: float
) -> None:
    """Fit the head by CTC, its learning rate falling to nothing."""
    stack = network.config.stack
    network.head.requires_grad_(True)
    optimiser = torch.optim.AdamW(network.head.parameters(), lr=lr, weight_decay=0.01)
    rng = random.Random(0)
    batches = [heard[at : at + ROWS] for at in range(0, len(heard), ROWS)]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, passes * len(batches))
    for number in range(passes):
        rng.shuffle(batches)
        total = 0.0
        for batch in batches:
            rows = torch.nn.utils.rnn.pad_sequence([seen for seen, _ in batch], batch_first=True)
            frames = torch.tensor([stack * len(seen) for seen, _ in batch])
            rows = torch.nn.functional.dropout(rows, 0.1)
            loss = ctc(network.log_probs(rows), frames, [labels for _, labels in batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"pass {number + 1}: {total / len(batches):.4f} nats a letter", flush=True)


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
