"""A shrunk codec keeps its place: its dependants are told, and nobody else is let in."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from audiossm.checkpoint import save_model
from audiossm.codec import Codec, LoadedCodec
from audiossm.config import load_toml, to_dict
from audiossm.errors import ModelError
from audiossm.models import LoadedRecogniser, save_recogniser
from recipe_run import load_recipe
from tiny_model import make_transcriber
from toy_codec import make_codec


def save_codec(folder: Path, codec: Codec) -> LoadedCodec:
    save_model(folder, "codec", "a line", {"codec": to_dict(codec.config)}, codec.state_dict())
    return LoadedCodec.load(folder)


@pytest.fixture
def codec() -> Codec:
    made = make_codec()
    made.encoder.load_state_dict(make_transcriber().network.encoder.state_dict())
    return made


@pytest.fixture
def trained(tmp_path, codec) -> LoadedCodec:
    """As a run leaves it, in a folder of another name."""
    return save_codec(tmp_path / "run", codec)


@pytest.fixture
def ears(tmp_path, codec) -> Path:
    """A recogniser on the codec "voice", its config with a comment."""
    voice = save_codec(tmp_path / "voice", codec)
    save_recogniser(tmp_path / "ears", "", make_transcriber().network, voice)
    with (tmp_path / "ears" / "config.toml").open("a") as config:
        config.write("# a comment\n")
    return tmp_path / "ears"


@pytest.fixture
def shrink(tmp_path, monkeypatch) -> Callable[..., None]:
    recipe = load_recipe("codec", "shrink")

    def run(*options: object, out: str = "voice") -> None:
        command = ["shrink.py", *map(str, options), "--out", str(tmp_path / out)]
        monkeypatch.setattr(sys, "argv", command)
        recipe.main()

    return run


def test_a_dependant_goes_on_with_nearly_the_same_frames(tmp_path, trained, ears, shrink, capsys):
    before, text = LoadedRecogniser.load(ears), (ears / "config.toml").read_text()
    shrink(tmp_path / "run", "--dependants", ears)
    shrunk = LoadedCodec.load(tmp_path / "voice")
    assert shrunk.frames_hash != trained.frames_hash
    pin = {"name": "voice", "hash": shrunk.frames_hash, "rounded_from": trained.frames_hash}
    assert load_toml(ears / "config.toml")["codec"] == pin
    old, new = (f'hash = "{codec.frames_hash}"\n' for codec in (trained, shrunk))
    added = f'{new}rounded_from = "{trained.frames_hash}"\n'
    assert (ears / "config.toml").read_text() == text.replace(old, added)
    after = LoadedRecogniser.load(ears)
    x = 0.1 * torch.randn(1, 6400)
    frames = before.network.encoder(x)
    off = (after.network.encoder(x) - frames).std() / frames.std()
    assert 1e-4 < off < 0.03
    out = capsys.readouterr().out
    assert f"pinned to frames {shrunk.frames_hash}, rounded from {trained.frames_hash}" in out
    text = (ears / "config.toml").read_text()
    shrink(tmp_path / "run", "--dependants", ears)
    assert (ears / "config.toml").read_text() == text
    assert "stands on these frames already" in capsys.readouterr().out


def test_a_decoder_that_was_trained_on_leaves_the_rounded_frames(tmp_path, trained, ears, shrink):
    shrink(tmp_path / "run", "--dependants", ears)
    first = LoadedCodec.load(tmp_path / "voice")
    network = LoadedCodec.load(tmp_path / "voice").network
    network.decoder.head.bias += 0.1
    later = save_codec(tmp_path / "later", network)
    assert later.frames_hash == first.frames_hash
    shrink(tmp_path / "later", "--dependants", ears)
    second = LoadedCodec.load(tmp_path / "voice")
    assert second.frames_hash == first.frames_hash and second.hash != first.hash
    LoadedRecogniser.load(ears)


def test_a_model_on_other_frames_is_left_alone(tmp_path, codec, ears, shrink):
    codec.encoder.in_proj.bias += 0.1
    other = save_codec(tmp_path / "run", codec)
    text = (ears / "config.toml").read_text()
    with pytest.raises(ModelError, match=f"'voice' with frames of hash {other.frames_hash}"):
        shrink(tmp_path / "run", "--dependants", ears)
    assert (ears / "config.toml").read_text() == text
    whole = tmp_path / "whole"
    network = make_transcriber().network
    tables = {"recogniser": to_dict(network.config)}
    save_model(whole, "recogniser", "", tables, network.state_dict())
    with pytest.raises(ModelError, match="whole: doesn't stand on codec 'voice'"):
        shrink(tmp_path / "run", "--dependants", whole)


def test_a_recogniser_shrinks_too_but_has_no_dependants(tmp_path, ears, shrink, capsys):
    before = (ears / "model.safetensors").stat().st_size
    shrink(ears, out="small")
    size = (tmp_path / "small" / "model.safetensors").stat().st_size
    assert size < 0.8 * before
    assert capsys.readouterr().out.endswith(f"{size} bytes, {before} before\n")
    LoadedRecogniser.load(tmp_path / "small")
    with pytest.raises(SystemExit) as caught:
        shrink(ears, "--dependants", ears)
    assert caught.value.code == 2


def test_what_is_kept_makes_the_same_frames(tmp_path, trained, ears, shrink):
    shrink(tmp_path / "run", "--keep", "encoder.")
    assert LoadedCodec.load(tmp_path / "voice").frames_hash == trained.frames_hash
    LoadedRecogniser.load(ears)
