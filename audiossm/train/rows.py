"""Which rows of joined utterances each step of training hears."""

import random
from collections.abc import Iterator
from typing import Any

from audiossm.errors import ConfigError, ManifestError
from audiossm.train.corpus import Batch, Corpus, pack_rows
from audiossm.train.ranks import ALONE, Ranks

__all__ = ["BESIDE", "batches", "choose", "num_views"]

BESIDE = "beside"  # how the source begins of speech that isn't what is to be learnt


def batches(
    train: list[Corpus],
    data: dict[str, Any],
    hp: dict[str, Any],
    first: int,
    ranks: Ranks = ALONE,
) -> Iterator[Batch]:
    """Yield the batch of each step for ever, from step ``first`` on: this process's rows of it.

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
            hours = max(corpus.hours for corpus in train)
            raise ManifestError(
                f"{3600 * hours:.0f} s of speech don't fill a batch of {rows} rows of "
                f"{data['row_s']:g} s: take more speech, or fewer or shorter rows, "
                "as --set data.rows=2 --set data.row_s=5.0"
            )
        rng.shuffle(starts)
        for i, at in starts:
            count = rows // num_views(hp, step)
            for begin in range(at, at + rows, count):
                if step >= first:
                    gaps = random.Random(hp["seed"] * 1_000_003 + step)
                    yield train[i].batch(packed[i][begin : begin + count], samples, gaps, ranks)
                step += 1


def num_views(hp: dict[str, Any], step: int) -> int:
    """How often the network sees each row of a step, masked in another way each time."""
    return 2 if hp["consistency_weight"] and step >= hp["consistency_from"] else 1


def choose(corpus: Corpus, data: dict[str, Any], rng: random.Random) -> list[int]:
    """Choose the items of a pass: all real ones, and others up to their shares.

    Others are synthetic ones, then those that stand beside (``load_spoken``). Without any real
    ones it is all of the first kind that there is.

    Raises:
        ConfigError: a share is none.
    """
    kinds: dict[str, list[int]] = {"": [], "synthetic": [], BESIDE: []}
    for i, source in enumerate(corpus.sources):
        kinds[next((kind for kind in kinds if kind and source.startswith(kind)), "")].append(i)
    chosen = kinds.pop("")
    for kind, others in kinds.items():
        if not chosen:
            chosen = others
            continue
        share = data.get(f"{kind}_share", 0.0)
        if not 0 <= share < 1:
            raise ConfigError(f"data.{kind}_share is {share:g}, expected 0 to less than 1")
        spare = share / (1 - share) * sum(int(corpus.sizes[i]) for i in chosen)
        rng.shuffle(others)
        for item in others:
            spare -= int(corpus.sizes[item])
            if spare < 0:
                break
            chosen.append(item)
    return chosen
