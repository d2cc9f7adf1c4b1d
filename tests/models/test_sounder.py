"""The sounder network: a word's phones depend on all its letters and on nothing else."""

import pytest
import torch

from audiossm.checkpoint import save_model
from audiossm.errors import ConfigError, ModelError, ShapeError
from audiossm.models import (
    LETTERS,
    LoadedSounder,
    Sounder,
    SounderConfig,
    save_sounder,
    shipped_sounder,
)
from audiossm.models.sounder import collapse
from tiny_sounder import make_sounder

WORDS = ["a", "tan", "natter's", "antarctica", "at"]


def test_words_are_spelled_in_ids_from_1_and_zeros_follow():
    letters, lengths = Sounder.spell(["a'z", "b"])
    assert letters.tolist() == [[2, 1, 27], [3, 0, 0]] and lengths.tolist() == [3, 1]
    assert len(LETTERS) == 27


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
def test_batch_mates_change_nothing(num_layers):
    config = SounderConfig.tiny()
    sizes = {name: getattr(config.backbone, name) for name in ("d_model", "d_state", "head_dim")}
    backbone = type(config.backbone)(num_layers=num_layers, d_intermediate=32, **sizes)
    network = Sounder(SounderConfig(backbone=backbone, symbols="a n", d_embedding=8)).eval()
    letters, lengths = network.spell(WORDS)
    together = network(letters, lengths)
    assert together.shape == (5, 10 * 3, 3)
    torch.testing.assert_close(together.exp().sum(-1), torch.ones(5, 30))
    for row, word in zip(together, WORDS, strict=True):
        alone = network(*network.spell([word]))[0]
        torch.testing.assert_close(row[: len(alone)], alone, rtol=1e-4, atol=1e-5)


def test_each_letter_is_heard_at_both_ends_of_a_long_word():
    network = make_sounder().network
    first, middle, last = (
        network(*network.spell([word])) for word in ("b" + "a" * 9, "a" * 10, "a" * 9 + "b")
    )
    for other in (first, last):
        changed = (other - middle).abs().amax(-1)[0]
        assert changed[0] > 1e-6 and changed[-1] > 1e-6


def test_a_path_collapses_as_ctc_has_it():
    assert collapse([0, 1, 1, 0, 1, 2, 2, 0]) == [1, 1, 2]
    assert collapse([]) == collapse([0, 0]) == []


def test_any_number_of_words_is_pronounced_in_order(monkeypatch):
    sounder = make_sounder()
    whole = sounder.pronounce(WORDS)
    assert len({phones for phones in whole if phones}) > 1
    assert {phone for phones in whole for phone in phones} <= {"a", "ˈa", "n", "t"}
    monkeypatch.setattr("audiossm.models.loaded_sounder.BATCH", 2)
    assert sounder.pronounce(WORDS) == whole
    assert sounder.pronounce([]) == []


def test_a_folder_holds_a_sounder(tmp_path):
    sounder = make_sounder()
    save_sounder(tmp_path / "mouth", "says", sounder.network)
    loaded = LoadedSounder.load(tmp_path / "mouth")
    assert loaded.name == "mouth" and loaded.network.config == SounderConfig.tiny()
    assert loaded.pronounce(WORDS) == sounder.pronounce(WORDS)


def test_what_is_no_sounder_is_refused(tmp_path, monkeypatch):
    save_model(tmp_path / "other", "codec", "", {}, {"x": torch.zeros(1)})
    with pytest.raises(ModelError, match="a codec model can't pronounce"):
        LoadedSounder.load(tmp_path / "other")
    save_model(tmp_path / "empty", "sounder", "", {}, {"x": torch.zeros(1)})
    with pytest.raises(ModelError, match="missing key"):
        LoadedSounder.load(tmp_path / "empty")
    monkeypatch.setattr("audiossm.checkpoint.model_names", lambda: [])
    assert shipped_sounder() is None
    with pytest.raises(ModelError, match="no sounder is shipped"):
        LoadedSounder.load()


def test_wrong_shapes_and_sizes_are_refused():
    network = make_sounder().network
    with pytest.raises(ShapeError, match="must be"):
        network(torch.zeros(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64))
    with pytest.raises(ShapeError, match="must be"):
        network(torch.zeros(2, 3, dtype=torch.int64), torch.ones(3, dtype=torch.int64))
    with pytest.raises(ConfigError, match="the same phone twice"):
        SounderConfig.tiny("a a")
    with pytest.raises(ConfigError, match="must be odd"):
        SounderConfig(backbone=SounderConfig.tiny().backbone, symbols="a", conv_kernel=4)
