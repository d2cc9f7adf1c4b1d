"""A model folder that is damaged is refused in a line that names it."""

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from audiossm.checkpoint import save_model
from audiossm.config import to_dict
from audiossm.errors import ModelError
from audiossm.models import LoadedRecogniser
from tiny_model import make_transcriber


@pytest.fixture
def folder(tmp_path) -> Path:
    network = make_transcriber().network
    config = {"recogniser": to_dict(network.config)}
    save_model(tmp_path / "toy", "recogniser", "a line", config, network.state_dict())
    return tmp_path / "toy"


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
