"""How late a model's spikes are: read with the model, no part of what it is."""

import pytest
import torch

from audiossm.checkpoint import save_model
from audiossm.config import to_dict
from audiossm.errors import ConfigError, ModelError
from audiossm.models import LoadedRecogniser, SpikeOffsets
from tiny_model import make_transcriber


def save_tiny(path, **alignment: object):
    model = make_transcriber()
    tables = {"recogniser": to_dict(model.config)}
    if alignment:
        tables["alignment"] = alignment
    save_model(path, "recogniser", "tiny", tables, model.network.state_dict())
    return path


def test_a_model_brings_its_offsets_which_do_not_make_it_another(tmp_path):
    plain = LoadedRecogniser.load(save_tiny(tmp_path / "plain"))
    assert plain.offsets == SpikeOffsets()
    offsets = {"letters_start": [-3.0, -4.5, -5], "letters_end": [0.5, 0.25, 0]}
    measured = LoadedRecogniser.load(save_tiny(tmp_path / "measured", **offsets))
    assert measured.offsets == SpikeOffsets(
        letters_start=(-3.0, -4.5, -5.0), letters_end=(0.5, 0.25, 0.0)
    )
    assert measured.hash == plain.hash
    for name, tensor in plain.network.state_dict().items():
        assert torch.equal(tensor, measured.network.state_dict()[name])


@pytest.mark.parametrize(
    ("alignment", "message"),
    [
        ({"letters_strat": [0.0]}, "unknown key alignment.'letters_strat'"),
        (
            {"letters_start": [1.0]},
            "alignment.letters_start has 1 numbers, expected one for each of 3",
        ),
        ({"letters_start": [1.0, 1.0, 1.0]}, r"alignment.letters_start is \(1.0, 1.0, 1.0\)"),
        ({"phones_start": [0, 0, 2], "phones_end": [0, 0, 1]}, "each start must be less than its"),
        (
            {"phones_start": [0, 0, 0], "phones_end": [0, 0, 0]},
            "needs phones_start, phones_end and phones_inner together",
        ),
        ({"letters_end": "late"}, "alignment.letters_end is 'late', expected a list"),
    ],
)
def test_offsets_that_cannot_be_are_refused(tmp_path, alignment, message):
    with pytest.raises(ModelError, match=message):
        LoadedRecogniser.load(save_tiny(tmp_path / "tiny", **alignment))


def test_a_word_that_lasts_a_frame_cannot_end_before_it_starts():
    SpikeOffsets(letters_start=(0.5,), letters_end=(-0.4,)).check(1)
    with pytest.raises(ConfigError, match="would end first"):
        SpikeOffsets(letters_start=(0.5,), letters_end=(-0.5,)).check(1)
