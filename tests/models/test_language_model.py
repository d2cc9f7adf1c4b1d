"""The language model as a stream, and its authors' config and names."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from audiossm.errors import ConfigError, ModelError, ShapeError
from audiossm.models.language_model import LanguageModel, LanguageModelConfig
from contract import assert_streaming_equals_offline

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_config(name: str, **changes: object) -> dict[str, object]:
    with np.load(GOLDEN / name) as file:
        return json.loads(str(file["config"])) | changes


def make_model(name: str) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(LanguageModelConfig.from_json(golden_config(name)))


@pytest.mark.parametrize("name", ["lm_siso.npz", "lm_mimo.npz"])
def test_any_chunking_gives_the_offline_result(name):
    ids = torch.randint(0, 97, (2, 30), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert_streaming_equals_offline(make_model(name), ids, time=1, trials=4)


def test_the_vocabulary_and_the_mlp_are_rounded_up():
    model = make_model("lm_siso.npz")
    assert model.backbone.embedding.weight.shape == (104, 64)
    assert model.blocks()[0].mlp.fc2.weight.shape == (64, 128)
    assert model.lm_head.weight is model.backbone.embedding.weight


def test_a_head_may_have_its_own_weights():
    config = golden_config("lm_siso.npz", tie_embeddings=False)
    model = LanguageModel(LanguageModelConfig.from_json(config))
    assert model.lm_head.weight is not model.backbone.embedding.weight


def test_a_tied_checkpoint_may_leave_the_head_out():
    source, model = make_model("lm_siso.npz"), make_model("lm_siso.npz")
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.mul_(1.5)
    tensors = {k: v for k, v in source.state_dict().items() if k != "lm_head.weight"}
    model.load_checkpoint(tensors)
    ids = torch.arange(12).view(1, 12)
    assert torch.equal(model(ids), source(ids))


def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line():
    model = make_model("lm_siso.npz")
    tensors = model.state_dict()
    without = {k: v for k, v in tensors.items() if k != "backbone.norm_f.weight"}
    with pytest.raises(ModelError, match="Missing key.*backbone.norm_f.weight") as caught:
        model.load_checkpoint(without)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="lm_head.weight differs from the embedding"):
        model.load_checkpoint({**tensors, "lm_head.weight": tensors["lm_head.weight"] + 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attn_layer_idx": [1]}, r"attention layers \[1\] are not supported"),
        ({"rms_norm": False}, "rms_norm must be true"),
        ({"n_layers": 2}, "unknown key config.'n_layers'"),
        ({"ssm_cfg": {"layer": "Mamba2"}}, "'Mamba2', only 'Mamba3'"),
        ({"vocab_size": 0}, "vocab_size must be 1 or more, not 0"),
    ],
)
def test_a_config_of_another_model_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        LanguageModelConfig.from_json(golden_config("lm_siso.npz", **changes))


def test_ids_without_a_batch_are_refused():
    with pytest.raises(ShapeError, match=r"\(batch, tokens >= 1\), not \(5,\)"):
        make_model("lm_siso.npz")(torch.zeros(5, dtype=torch.int64))


def test_a_bfloat16_model_keeps_its_residual_in_float32():
    model = make_model("lm_siso.npz")
    ids = torch.arange(20).view(1, 20)
    expected = model(ids)
    seen = []
    model.blocks()[1].norm.register_forward_hook(lambda m, args, y: seen.append(args[0].dtype))
    logits = model.bfloat16()(ids)
    assert logits.dtype == torch.bfloat16
    assert seen == [torch.float32]
    assert (logits.float() - expected).norm() / expected.norm() < 0.05
