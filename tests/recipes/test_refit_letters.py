"""A head of letters that is fitted anew: what it sees is what it will, and nothing else changes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from audiossm.checkpoint import save_model
from audiossm.codec import Codec, CodecConfig, LoadedCodec
from audiossm.config import to_dict
from audiossm.manifest import read_manifest
from audiossm.models import LoadedRecogniser, save_recogniser
from audiossm.streaming import Transcriber
from audiossm.streaming.listener import Listener
from audiossm.text import Vocabulary, normalise_text
from audiossm.train.corpus import Corpus
from audiossm.train.losses import ctc
from recipe_run import load_recipe
from tiny_model import SPEECH, make_transcriber

RECIPE = load_recipe("transcribe", "refit_letters")
SAID = ("river", "bread", "letter", "garden")


@pytest.fixture
def model(tmp_path) -> Path:
    """A recogniser with phones that stands on a codec beside it."""
    network = make_transcriber().network
    codec = Codec(CodecConfig.tiny())
    codec.encoder.load_state_dict(network.encoder.state_dict())
    tables = {"codec": to_dict(codec.config)}
    save_model(tmp_path / "voice", "codec", "", tables, codec.state_dict())
    save_recogniser(tmp_path / "ears", "", network, LoadedCodec.load(tmp_path / "voice"))
    return tmp_path / "ears"


@pytest.fixture
def manifest(tmp_path) -> Path:
    """Four recordings, and others that letters aren't fitted on: digits, and no real voice."""
    lines = []
    for line in (SPEECH / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["key"] in SAID:
            row |= {"path": str(SPEECH / row["path"]), "source": "read aloud"}
            lines += [row]
    lines += [lines[0] | {"key": "digits", "text": "Platform 9."}]
    lines += [lines[1] | {"key": "voice", "source": "synthetic/espeak"}]
    path = tmp_path / "train-librispeech.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    return path


def load_corpus(network, manifest) -> Corpus:
    vocabulary = Vocabulary(network.config.pieces)
    utterances = [u for u in read_manifest(manifest) if u.key in SAID]
    labellers = [lambda u: vocabulary.encode(normalise_text(u.text))]
    return Corpus.load(utterances, labellers, ((),))


def measure(network, heard) -> float:
    """The CTC loss of the head of letters."""
    losses = [
        ctc(
            network.log_probs(seen.unsqueeze(0)),
            torch.tensor([network.config.stack * len(seen)]),
            [labels],
        ).item()
        for seen, labels in heard
    ]
    return sum(losses) / len(losses)


def test_the_head_is_fitted_on_what_it_sees_in_a_stream(manifest):
    transcriber = make_transcriber()
    corpus = load_corpus(transcriber.network, manifest)
    heard = RECIPE.hear(transcriber.network, corpus)
    assert len(heard) == len(SAID)
    for seen, labels in heard:
        samples = corpus.cut(corpus.labels[0].index(labels)).numpy() / np.float32(32768)
        listener = Listener(transcriber, 16000, max(transcriber.lookaheads_ms))
        listener.push(samples)
        listener.finish()
        assert len(seen) == -(-len(samples) // transcriber.config.frame_size)
        letters = transcriber.network.log_probs(seen.unsqueeze(0))[0]
        expected = torch.from_numpy(listener.heard().letters[: len(letters)])
        torch.testing.assert_close(letters, expected, rtol=0, atol=1e-4)


def test_the_head_learns_its_letters_and_all_else_stays(
    tmp_path, monkeypatch, capsys, model, manifest
):
    monkeypatch.setattr(RECIPE, "load_toml", lambda path: {"data": {"train": [manifest.stem]}})
    options = ["--data", str(tmp_path), "--codec", str(tmp_path / "voice"), "--passes", "100"]
    out = tmp_path / "fitted"
    options += ["--lr", "0.05", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["refit_letters.py", str(model), *options])
    RECIPE.main()
    assert "heard 4 utterances" in capsys.readouterr().out
    before, after = LoadedRecogniser.load(model).network, LoadedRecogniser.load(out).network
    for name, weight in before.state_dict().items():
        same = torch.equal(weight, after.state_dict()[name])
        assert same != name.startswith("head."), name
    heard = RECIPE.hear(before, load_corpus(before, manifest))
    assert measure(after, heard) < 0.5 * measure(before, heard)
    assert Transcriber.load(out).name == "fitted"


def test_no_more_speech_is_heard_than_asked_for(tmp_path, monkeypatch, capsys, model, manifest):
    monkeypatch.setattr(RECIPE, "load_toml", lambda path: {"data": {"train": [manifest.stem]}})
    monkeypatch.setattr(RECIPE, "fit", lambda *args: None)
    options = ["--data", str(tmp_path), "--codec", str(tmp_path / "voice"), "--minutes", "0.17"]
    out = ["--out", str(tmp_path / "fitted")]
    monkeypatch.setattr(sys, "argv", ["refit_letters.py", str(model), *options, *out])
    RECIPE.main()
    assert "heard 2 utterances" in capsys.readouterr().out
