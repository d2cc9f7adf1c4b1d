"""A model folder that is damaged is refused in a line that names it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from audiossm.checkpoint import save_model
from audiossm.codec import Codec, CodecConfig, LoadedCodec
from audiossm.config import load_toml, to_dict
from audiossm.errors import ModelError
from audiossm.models import LoadedRecogniser, save_recogniser
from tiny_model import make_transcriber


@pytest.fixture
def folder(tmp_path) -> Path:
    network = make_transcriber().network
    config = {"recogniser": to_dict(network.config)}
    save_model(tmp_path / "toy", "recogniser", "a line", config, network.state_dict())
    return tmp_path / "toy"


@pytest.fixture
def on_a_codec(tmp_path) -> Path:
    """A recogniser that has no encoder of its own, beside the codec that has it."""
    network = make_transcriber().network
    codec = Codec(CodecConfig.tiny())
    codec.encoder.load_state_dict(network.encoder.state_dict())
    tables = {"codec": to_dict(codec.config)}
    save_model(tmp_path / "voice", "codec", "", tables, codec.state_dict())
    save_recogniser(tmp_path / "ears", "", network, LoadedCodec.load(tmp_path / "voice"))
    return tmp_path / "ears"


def test_a_recogniser_on_a_codec_is_what_it_was_with_the_encoder_inside(folder, on_a_codec):
    whole, parted = LoadedRecogniser.load(folder), LoadedRecogniser.load(on_a_codec)
    x = 0.1 * torch.randn(1, 6400)
    assert torch.equal(whole.network(x), parted.network(x))
    assert whole.hash != parted.hash
    assert not any("encoder" in name for name in load_file(on_a_codec / "model.safetensors"))


def test_another_codec_than_that_of_the_training_is_refused(on_a_codec):
    codec = Codec(CodecConfig.tiny())
    folder = on_a_codec.parent / "voice"
    save_model(folder, "codec", "", {"codec": to_dict(codec.config)}, codec.state_dict())
    with pytest.raises(ModelError) as caught:
        LoadedRecogniser.load(on_a_codec)
    old = load_toml(on_a_codec / "config.toml")["codec"]["hash"]
    assert str(caught.value) == (
        f"{on_a_codec}: was trained on codec 'voice' with frames of hash {old}, but that codec's "
        f"now have {LoadedCodec.load(folder).frames_hash}: train the model on it again, or bring "
        "the old one back"
    )


def test_a_codec_whose_decoder_was_trained_on_still_serves(on_a_codec):
    before = LoadedRecogniser.load(on_a_codec)
    folder = on_a_codec.parent / "voice"
    codec = LoadedCodec.load(folder).network
    codec.decoder.head.bias += 0.1
    save_model(folder, "codec", "", {"codec": to_dict(codec.config)}, codec.state_dict())
    x = 0.1 * torch.randn(1, 6400)
    assert torch.equal(LoadedRecogniser.load(on_a_codec).network(x), before.network(x))


def test_of_a_codec_only_the_encoder_is_read(on_a_codec):
    path = on_a_codec.parent / "voice" / "model.safetensors"
    tensors = load_file(path)
    damage = {"decoder.head.bias": tensors["decoder.head.bias"] / 0}
    save_file(tensors | damage, path)
    assert LoadedRecogniser.load(on_a_codec).name == "ears"
    name = next(name for name in tensors if name.startswith("encoder."))
    save_file(tensors | {name: tensors[name] * float("nan")}, path)
    with pytest.raises(ModelError, match=f"{name} has values that are not finite"):
        LoadedRecogniser.load(on_a_codec)
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, path)
    with pytest.raises(ModelError, match="lacks 1 tensor"):
        LoadedRecogniser.load(on_a_codec)


def test_a_codec_that_is_missing_or_has_another_encoder_is_refused(on_a_codec):
    (on_a_codec.parent / "voice").rename(on_a_codec.parent / "gone")
    with pytest.raises(ModelError, match="no model 'voice', the codec that it stands on: copy"):
        LoadedRecogniser.load(on_a_codec)
    (on_a_codec.parent / "gone").rename(on_a_codec.parent / "voice")
    path = on_a_codec / "config.toml"
    path.write_text(path.read_text().replace("kernel = 7", "kernel = 5"), encoding="utf-8")
    with pytest.raises(ModelError, match="but that of codec 'voice' is EncoderConfig"):
        LoadedRecogniser.load(on_a_codec)


def test_a_word_is_said_before_its_late_spikes(folder):
    model = LoadedRecogniser.load(folder)
    assert model.word_span(50, 60, 160) == (1.0, 1.2)
    with (folder / "config.toml").open("a") as config:
        config.write("[alignment]\nletters_start = [0, -10, -20]\nletters_end = [0, -5, -9]\n")
    measured = LoadedRecogniser.load(folder)
    assert measured.word_span(50, 60, 0) == (1.0, 1.2)
    assert measured.word_span(50, 60, 160) == pytest.approx((0.8, 1.1))
    assert measured.word_span(50, 60, 320) == pytest.approx((0.6, 1.02))
    assert measured.word_span(3, 4, 320) == pytest.approx((0.0, 0.02))


def test_a_whole_folder_loads(folder):
    assert LoadedRecogniser.load(folder).name == "toy"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("hop = ", "hop = 0 #", "encoder.hop is 0, must be above 0"),
        ("kernel = ", "kernel = -7 #", "encoder.kernel is -7, must be above 0"),
        ("[recogniser]", "recogniser = 3\n[other]", "missing table 'recogniser'"),
        ("a_activation = ", "a_activation = 'foo' #", "a_activation must be"),
        ("d_model = ", f"d_model = {10**15} #", "memory|overflow"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(folder, old, new, message):
    path = folder / "config.toml"
    text = path.read_text(encoding="utf-8")
    if "recogniser" in old:  # a table and its parts can't stand beside a number of that name
        text = text[: text.index("[recogniser.")]
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ModelError, match=message) as caught:
        LoadedRecogniser.load(folder)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "damage", [lambda t: t * float("nan"), lambda t: t / 0, lambda t: t.long()]
)
def test_weights_that_are_no_numbers_are_refused(folder, damage):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name, tensor in tensors.items() if tensor.any())
    save_file(tensors | {name: damage(tensors[name])}, path)
    with pytest.raises(ModelError, match=f"{name} has values that are not finite"):
        LoadedRecogniser.load(folder)
