"""Model folders: what is saved loads again, and what doesn't fit is refused."""

import stat

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from audiossm import checkpoint
from audiossm.checkpoint import (
    ModelFolder,
    load_weights,
    make_empty,
    model_names,
    read_weights,
    save_model,
    shrink_model,
)
from audiossm.config import to_dict
from audiossm.errors import ModelError
from audiossm.models import Recogniser
from audiossm.rounding import restore_rows, round_rows
from audiossm.streaming import Transcriber
from tiny_model import make_transcriber, read_speech


@pytest.fixture
def module() -> nn.Linear:
    return nn.Linear(3, 2)


@pytest.fixture
def folder(tmp_path, module):
    save_model(tmp_path / "toy", "toy", "a line", {"sizes": {"width": 3}}, module.state_dict())
    return tmp_path / "toy"


def edit(folder, old: str, new: str) -> None:
    path = folder / "config.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def write_weights(folder, **tensors: torch.Tensor) -> None:
    save_file(tensors, folder / "model.safetensors")


def load(folder) -> str:
    return load_weights(ModelFolder.open(folder), nn.Linear(3, 2))


def test_what_was_saved_loads_again(folder, module):
    opened = ModelFolder.open(folder)
    assert (opened.name, opened.kind, opened.description) == ("toy", "toy", "a line")
    assert opened.config["sizes"] == {"width": 3}
    other = nn.Linear(3, 2)
    load_weights(opened, other)
    for name, tensor in module.state_dict().items():
        assert other.state_dict()[name].dtype == torch.float32
        assert torch.equal(other.state_dict()[name], tensor.half().float())


def test_a_model_is_opened_by_its_path_as_text_too(folder):
    assert ModelFolder.open(str(folder)).path == folder.resolve()


def test_everybody_may_read_a_saved_model(folder):
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    config = stat.S_IMODE((folder / "config.toml").stat().st_mode)
    assert modes == {config}


def test_a_shipped_model_is_found_by_its_name(folder, monkeypatch):
    monkeypatch.setattr(checkpoint, "shipped_models", lambda: folder.parent)
    assert model_names() == ["toy"]
    assert ModelFolder.open("toy").path == folder
    with pytest.raises(ModelError, match="no model 'joy': shipped are toy; or give a model's"):
        ModelFolder.open("joy")


def test_without_shipped_models_there_are_no_names(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "shipped_models", lambda: tmp_path / "nowhere")
    assert model_names() == []
    with pytest.raises(ModelError, match="shipped are none"):
        ModelFolder.open("toy")


def test_a_folder_that_holds_no_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"not a model folder, it has no config\.toml"):
        ModelFolder.open(tmp_path)


@pytest.mark.parametrize("key", ["format_version", "kind"])
def test_a_missing_key_is_refused(folder, key):
    edit(folder, key, f"other_{key}")
    with pytest.raises(ModelError, match=rf"config\.toml: missing key '{key}'"):
        ModelFolder.open(folder)


def test_another_version_is_refused(folder):
    edit(folder, "format_version = 1", "format_version = 3")
    with pytest.raises(ModelError, match="version 3, but this audiossm reads versions 1 and 2"):
        ModelFolder.open(folder)


def test_a_damaged_config_is_refused(folder):
    edit(folder, "kind =", "kind")
    with pytest.raises(ModelError, match=r"config\.toml: not valid TOML"):
        ModelFolder.open(folder)


def test_missing_weights_are_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        ModelFolder.open(folder)


