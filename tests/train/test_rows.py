"""Every step has its own rows, whatever came before it."""

import random

import numpy as np
import pytest
import torch

from audiossm.errors import ConfigError, ManifestError
from audiossm.train.corpus import Corpus
from audiossm.train.rows import batches, choose


def make_corpus(sizes: list[int], sources: list[str]) -> Corpus:
    count = len(sizes)
    lengths = np.array(sizes)
    return Corpus(
        audio=torch.arange(sum(sizes), dtype=torch.int16),
        starts=np.cumsum(lengths) - lengths,
        sizes=lengths,
        labels=([[i] for i in range(count)],),
        joints=([],),
        texts=[""] * count,
        sources=sources,
    )


def test_batches_go_on_from_any_place():
    corpus = make_corpus([30, 20, 50, 40, 45, 25, 35], [""] * 7)
    data = {"row_s": 100 / 16000, "rows": 1, "synthetic_share": 0.0}
    hp = {"seed": 7, "consistency_weight": 0.0, "consistency_from": 0}
    source = batches([corpus, corpus], data, hp, 0)
    straight = [next(source) for _ in range(12)]
    for first in (1, 5, 11):
        batch = next(batches([corpus, corpus], data, hp, first))
        assert torch.equal(batch.audio, straight[first].audio)
        assert batch.labels == straight[first].labels
    seen = [item for batch in straight for item in batch.labels[0][0]]
    assert sorted(seen[:14]) == sorted([*range(7), *range(7)])  # a pass: each item at each speed


def test_two_views_halve_the_rows_of_a_batch_and_lose_none():
    corpus = make_corpus([60] * 8, [""] * 8)
    data = {"row_s": 100 / 16000, "rows": 4, "synthetic_share": 0.0}
    hp = {"seed": 1, "consistency_weight": 0.2, "consistency_from": 1}
    source = batches([corpus], data, hp, 0)
    found = [next(source) for _ in range(3)]
    assert [len(batch.audio) for batch in found] == [4, 2, 2]
    assert sorted(row[0] for batch in found for row in batch.labels[0]) == [*range(8)]
    again = next(batches([corpus], data, hp, 2))
    assert again.labels == found[2].labels


def test_a_pass_has_all_real_speech_and_a_share_of_synthetic_speech():
    corpus = make_corpus([100] * 40, ["ljspeech"] * 10 + ["synthetic/flite"] * 30)
    rng = random.Random(0)
    passes = [choose(corpus, {"synthetic_share": 0.2}, rng) for _ in range(2)]
    for chosen in passes:
        assert chosen[:10] == [*range(10)]
        assert len(set(chosen)) == len(chosen) == 12  # 2 of 12: not more than a fifth
    assert passes[0] != passes[1]


def test_what_stands_beside_is_a_share_of_a_pass():
    corpus = make_corpus([100] * 60, ["mine"] * 8 + ["beside synthetic/flite"] * 50 + ["mine"] * 2)
    data = {"synthetic_share": 0.2, "beside_share": 0.5}
    chosen = choose(corpus, data, random.Random(0))
    assert set(chosen) >= {*range(8), 58, 59} and len(chosen) == 20  # half of all
    with pytest.raises(ConfigError, match="data.beside_share is 1, expected 0 to less than 1"):
        choose(corpus, data | {"beside_share": 1.0}, random.Random(0))


def test_too_little_speech_for_a_batch_is_refused():
    corpus = make_corpus([50], [""])
    data = {"row_s": 100 / 16000, "rows": 2, "synthetic_share": 0.0}
    hp = {"seed": 0, "consistency_weight": 0.0, "consistency_from": 0}
    with pytest.raises(ManifestError, match="don.t fill a batch of 2 rows of"):
        next(batches([corpus], data, hp, 0))
