"""Random stretches of a corpus, cut by index on its device, without a loop over rows."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiossm.errors import ManifestError
from audiossm.train.augment import cut_noise
from audiossm.train.corpus import Batch, Corpus
from audiossm.train.losses import send
from audiossm.train.ranks import ALONE, Ranks

__all__ = ["batch_shapes", "cut_rows", "draw_batch", "draw_crops", "draw_utterances", "vary"]


def cut_rows(
    corpus: Corpus, starts: NDArray[np.int64], sizes: NDArray[np.int64], num_samples: int
) -> Tensor:
    """Return (rows, num_samples) float32 from ``starts`` on; zeros after ``sizes`` samples."""
    device = corpus.audio.device
    begin, size = send(torch.from_numpy(np.stack([starts, sizes])), device)
    time = torch.arange(num_samples, device=device)
    index = (begin.unsqueeze(1) + time).clamp(max=len(corpus.audio) - 1)
    inside: Tensor = time < size.unsqueeze(1)
    return corpus.audio[index].float() / 32768.0 * inside


def draw_crops(corpus: Corpus, rows: int, num_samples: int, rng: np.random.Generator) -> Tensor:
    """Draw (rows, num_samples) float32, each within one item, every place as likely as another.

    An item that is too short is taken whole, with silence after it, and is rarely drawn.
    """
    places = np.maximum(corpus.sizes - num_samples, 0) + 1
    ends = places.cumsum()
    place = rng.integers(ends[-1], size=rows)
    items = np.searchsorted(ends, place, side="right")
    offsets = place - (ends[items] - places[items])
    sizes = corpus.sizes[items] - offsets
    return cut_rows(corpus, corpus.starts[items] + offsets, sizes, num_samples)


def draw_utterances(
    corpus: Corpus, rows: int, num_samples: int, kind: int, rng: np.random.Generator
) -> Batch:
    """Draw whole items that have labels and fit ``num_samples``, silence after each.

    Args:
        corpus: where from.
        rows: items.
        num_samples: length of a row.
        kind: the index of the kind of label that an item must have.
        rng: decides which.

    Raises:
        ManifestError: no item fits.
    """
    labels = corpus.labels[kind]
    labelled = np.array([bool(row) for row in labels])
    fitting = np.flatnonzero(labelled & (corpus.sizes <= num_samples))
    if not len(fitting):
        raise ManifestError(f"no labelled item of the corpus fits a row of {num_samples} samples")
    items = rng.choice(fitting, size=rows)
    return Batch(
        audio=cut_rows(corpus, corpus.starts[items], corpus.sizes[items], num_samples),
        lengths=torch.from_numpy(corpus.sizes[items]),
        labels=([labels[item] for item in items],),
    )


def batch_shapes(data: dict[str, Any], ranks: Ranks = ALONE) -> list[tuple[int, int]]:
    """Return (rows, samples) of a codec recipe's short batches and of its long ones.

    Raises:
        ConfigError: several processes can't share the rows evenly.
    """
    return [
        (ranks.part(data[f"{kind}_rows"], f"{kind}_rows"), round(data[f"{kind}_s"] * 16000))
        for kind in ("crop", "long")
    ]


def draw_batch(
    train: Corpus,
    data: dict[str, Any],
    labelled: bool,
    seed: int,
    step: int,
    ranks: Ranks = ALONE,
) -> Batch:
    """Draw the batch of a step of a codec recipe: a function of seed and step alone.

    Long batches are whole utterances with labels where the corpus is ``labelled``. Of several
    processes each gets its own rows.
    """
    rng = np.random.default_rng([seed, step])
    long = rng.random() < data["long_share"]
    rows, samples = batch_shapes(data)[long]
    if long and labelled:
        batch = draw_utterances(train, rows, samples, 0, rng)
    else:
        batch = Batch(draw_crops(train, rows, samples, rng), torch.full((rows,), samples), ())
    labels = tuple(list(ranks.own(kind)) for kind in batch.labels)
    return Batch(ranks.own_rows(batch.audio), ranks.own_rows(batch.lengths), labels)


def vary(audio: Tensor, noise: Corpus | None, noise_share: float, ranks: Ranks = ALONE) -> Tensor:
    """Put noise under a few of the rows (5 to 25 dB below), then change their levels (-12 to 3 dB).

    What comes out is what a codec is to give back: nothing here is to be undone.

    Args:
        audio: (rows, samples) float32 in [-1, 1].
        noise: recordings of noise, or None.
        noise_share: part of the rows that get some.
        ranks: whose rows these are.
    """
    rows, samples = audio.shape

    def decibels(low: float, high: float) -> Tensor:
        return 10 ** (ranks.uniform(low, high, rows, device=audio.device) / 20)

    if noise is not None:
        chosen = ranks.rand(rows, 1, device=audio.device) < noise_share
        level = audio.square().mean(1, keepdim=True).sqrt().clamp(min=1e-4) * decibels(-25, -5)
        audio = audio + chosen * level * cut_noise(noise, rows, samples, ranks)
    return (audio * decibels(-12, 3)).clamp(-1, 1)