@pytest.mark.parametrize("keep", [0, 7, 60, -1])
def test_a_damaged_file_of_weights_is_refused(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model\.safetensors: can't read these weights"):
        load(folder)


def test_a_missing_tensor_is_refused(folder):
    write_weights(folder, weight=torch.zeros(2, 3))
    with pytest.raises(ModelError, match=r"lacks 1 tensor\(s\), the first bias: config and"):
        load(folder)


def test_an_unknown_tensor_is_refused(folder):
    write_weights(folder, weight=torch.zeros(2, 3), bias=torch.zeros(2), scale=torch.zeros(1))
    with pytest.raises(ModelError, match=r"has the unknown 1 tensor\(s\), the first scale"):
        load(folder)


def test_a_tensor_of_another_shape_is_refused(folder):
    write_weights(folder, weight=torch.zeros(3, 2), bias=torch.zeros(2))
    with pytest.raises(ModelError, match=r"weight has shape \(3, 2\), config.toml says \(2, 3\)"):
        load(folder)


def test_a_module_is_as_before_when_its_weights_are_refused(folder, module):
    write_weights(folder, weight=torch.zeros(2, 3), bias=torch.zeros(3))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(ModelError):
        load_weights(ModelFolder.open(folder), module)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_hash_is_of_the_weights_and_of_the_sizes(folder, module):
    first = load(folder)
    assert len(first) == 32 and load(folder) == first
    edit(folder, "a line", "another line")
    assert load(folder) == first
    edit(folder, "width = 3", "width = 4")
    resized = load(folder)
    with torch.no_grad():
        module.weight[1, 2] += 0.01
    save_model(folder, "toy", "a line", {"sizes": {"width": 3}}, module.state_dict())
    assert len({first, resized, load(folder)}) == 3


def test_a_weight_that_float16_cannot_hold_is_not_saved(folder, module):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with torch.no_grad():
        module.bias[0] = 1e6
    with pytest.raises(ModelError, match="bias has values that float16 can't hold"):
        save_model(folder, "toy", "", {}, module.state_dict())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.fixture
def network() -> nn.Module:
    """A matrix, a kernel, and what is too small to be rounded."""
    layers = {"wide": nn.Linear(40, 50), "kernel": nn.Conv1d(30, 30, 5), "tiny": nn.Linear(30, 30)}
    layers["gain"] = nn.ParameterList([torch.randn(3, 1, 400)])
    return nn.ModuleDict(layers).requires_grad_(False)


@pytest.fixture
def large(tmp_path, network):
    save_model(tmp_path / "large", "toy", "", {"sizes": {"width": 40}}, network.state_dict())
    (tmp_path / "large" / "README.md").write_text("# the card\n", encoding="utf-8")
    with (tmp_path / "large" / "config.toml").open("a") as config:
        config.write("# a comment\n")
    return ModelFolder.open(tmp_path / "large")


@pytest.fixture
def shrunk(tmp_path, large):
    shrink_model(tmp_path / "shrunk", large)
    return ModelFolder.open(tmp_path / "shrunk")


ROUNDED = {"wide.weight", "kernel.weight", "gain.0"}


def test_a_shrunk_model_loads_as_float32_near_what_it_was(shrunk, large, network):
    assert shrunk.weights.stat().st_size < 0.7 * large.weights.stat().st_size
    before = {name: tensor.clone() for name, tensor in read_weights(large).items()}
    load_weights(shrunk, network)
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == torch.float32
        if name in ROUNDED:
            expected = restore_rows(*round_rows(before[name]))
            assert not torch.equal(tensor, before[name])
            assert torch.equal(tensor, expected)
        else:
            assert torch.equal(tensor, before[name])


def test_the_stored_form_is_what_the_format_says(shrunk):
    stored = load_file(shrunk.weights)
    assert {name for name, tensor in stored.items() if tensor.dtype == torch.int8} == ROUNDED
    read = read_weights(shrunk)
    for name in ROUNDED:
        numbers, codes = stored.pop(name), stored.pop(f"{name}.scale")
        for row, code, weights in zip(numbers, codes.tolist(), read[name], strict=True):
            assert torch.equal(weights, row.float() * (8 + code % 8) * 2.0 ** (code // 8 - 24))
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}


def test_config_and_card_of_a_shrunk_model_are_what_they_were(shrunk, large):
    for name in ("config.toml", "README.md"):
        assert (shrunk.path / name).read_bytes() == (large.path / name).read_bytes()


def test_shrinking_again_changes_nothing(shrunk, tmp_path):
    before = shrunk.weights.read_bytes()
    shrink_model(tmp_path / "again", shrunk)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == before
    shrink_model(shrunk.path, shrunk)
    assert shrunk.weights.read_bytes() == before


def test_a_shrunk_model_loses_nothing_as_float16(shrunk, tmp_path, network):
    load_weights(shrunk, network)
    save_model(tmp_path / "large", "toy", "", {}, network.state_dict())
    for name, tensor in read_weights(ModelFolder.open(tmp_path / "large")).items():
        assert torch.equal(tensor, network.state_dict()[name])


def test_six_bits_take_less_room_and_load_as_what_they_were_rounded_to(shrunk, large, tmp_path):
    shrink_model(tmp_path / "six", large, bits=6)
    packed = ModelFolder.open(tmp_path / "six")
    assert packed.config["format_version"] == 2
    text = (large.path / "config.toml").read_text()
    assert (tmp_path / "six" / "config.toml").read_text() == text.replace("= 1", "= 2", 1)
    assert packed.weights.stat().st_size < shrunk.weights.stat().st_size
    before, after = read_weights(large), read_weights(packed)
    stored = load_file(packed.weights)
    whole = {name for name, kind in stored.items() if kind.dtype == torch.uint8}
    whole -= {f"{name}.scale" for name in ROUNDED}
    assert whole and whole < ROUNDED
    for name in ROUNDED:
        bits = 6 if name in whole else 8  # rows that aren't fours stay bytes
        assert torch.equal(after[name], restore_rows(*round_rows(before[name], bits=bits)))
    shrink_model(tmp_path / "again", packed, bits=6)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == packed.weights.read_bytes()
    shrink_model(tmp_path / "eight", packed)  # what has six bits is exact in eight
    for name, tensor in read_weights(ModelFolder.open(tmp_path / "eight")).items():
        assert torch.equal(tensor, after[name])
    assert ModelFolder.open(tmp_path / "eight").config["format_version"] == 1


def test_other_bits_are_refused(large, tmp_path):
    with pytest.raises(ValueError, match="bits must be 8 or 6, not 7"):
        shrink_model(tmp_path / "seven", large, bits=7)


@pytest.mark.parametrize("damage", ["shape", "scale"])
def test_damaged_numbers_of_six_bits_are_refused(large, tmp_path, damage):
    shrink_model(tmp_path / "six", large, bits=6)
    packed = ModelFolder.open(tmp_path / "six")
    stored = load_file(packed.weights)
    name = next(n for n, t in stored.items() if t.dtype == torch.uint8 and f"{n}.scale" in stored)
    if damage == "shape":
        stored[name] = stored[name][..., :-1].contiguous()
    else:
        del stored[f"{name}.scale"]
    save_file(stored, packed.weights)
    with pytest.raises(ModelError, match="the file is damaged"):
        read_weights(packed)


def test_what_is_to_be_kept_is_not_rounded_and_steps_are_exact(large, tmp_path):
    shrink_model(tmp_path / "some", large, {"tiny.weight": 1 / 128}, keep=("wide.", "kernel."))
    before, after = read_weights(large), read_weights(ModelFolder.open(tmp_path / "some"))
    for name in ("wide.weight", "kernel.weight"):
        assert torch.equal(after[name], before[name])
    assert torch.equal(128 * after["tiny.weight"], (128 * before["tiny.weight"]).round())


@pytest.mark.parametrize(
    "scale",
    [None, torch.zeros(49, dtype=torch.uint8), torch.zeros(50), torch.zeros(50, 1).byte()],
    ids=["none", "too few", "no codes", "too many dimensions"],
)
def test_whole_numbers_without_their_scales_are_refused(shrunk, network, scale):
    tensors = load_file(shrunk.weights)
    del tensors["wide.weight.scale"]
    save_file(tensors | ({} if scale is None else {"wide.weight.scale": scale}), shrunk.weights)
    with pytest.raises(ModelError) as caught:
        load_weights(shrunk, network)
    assert str(caught.value) == (
        f"{shrunk.weights}: wide.weight is int8, but there is no wide.weight.scale of uint8 with a "
        "value for each of its rows: the file is damaged"
    )


def test_scales_without_whole_numbers_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    write_weights(folder, **tensors, **{"weight.scale": torch.zeros(2, dtype=torch.uint8)})
    with pytest.raises(ModelError, match=r"weight\.scale has values that are not finite float"):
        load(folder)


def test_whole_numbers_of_another_shape_are_refused(folder):
    numbers, codes = round_rows(torch.randn(3, 2))
    write_weights(folder, weight=numbers, bias=torch.zeros(2), **{"weight.scale": codes})
    with pytest.raises(ModelError, match=r"weight has shape \(3, 2\), config.toml says \(2, 3\)"):
        load(folder)


def save_tiny(path, **changes: object):
    model = make_transcriber()
    config = {"recogniser": to_dict(model.config) | changes}
    save_model(path, "recogniser", "tiny", config, model.network.state_dict())
    return path


def test_a_saved_recogniser_says_what_its_half_precision_weights_say(tmp_path):
    folder = save_tiny(tmp_path / "tiny")
    first, second = Transcriber.load(folder), Transcriber.load(str(folder))
    assert (first.name, first.sample_rate, first.lookaheads_ms) == ("tiny", 16000, (0, 160, 320))
    assert first.hash == second.hash
    network = make_transcriber().network
    x = torch.from_numpy(read_speech()[:6400].copy()).unsqueeze(0)
    expected = nn.Module.__call__(network, x)
    torch.testing.assert_close(first.network(x), expected, rtol=0, atol=0.3)
    assert torch.equal(first.network(x), second.network(x))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dropot": 0.1}, r"config\.toml: unknown key recogniser\.'dropot'"),
        ({"stack": "two"}, r"config\.toml: recogniser\.stack is 'two', expected int"),
        ({"stack": 3}, r"(in_proj|head|condition)\.\w+ has shape"),
        ({"lookahead_after": 9}, r"config\.toml: lookahead_after is 9"),
    ],
)
def test_a_recogniser_whose_config_does_not_fit_is_refused(tmp_path, changes, message):
    with pytest.raises(ModelError, match=message):
        Transcriber.load(save_tiny(tmp_path / "tiny", **changes))


def test_a_model_of_another_kind_cannot_transcribe(folder):
    with pytest.raises(ModelError, match="a toy model can't transcribe"):
        Transcriber.load(folder)
    edit(folder, 'kind = "toy"', 'kind = "recogniser"')
    with pytest.raises(ModelError, match=r"config\.toml: missing table 'recogniser'"):
        Transcriber.load(folder)


def test_what_is_made_empty_draws_no_random_numbers_and_is_filled():
    before = torch.get_rng_state()
    network = make_empty(Recogniser, make_transcriber().config)
    drawn = not torch.equal(torch.get_rng_state(), before)
    network.load_state_dict(make_transcriber().network.state_dict())
    x = 0.1 * torch.randn(1, 6400)
    assert torch.equal(network.eval()(x), make_transcriber().network(x))
    assert not drawn
