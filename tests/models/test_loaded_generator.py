"""The generator as it is loaded: folders, its codec, voices, and a frame told in few sums."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from audiossm.checkpoint import ModelFolder, save_model
from audiossm.config import to_dict
from audiossm.errors import ModelError
from audiossm.graphs import Stepper, Ways
from audiossm.graphs.exporter import export_graph
from audiossm.models import (
    GeneratorConfig,
    LoadedGenerator,
    Voice,
    find_voice,
    list_voices,
    load_voice,
    save_generator,
    save_voice,
    shipped_generator,
)
from audiossm.nn import map_state, named_tensors
from audiossm.units import ENDS, Unit
from tiny_speaker import make_generator, make_speaker
from toy_codec import make_audio_codec, make_codec

CONFIG = GeneratorConfig.tiny()


@pytest.fixture
def folder(tmp_path):
    """A generator beside its codec."""
    codec = make_codec()
    save_model(tmp_path / "toy", "codec", "", {"codec": to_dict(codec.config)}, codec.state_dict())
    save_generator(tmp_path / "tiny", "says", make_generator(), make_audio_codec())
    return tmp_path / "tiny"


def make_voice(generator, name="anna", with_state=True, seed=1) -> Voice:
    rng = np.random.default_rng(seed)
    vector = rng.normal(size=CONFIG.d_voice).astype(np.float16).astype(np.float32)
    state = None
    if with_state:
        noise = torch.Generator().manual_seed(seed)
        state = map_state(
            lambda part: torch.randn(part.shape, generator=noise).half().float(),
            generator.network.init_state(1),
        )
    return Voice(
        name=name, vector=vector, pace=0.125, state=state, origin="made up", licence="CC0-1.0"
    )


def test_a_folder_holds_a_generator_and_names_its_codec(folder):
    loaded = LoadedGenerator.load(folder)
    assert loaded.name == "tiny" and loaded.config == CONFIG and loaded.codec.name == "toy"
    assert (loaded.sample_rate, loaded.frame_size) == (16000, 320)
    weight = make_generator().head.weight
    torch.testing.assert_close(loaded.network.head.weight, weight, rtol=1e-3, atol=1e-3)


def test_another_codec_is_refused_but_not_another_decoder(folder):
    codec = make_codec()
    codec.decoder.head.weight.mul_(0.5)
    place = folder.parent / "toy"
    save_model(place, "codec", "", {"codec": to_dict(codec.config)}, codec.state_dict())
    LoadedGenerator.load(folder)
    codec.to_latent.weight.mul_(0.5)
    save_model(place, "codec", "", {"codec": to_dict(codec.config)}, codec.state_dict())
    with pytest.raises(ModelError, match="was trained on codes of codec 'toy'"):
        LoadedGenerator.load(folder)


def test_what_is_no_generator_is_refused(folder, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="a codec model can't speak"):
        LoadedGenerator.load(tmp_path / "toy")
    save_model(tmp_path / "empty", "generator", "", {}, {"x": torch.zeros(1)})
    with pytest.raises(ModelError, match="missing key"):
        LoadedGenerator.load(tmp_path / "empty")
    monkeypatch.setattr("audiossm.checkpoint.model_names", lambda: [])
    assert shipped_generator() is None
    with pytest.raises(ModelError, match="no generator is shipped"):
        LoadedGenerator.load()


def test_a_frame_is_told_as_the_network_itself_does():
    generator, network = make_speaker(), make_generator()
    rng = np.random.default_rng(0)
    vector = rng.normal(size=CONFIG.d_voice).astype(np.float32)
    who = generator.tell_voice(vector, 0.3)
    for trial in range(8):
        codes = rng.integers(CONFIG.num_codes + 1, size=CONFIG.num_groups)
        text = rng.normal(size=CONFIG.backbone.d_model).astype(np.float32)
        age = [0, 1, CONFIG.longest, 1000][trial % 4]
        expected = network.embed(
            torch.from_numpy(codes).view(1, 1, -1),
            torch.from_numpy(text).view(1, 1, -1),
            torch.tensor([[age]]),
            torch.from_numpy(vector).unsqueeze(0),
            torch.tensor([0.3]),
        )
        found = generator.embed(codes, text, age, who)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_unit_is_read_among_its_neighbours_as_within_the_whole_text():
    generator, network = make_speaker(), make_generator()
    rng = np.random.default_rng(0)
    rows = np.stack(
        [rng.integers(1, 50, size=12), rng.integers(3, size=12), rng.integers(4, size=12)], axis=1
    )
    whole = network.read(torch.from_numpy(rows).unsqueeze(0))[0].numpy()
    before, after = CONFIG.units_before, CONFIG.units_after
    padded = np.pad(rows, ((before, after), (0, 0)))
    for at in range(len(rows)):
        window = padded[at : at + before + 1 + after]
        np.testing.assert_allclose(generator.read(window), whole[at], rtol=1e-5, atol=1e-5)
    assert generator.row(Unit("_", 0, 0, 0)) == (1, 0, 0)
    assert generator.row(Unit("no phone", 2, ENDS, 0)) == (0, 2, 2)


@pytest.mark.parametrize("with_state", [True, False])
def test_a_voice_is_a_small_file_of_its_model(folder, with_state):
    generator = LoadedGenerator.load(folder)
    assert list_voices(generator) == []
    voice = make_voice(generator, with_state=with_state)
    path = save_voice(generator, voice)
    assert path == folder / "voices" / "anna.safetensors"
    save_voice(generator, make_voice(generator, "bert", seed=2))
    assert list_voices(generator) == ["anna", "bert"]
    assert find_voice(generator, "anna").gain_db == 0.0
    save_voice(generator, replace(voice, gain_db=-2.5))
    for found in (find_voice(generator, "anna"), find_voice(generator, path)):
        assert found.gain_db == -2.5
        assert (found.name, found.pace) == ("anna", 0.125)
        assert (found.origin, found.licence) == ("made up", "CC0-1.0")
        np.testing.assert_array_equal(found.vector, voice.vector)
        assert (found.state is None) == (not with_state)
        if with_state:
            for (name, a), (_, b) in zip(
                named_tensors(found.state), named_tensors(voice.state), strict=True
            ):
                assert torch.equal(a, b), name


def test_the_models_own_voice_is_the_default(folder):
    generator = LoadedGenerator.load(folder)
    nobody = find_voice(generator)
    assert nobody.name == "" and not nobody.vector.any() and nobody.state is None
    save_voice(generator, make_voice(generator))
    config = folder / "config.toml"
    config.write_text('voice = "anna"\n' + config.read_text())
    again = LoadedGenerator.load(folder)
    assert again.hash == generator.hash
    assert find_voice(again).name == "anna"


def test_a_voice_that_there_is_not_is_refused_with_those_that_there_are(folder):
    generator = LoadedGenerator.load(folder)
    with pytest.raises(ModelError, match="no voice 'carl': model 'tiny' has none"):
        find_voice(generator, "carl")
    save_voice(generator, make_voice(generator))
    with pytest.raises(ModelError, match="no voice 'carl': model 'tiny' has anna; or give a file"):
        find_voice(generator, "carl")
    with pytest.raises(ModelError, match="can't read this voice"):
        find_voice(generator, "carl.safetensors")


def test_a_damaged_or_foreign_voice_is_refused(folder):
    generator = LoadedGenerator.load(folder)
    path = save_voice(generator, make_voice(generator))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="can't read this voice"):
        load_voice(generator, path)
    fields = {"version": 1, "name": "x", "model": generator.hash, "origin": "", "licence": ""}
    good = {"vector": torch.zeros(CONFIG.d_voice), "pace": torch.zeros(1)}
    for change, tensors, message in (
        ({"version": 2}, good, "voice version 2"),
        ({"model": "f" * 32}, good, "with hash ffff"),
        ({}, good | {"pace": torch.zeros(2)}, "aren't those of a voice"),
        ({}, good | {"more": torch.zeros(2)}, "aren't those of a voice"),
        ({}, good | {"vector": torch.zeros(CONFIG.d_voice).long()}, "aren't those of a voice"),
        ({}, good | {"pace": torch.full((1,), float("nan"))}, "values that no voice has"),
        ({"gain_db": 25.0}, good, "values that no voice has"),
        ({"gain_db": float("nan")}, good, "values that no voice has"),
        ({"gain_db": "loud"}, good, "can't read this voice"),
    ):
        save_file(tensors, path, {"audiossm-voice": json.dumps(fields | change)})
        with pytest.raises(ModelError, match=message):
            load_voice(generator, path)
    save_file(good, path)
    with pytest.raises(ModelError, match="not a voice"):
        load_voice(generator, path)


def test_a_voice_says_what_it_is(folder):
    generator = LoadedGenerator.load(folder)
    for name, origin, licence, message in (
        ("../anna", "a", "b", "voice name"),
        ("anna", "", "b", "says its origin in one line"),
        ("anna", "a", "b\nc", "says its licence in one line"),
    ):
        voice = Voice(
            name=name,
            vector=np.zeros(CONFIG.d_voice, np.float32),
            origin=origin,
            licence=licence,
        )
        with pytest.raises(ModelError, match=message):
            save_voice(generator, voice)


def test_a_generator_of_more_groups_than_its_codec_has_is_refused():
    network = make_generator()
    object.__setattr__(network.config, "num_groups", 9)
    with pytest.raises(ModelError, match="makes 9 groups"):
        LoadedGenerator(network, make_audio_codec(), name="x", model_hash="0" * 32)


def test_a_graph_says_what_the_network_says(folder):
    step = LoadedGenerator.load(folder, backend="torch").ways.step
    (folder / "graphs").mkdir()
    (folder / "graphs" / step.file_name(1)).write_bytes(export_graph(step, 1))
    ways = LoadedGenerator.load(folder).ways
    assert ways.choose(1) == "onnx"
    state = step.init_state(1)
    steppers = [Stepper(Ways(step, torch.device("cpu"), "torch"), state), Stepper(ways, state, 1)]
    for x in torch.randn(40, 1, 1, CONFIG.backbone.d_model):
        (expected,), (found,) = (stepper.step(x) for stepper in steppers)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_step_s_graph_leaves_out_what_tells_a_frame(folder):
    step = LoadedGenerator.load(folder).ways.step
    names = {name.split(".")[0] for name in step.weights()}
    assert names == {"layers", "norm_f", "head"}
    assert ModelFolder.open(folder).kind == "generator"
