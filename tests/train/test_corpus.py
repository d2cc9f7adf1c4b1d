"""A corpus: utterances end to end, packed and joined to rows."""

import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.errors import ManifestError
from audiossm.manifest import Utterance, read_manifest
from audiossm.train import corpus as corpus_module
from audiossm.train.corpus import Corpus, pack_rows, read_manifests

SPEECH = Path(__file__).parents[1] / "speech"


def make_corpus(*sizes: int) -> Corpus:
    """Items of constant samples: item i is full of i + 1, its labels are [i + 1] and [10 + i]."""
    lengths = np.array(sizes, np.int64)
    values = torch.arange(1, len(sizes) + 1, dtype=torch.int16)
    return Corpus(
        audio=values.repeat_interleave(torch.from_numpy(lengths)),
        starts=np.cumsum(lengths) - lengths,
        sizes=lengths,
        labels=([[i + 1] for i in range(len(sizes))], [[10 + i] for i in range(len(sizes))]),
        joints=([0], []),
        texts=[f"text {i}" for i in range(len(sizes))],
        sources=[""] * len(sizes),
    )


@settings(max_examples=50, deadline=None, derandomize=True)
@given(sizes=st.lists(st.integers(1, 120), max_size=200), seed=st.integers(0, 99))
def test_every_item_that_fits_is_in_one_row_and_no_row_is_too_long(sizes, seed):
    rows = list(pack_rows(np.array(sizes, np.int64), 100, random.Random(seed)))
    packed = sorted(item for row in rows for item in row)
    assert packed == [item for item, size in enumerate(sizes) if size <= 100]
    assert all(0 < sum(sizes[item] for item in row) <= 100 for row in rows)


def test_only_the_items_asked_for_are_packed():
    rows = pack_rows(np.full(9, 10), 100, random.Random(0), items=[7, 2, 5])
    assert sorted(item for row in rows for item in row) == [2, 5, 7]


def test_rows_are_nearly_full():
    sizes = np.random.default_rng(0).integers(5, 60, 3000)
    rows = list(pack_rows(sizes, 100, random.Random(0)))
    assert sum(sizes) / (100 * len(rows)) > 0.9


def test_rows_come_in_another_order_for_another_seed():
    sizes = np.full(50, 40)
    first, again, other = (list(pack_rows(sizes, 100, random.Random(s))) for s in (0, 0, 1))
    assert first == again != other


def test_a_row_joins_its_items_with_gaps_and_joints_and_is_padded():
    corpus = make_corpus(30, 20, 10)
    batch = corpus.batch([[2, 0], [1]], 100, random.Random(3))
    assert batch.audio.shape == (2, 100) and batch.audio.dtype == torch.float32
    first = (batch.audio[0] * 32768).int().tolist()
    gap = int(batch.lengths[0]) - 40
    assert 0 < gap <= 60
    assert first == [3] * 10 + [0] * gap + [1] * 30 + [0] * (60 - gap)
    assert (batch.audio[1] * 32768).int().tolist() == [2] * 20 + [0] * 80
    assert batch.lengths.tolist() == [40 + gap, 20]
    assert batch.labels == ([[3, 0, 1], [2]], [[12, 10], [11]])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=st.integers(0, 9999))
def test_gaps_never_push_an_item_out_of_its_row(seed):
    corpus = make_corpus(30, 20, 10, 40)
    batch = corpus.batch([[0, 1, 2, 3]], 101, random.Random(seed))
    counts = (batch.audio[0] * 32768).int().bincount(minlength=5)
    assert counts.tolist() == [1, 30, 20, 10, 40]
    assert batch.lengths[0] <= 101


def test_a_batch_leaves_the_labels_of_the_corpus_alone():
    corpus = make_corpus(30, 20)
    for _ in range(2):
        assert corpus.batch([[0, 1]], 60, random.Random(0)).labels[0] == [[1, 0, 2]]
    assert corpus.labels[0] == [[1], [2]]


def test_a_faster_corpus_is_shorter_and_higher():
    time = torch.arange(32000) / 16000
    tone = (torch.sin(2 * torch.pi * 1000 * time) * 8000).to(torch.int16)
    corpus = Corpus(
        audio=torch.cat([torch.zeros(16000, dtype=torch.int16), tone]),
        starts=np.array([0, 16000]),
        sizes=np.array([16000, 32000]),
        labels=([[1], [2]],),
        joints=([],),
        texts=["", ""],
        sources=["", ""],
    )
    fast = corpus.at_speed(1.25)
    assert fast.sizes.tolist() == [12800, 25600]
    assert not fast.cut(0)[:-50].any()
    spectrum = torch.fft.rfft(fast.cut(1).float()).abs()
    assert spectrum.argmax() * 16000 / 25600 == pytest.approx(1250, abs=1)
    assert corpus.at_speed(1.0) is corpus
    assert fast.hours == pytest.approx(corpus.hours / 1.25)


def load(utterances: list[Utterance], **options: object) -> Corpus:
    return Corpus.load(utterances, (lambda u: [len(u.text)],), ([],), **options)


def test_recordings_of_any_rate_and_channels_are_decoded_to_16_khz():
    utterances = read_manifest(SPEECH / "manifest.jsonl")
    by_key = {u.key: u for u in utterances}
    picked = [by_key[key] for key in ("river", "stereo-44100", "telephone-8000")]
    corpus = load(picked)
    for item, utterance in enumerate(picked):
        samples, rate = soundfile.read(utterance.path, always_2d=True)
        assert corpus.sizes[item] == -(-len(samples) * 16000 // rate)
        level = float(corpus.cut(item).float().square().mean().sqrt()) / 32767
        assert level == pytest.approx(float(np.sqrt((samples.mean(1) ** 2).mean())), rel=0.02)
    river, _ = soundfile.read(by_key["river"].path, dtype="int16")
    assert (corpus.cut(0).int() - torch.from_numpy(river).int()).abs().max() <= 1
    assert corpus.labels == ([[len(u.text)] for u in picked],)
    assert corpus.texts == [u.text for u in picked]


def test_what_cannot_be_read_is_told_and_left_out(tmp_path, capsys):
    good = read_manifest(SPEECH / "manifest.jsonl")[:2]
    bad = Utterance(key="gone", text="nobody", path=tmp_path / "gone.flac")
    corpus = load([good[0], bad, good[1]])
    assert corpus.texts == [good[0].text, good[1].text]
    assert corpus.starts.tolist() == [0, corpus.sizes[0]]
    assert "left out: gone: " in capsys.readouterr().out


def test_no_utterances_are_refused():
    with pytest.raises(ManifestError, match="a corpus needs utterances"):
        load([])


def test_decoded_samples_are_kept_for_the_same_keys(tmp_path, monkeypatch):
    utterances = read_manifest(SPEECH / "manifest.jsonl")[:2]
    cache = tmp_path / "audio.pt"
    first = load(utterances, cache=cache)
    monkeypatch.setattr(corpus_module, "decode", lambda u: np.full(7, 5, np.int16))
    assert torch.equal(load(utterances, cache=cache).audio, first.audio)
    assert load(utterances[:1], cache=cache).audio.tolist() == [5] * 7
    assert load(utterances[:1], cache=cache).audio.tolist() == [5] * 7


def test_manifests_are_read_in_order(tmp_path):
    for name, key in (("a", "1"), ("b", "2")):
        line = f'{{"key": "{key}", "text": "t", "path": "x.wav"}}\n'
        (tmp_path / f"{name}.jsonl").write_text(line, encoding="utf-8")
    assert [u.key for u in read_manifests(tmp_path, ["b", "a"])] == ["2", "1"]
