"""Recordings as codes: each as if it were alone, in time with its samples, made once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from audiossm.codec import LoadedCodec
from audiossm.manifest import read_manifest
from audiossm.train import coded
from audiossm.train.coded import encode_corpus, load_codes
from audiossm.train.corpus import Corpus
from audiossm.train.disguise import Wardrobe
from audiossm.train.kept import read_kept, write_kept
from toy_codec import make_codec

SPEECH = Path(__file__).parents[1] / "speech"
UTTERANCES = read_manifest(SPEECH / "manifest.jsonl")[:3]


def make_loaded() -> LoadedCodec:
    return LoadedCodec(make_codec(), name="toy", model_hash="0" * 32)


@pytest.mark.parametrize("batch_s", [0.01, 1.0, 100.0])
def test_items_are_encoded_as_if_each_were_alone(batch_s):
    codec = make_codec()
    sizes = np.array([codec.config.frame_size * n + more for n, more in [(7, 5), (0, 9), (30, 0)]])
    audio = torch.randint(-9000, 9000, (int(sizes.sum()),), dtype=torch.int16)
    starts = sizes.cumsum() - sizes
    corpus = Corpus(audio, starts, sizes, (), (), [""] * 3, [""] * 3)
    made = encode_corpus(corpus, codec, batch_s)
    assert [len(codes) for codes in made] == [7, 0, 30]
    assert made[0].dtype == np.int16 and made[1].shape == (0, 4)
    for item in (0, 2):
        samples = corpus.cut(item)[: len(made[item]) * codec.config.frame_size] / 32768.0
        alone = codec.encode(samples.unsqueeze(0))[0].T.numpy()
        assert (made[item] == alone).mean() > 0.99  # a batch rounds in another order
        assert len(np.unique(alone)) > 5


def test_a_code_is_made_of_the_samples_up_to_its_frame_s_end():
    codec = make_codec()
    size = codec.config.frame_size
    samples = torch.rand(1, 20 * size) - 0.5
    whole = codec.encode(samples)
    assert torch.equal(codec.encode(samples[:, : 8 * size]), whole[..., :8])
    changed = samples.clone()
    changed[:, 9 * size - 1] += 1.0  # the last sample of frame 8
    differ = (codec.encode(changed) != whole).any(1)[0]
    assert not differ[:8].any() and differ[8:].any()


def test_codes_are_made_once_for_the_same_keys_and_codec(tmp_path, monkeypatch):
    cache, codec = tmp_path / "codes.pt", make_loaded()
    first = load_codes(UTTERANCES, codec, cache, 1, "cpu")
    assert set(first) == {utterance.key for utterance in UTTERANCES}
    for utterance in UTTERANCES:
        assert utterance.seconds is not None
        assert abs(len(first[utterance.key]) - utterance.seconds * 50) <= 1
    monkeypatch.setattr(coded, "encode_corpus", None)
    again = load_codes(UTTERANCES, codec, cache, 1, "cpu")
    assert all(np.array_equal(again[key], codes) for key, codes in first.items())
    other = make_loaded()
    other.codes_hash = "1" * 32
    for keys, loaded in [(UTTERANCES[:2], codec), (UTTERANCES, other)]:
        with pytest.raises(TypeError):  # they would be made anew
            load_codes(keys, loaded, cache, 1, "cpu")


@pytest.mark.parametrize("worn", [Wardrobe(6.0), Wardrobe(0.0, 0.1), Wardrobe(follow=0.0)])
def test_other_speeds_are_heard_in_disguise_the_same_one_again(tmp_path, worn):
    codec = make_loaded()

    def load(name, *worn):
        return load_codes(UTTERANCES, codec, tmp_path / name, 1, "cpu", (1.0, 0.9), *worn)

    plain, once, twice = load("plain.pt"), load("a.pt", worn), load("b.pt", worn)
    for utterance in UTTERANCES:
        slow = f"{utterance.key}@0.9"
        assert np.array_equal(plain[utterance.key], once[utterance.key])
        assert np.array_equal(once[slow], twice[slow])
        assert len(once[slow]) == len(plain[slow])
        assert (once[slow] != plain[slow]).mean() > 0.1
    again = load("a.pt")  # other ones than the file has
    assert all(np.array_equal(again[key], codes) for key, codes in plain.items())


def test_what_cannot_be_read_is_left_out(tmp_path, capsys):
    lost = replace(UTTERANCES[0], key="lost", path=tmp_path / "lost.flac")
    codes = load_codes([lost, UTTERANCES[1]], make_loaded(), tmp_path / "codes.pt", 1, "cpu")
    assert list(codes) == [UTTERANCES[1].key]
    assert "left out: lost" in capsys.readouterr().out


def test_codes_with_a_microphone_for_each_recording_are_made_anew(tmp_path):
    codec, cache = make_loaded(), tmp_path / "codes.pt"
    first = load_codes(UTTERANCES, codec, cache, 1, "cpu", (1.0, 0.9))
    kept = read_kept(cache)
    del kept["wardrobe"]
    for colour_db, same in ((0.0, True), (4.0, False)):
        kept["codes"] = kept["codes"] * 0
        write_kept(kept | {"colour_db": colour_db}, cache)
        made = load_codes(UTTERANCES, codec, cache, 1, "cpu", (1.0, 0.9), Wardrobe(colour_db))
        key = UTTERANCES[0].key
        assert np.array_equal(made[key], 0 * first[key]) is same
