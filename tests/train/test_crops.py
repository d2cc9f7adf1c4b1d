"""Crops lie inside their items, come from everywhere, and are what their seed says."""

import numpy as np
import pytest
import torch

from audiossm.errors import ManifestError
from audiossm.train.corpus import Corpus
from audiossm.train.crops import cut_rows, draw_batch, draw_crops, draw_utterances, vary
from audiossm.train.ranks import Ranks

SIZES = np.array([50, 7, 300, 100])


@pytest.fixture
def corpus() -> Corpus:
    """Sample i of the tape has the value i + 1, so that no sample is zero."""
    return Corpus(
        audio=torch.arange(1, SIZES.sum() + 1, dtype=torch.int16),
        starts=SIZES.cumsum() - SIZES,
        sizes=SIZES,
        labels=([[1], [2], [], [4, 4]],),
        joints=([],),
        texts=[""] * 4,
        sources=[""] * 4,
    )


def test_rows_are_cut_where_they_are_said_to_be_and_end_in_silence(corpus):
    rows = cut_rows(corpus, np.array([10, 455]), np.array([4, 2]), 5) * 32768
    assert rows.tolist() == [[11, 12, 13, 14, 0], [456, 457, 0, 0, 0]]


def test_crops_lie_inside_items_and_every_place_is_as_likely(corpus):
    rows = draw_crops(corpus, 20000, 40, np.random.default_rng(0)) * 32768
    starts = rows[:, 0].long() - 1
    short = starts == 50  # the item that is shorter than a crop
    ramp = starts.unsqueeze(1) + 1 + torch.arange(40)
    assert torch.equal(rows[~short], ramp[~short].float())
    whole = torch.cat([torch.arange(51, 58), torch.zeros(33)]).expand(int(short.sum()), -1)
    assert torch.equal(rows[short], whole)
    places = sorted({*range(0, 11), 50, *range(57, 318), *range(357, 418)})
    counts = torch.bincount(starts, minlength=458)
    assert counts.nonzero().flatten().tolist() == places
    share = counts[places].double() / 20000 * len(places)
    assert share.min() > 0.4 and share.max() < 1.8


def test_a_seed_decides_the_crops(corpus):
    first, again, other = (
        draw_crops(corpus, 5, 40, np.random.default_rng([0, step])) for step in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_utterances_are_whole_fit_and_have_labels(corpus):
    batch = draw_utterances(corpus, 300, 100, 0, np.random.default_rng(0))
    seen = set()
    for audio, length, labels in zip(batch.audio, batch.lengths, batch.labels[0], strict=True):
        item = [[1], [2], [], [4, 4]].index(labels)
        seen.add(item)
        assert int(length) == SIZES[item]
        assert torch.equal(audio[:length] * 32768, corpus.cut(item).float())
        assert not audio[length:].any()
    assert seen == {0, 1, 3}


def test_rows_that_no_labelled_item_fits_are_refused(corpus):
    with pytest.raises(ManifestError, match="no labelled item of the corpus fits a row of 6 samp"):
        draw_utterances(corpus, 2, 6, 0, np.random.default_rng(0))


def test_levels_change_within_their_bounds_and_nothing_else_does():
    audio = 0.1 * torch.randn(500, 64)
    gain = vary(audio, None, 0.5) / audio
    torch.testing.assert_close(gain, gain[:, :1].expand(-1, 64), rtol=1e-3, atol=0)
    decibels = 20 * gain[:, 0].log10()
    assert -12.1 < decibels.min() < -11 and 2 < decibels.max() < 3.1


def test_noise_comes_under_some_of_the_rows():
    noise = torch.where(torch.rand(5000) < 0.5, -9000, 9000).to(torch.int16)
    hiss = Corpus(noise, np.array([0]), np.array([5000]), (), (), [""], [""])
    audio = 0.05 * torch.sin(torch.arange(400) * 0.3).repeat(1000, 1)
    clean = audio[0] / audio[0].norm()
    heard = vary(audio, hiss, 0.2)
    left = heard - (heard @ clean).unsqueeze(1) * clean
    ratio = 20 * (left.norm(dim=1) / (heard @ clean).abs()).log10()
    noisy = ratio > -60
    assert 0.15 < noisy.float().mean() < 0.25
    assert -26 < ratio[noisy].min() < -22 and -8 < ratio[noisy].max() < -4


def test_processes_share_the_rows_that_one_has(corpus):
    data = {"crop_rows": 6, "crop_s": 0.0025, "long_share": 0.5, "long_rows": 3, "long_s": 0.02}
    shared = [Ranks(number, 3) for number in range(3)]
    sizes = set()
    for step in range(8):
        whole = draw_batch(corpus, data, True, 0, step)
        parts = [draw_batch(corpus, data, True, 0, step, ranks) for ranks in shared]
        for i, row in enumerate(whole.audio):
            assert torch.equal(parts[i % 3].audio[i // 3], row)
            assert parts[i % 3].lengths[i // 3] == whole.lengths[i]
            for kind, mine in zip(whole.labels, parts[i % 3].labels, strict=True):
                assert mine[i // 3] == kind[i]
        sizes.add(whole.audio.shape)
    assert sizes == {(6, 40), (3, 320)}


def test_processes_vary_their_rows_as_one_does(corpus):
    audio = torch.rand(6, 50) - 0.5

    def heard(ranks: Ranks) -> torch.Tensor:
        torch.manual_seed(1)
        return vary(ranks.own_rows(audio), corpus, 0.5, ranks)

    parts = torch.stack([heard(Ranks(number, 3)) for number in range(3)], dim=1).flatten(0, 1)
    torch.testing.assert_close(parts, heard(Ranks()))
