"""The writer network: streaming equals offline, the look-ahead is what it says, folders load."""

import pytest
import torch

from audiossm.checkpoint import save_model
from audiossm.errors import ConfigError, ModelError, ShapeError
from audiossm.marks import CAPITAL, CASES, LOWER, MARKS, STOP, UPPER
from audiossm.models import (
    BORDER,
    LoadedWriter,
    Writer,
    WriterConfig,
    choose_forms,
    save_writer,
    shipped_writer,
)
from contract import assert_streaming_equals_offline
from tiny_writer import make_writer

CONFIG = WriterConfig.tiny()
WORDS = "the cat is said to be a dog and the dog is no cat he said".split()


def test_any_chunking_gives_the_offline_result():
    x = torch.stack([CONFIG.features(WORDS), CONFIG.features(WORDS[::-1])])
    network = Writer(CONFIG).eval()
    assert_streaming_equals_offline(network, x, time=1)


def test_a_word_waits_for_the_look_ahead_and_no_longer():
    network = Writer(CONFIG).eval()
    whole = network(CONFIG.features(WORDS).unsqueeze(0))
    changed = CONFIG.features([*WORDS[:8], "other", *WORDS[9:]]).unsqueeze(0)
    same = (network(changed) == whole).all(-1)[0]
    # the output of word 8 is about word 6, and the first that may differ
    assert same.tolist()[:8] == [True] * 8 and not same[8]
    assert CONFIG.lookahead == 2


def test_words_have_rows_of_their_own_and_share_those_of_their_letters():
    the, there, border = CONFIG.features(["the", "there", BORDER])
    known, affixes = len(CONFIG.words.split()), CONFIG.num_affixes
    assert the[0] == 2 and there[0] == 0
    assert border.tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert (the[1], the[3]) == (there[1], there[3])  # <th and <the
    rows = torch.stack([the, there])[:, 1:]
    assert rows.min() >= 2 + known and rows.max() < 2 + known + affixes
    # a hash that changed would break every trained model
    assert (there[1:] - 2 - known).tolist() == [62, 37, 49, 26, 59, 23]


def test_a_sentence_begins_with_a_capital():
    logits = torch.zeros(3, len(CASES) + len(MARKS))
    logits[:, LOWER] = 1.0
    logits[2, UPPER] = 2.0
    logits[0, len(CASES) + STOP] = 1.0
    logits[1, len(CASES) + STOP] = 1.0
    assert choose_forms(logits, 0).cases.tolist() == [LOWER, CAPITAL, UPPER]
    assert choose_forms(logits, STOP).cases.tolist() == [CAPITAL, CAPITAL, UPPER]
    assert choose_forms(logits, 0).marks.tolist() == [STOP, STOP, 0]


def test_a_folder_holds_a_writer(tmp_path):
    writer = make_writer()
    save_writer(tmp_path / "hand", "writes", writer.network)
    loaded = LoadedWriter.load(tmp_path / "hand")
    assert loaded.name == "hand" and loaded.network.config == CONFIG
    torch.testing.assert_close(
        loaded.network.head.weight, writer.network.head.weight, rtol=1e-3, atol=1e-3
    )


def test_what_is_no_writer_is_refused(tmp_path, monkeypatch):
    save_model(tmp_path / "other", "codec", "", {}, {"x": torch.zeros(1)})
    with pytest.raises(ModelError, match="a codec model can't punctuate"):
        LoadedWriter.load(tmp_path / "other")
    save_model(tmp_path / "empty", "writer", "", {}, {"x": torch.zeros(1)})
    with pytest.raises(ModelError, match="missing key"):
        LoadedWriter.load(tmp_path / "empty")
    monkeypatch.setattr("audiossm.checkpoint.model_names", lambda: [])
    assert shipped_writer() is None
    with pytest.raises(ModelError, match="no writer is shipped"):
        LoadedWriter.load()


def test_wrong_shapes_and_sizes_are_refused():
    with pytest.raises(ShapeError, match="must be"):
        make_writer().network(torch.zeros(1, 3, 2, dtype=torch.int64))
    with pytest.raises(ConfigError, match="the same word twice"):
        WriterConfig.tiny("a a")
