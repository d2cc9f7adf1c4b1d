"""The authors' checkpoints become model folders that compute the same, and come back unchanged."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiossm.errors import ConfigError
from audiossm.models import LanguageModelConfig, load_language_model
from audiossm.models.interchange import read_authors_folder
from audiossm_apps.cli import main

GOLDEN = Path(__file__).parents[1] / "golden"
SIZES = ["lm_siso.npz", "lm_mimo.npz", "lm_siso_norms.npz"]


def read_golden(name: str) -> tuple[dict[str, object], dict[str, Tensor], Tensor, Tensor]:
    """Return config.json, tensors by the authors' names, ids and what these give."""
    with np.load(GOLDEN / name) as file:
        tensors = {
            key.removeprefix("param."): torch.from_numpy(file[key])
            for key in file.files
            if key.startswith("param.")
        }
        told = torch.from_numpy(file["ids"]), torch.from_numpy(file["logits"])
        return json.loads(str(file["config"])), tensors, *told


def make_checkpoint(folder: Path, name: str, *, safe: bool, mixed: bool = False) -> Path:
    """Write a folder as the authors' ``save_pretrained`` does; ``mixed``, with halves in it."""
    config, tensors, _, _ = read_golden(name)
    if mixed:  # as they publish: projections in bfloat16, small parameters in float32
        tensors = {n: t.bfloat16() if t.dim() == 2 else t for n, t in tensors.items()}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    if safe:
        del tensors["lm_head.weight"]
        save_file(tensors, folder / "model.safetensors")
    else:
        tensors["lm_head.weight"] = tensors["backbone.embedding.weight"]
        torch.save(tensors, folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("safe", [False, True])
def test_a_converted_checkpoint_gives_what_an_independent_implementation_gives(
    tmp_path, capsys, name, safe
):
    source = make_checkpoint(tmp_path / "theirs", name, safe=safe)
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0
    assert ", 2 layers of 64 channels, " in capsys.readouterr().out
    _, _, ids, expected = read_golden(name)
    model = load_language_model(tmp_path / "ours")
    with torch.no_grad():
        logits = model(ids)
    assert (logits - expected).abs().max() <= 2e-5 * expected.abs().max()


@pytest.mark.parametrize("safe", [False, True])
def test_the_way_there_and_back_changes_no_bit(tmp_path, safe):
    source = make_checkpoint(tmp_path / "theirs", "lm_mimo.npz", safe=safe, mixed=True)
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0
    command = ["convert", str(tmp_path / "ours"), str(tmp_path / "back")]
    assert main([*command, "--safetensors"] if safe else command) == 0
    if safe:
        before, after = (load_file(d / "model.safetensors") for d in (source, tmp_path / "back"))
        assert torch.equal(after.pop("lm_head.weight"), before["backbone.embedding.weight"])
    else:
        files = [d / "pytorch_model.bin" for d in (source, tmp_path / "back")]
        before, after = (torch.load(file, weights_only=True) for file in files)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype and torch.equal(after[name], tensor), name
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16, torch.float32}
    tables = [json.loads((d / "config.json").read_text()) for d in (source, tmp_path / "back")]
    assert tables[1] | {"ssm_cfg": 0} == tables[1] | tables[0] | {"ssm_cfg": 0}
    assert tables[1]["ssm_cfg"] == tables[1]["ssm_cfg"] | tables[0]["ssm_cfg"]
    assert LanguageModelConfig.from_json(tables[1]) == LanguageModelConfig.from_json(tables[0])


def test_a_layer_is_one_of_a_recogniser_s(tmp_path):
    source = make_checkpoint(tmp_path / "theirs", "lm_siso.npz", safe=True)
    _, tensors = read_authors_folder(source)
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0
    block = load_language_model(tmp_path / "ours").blocks()[1]
    for name, weight in block.state_dict().items():
        assert torch.equal(weight, tensors[f"backbone.layers.1.{name}"])


def test_an_older_checkpoint_has_another_decay(tmp_path, capsys):
    source = make_checkpoint(tmp_path / "theirs", "lm_siso.npz", safe=True)
    command = ["convert", str(source), str(tmp_path / "ours"), "--a-activation", "softplus"]
    assert main(command) == 0
    _, _, ids, expected = read_golden("lm_siso.npz")
    with torch.no_grad():
        logits = load_language_model(tmp_path / "ours")(ids)
    assert (logits - expected).abs().max() > 1e-3 * expected.abs().max()
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "back")]) == 0
    assert "can't say a_activation = softplus" in capsys.readouterr().err
    assert "a_activation" not in (tmp_path / "back" / "config.json").read_text()


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_is_not_opened(tmp_path, capsys):
    source = make_checkpoint(tmp_path / "theirs", "lm_siso.npz", safe=False)
    torch.save({"x": Trap(tmp_path / "sprung")}, source / "pytorch_model.bin")
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 1
    assert "that could run a stranger's code" in capsys.readouterr().err
    assert not (tmp_path / "sprung").exists() and not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone.norm_f.weight": None}, "lacks 1 tensor(s), the first backbone.norm_f.weight"),
        ({"extra": torch.zeros(1)}, "has the unknown 1 tensor(s), the first extra"),
        ({"backbone.norm_f.weight": torch.ones(3)}, "shape (3,), config.json says (64,)"),
        ({"backbone.norm_f.weight": torch.full((64,), float("nan"))}, "are not finite numbers"),
        ({"lm_head.weight": torch.zeros(104, 64)}, "isn't the embedding, but tie_embeddings"),
    ],
)
def test_a_checkpoint_that_does_not_fit_costs_one_line(tmp_path, capsys, change, message):
    source = make_checkpoint(tmp_path / "theirs", "lm_siso.npz", safe=False)
    tensors = torch.load(source / "pytorch_model.bin", weights_only=True) | change
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    torch.save(tensors, source / "pytorch_model.bin")
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 1
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


def test_what_is_no_checkpoint_costs_one_line(tmp_path, capsys):
    def convert(source: Path, target: Path = tmp_path / "ours") -> str:
        assert main(["convert", str(source), str(target)]) == 1
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        return told

    (tmp_path / "empty").mkdir()
    assert "has no config.json" in convert(tmp_path / "empty")
    source = make_checkpoint(tmp_path / "theirs", "lm_siso.npz", safe=False)
    assert "is there already" in convert(source, tmp_path / "empty")
    for damage in (b"", b"not a checkpoint", (source / "pytorch_model.bin").read_bytes()[:2000]):
        (source / "pytorch_model.bin").write_bytes(damage)
        assert "pytorch_model.bin" in convert(source)
    (source / "pytorch_model.bin").unlink()
    assert "neither model.safetensors nor pytorch_model.bin" in convert(source)
    (source / "config.json").write_text('{"d_model": 64')
    assert "not valid JSON" in convert(source)
    assert "a recogniser model is no language-model" in convert(
        GOLDEN.parents[1] / "assets/models/first-light"
    )


def test_a_config_of_another_model_is_refused(tmp_path):
    source = make_checkpoint(tmp_path / "theirs", "lm_siso.npz", safe=False)
    table = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(table | {"ssm_cfg": {"layer": "Mamba2"}}))
    with pytest.raises(ConfigError, match="config.json: ssm_cfg.layer is 'Mamba2'"):
        read_authors_folder(source)
